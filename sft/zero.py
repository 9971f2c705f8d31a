"""What a DeepSpeed JSON says of ZeRO; without torch, so that a run's config is checked before torch and DeepSpeed are imported."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.base import ConfigError


@dataclass(frozen=True)
class Zero:
    """A DeepSpeed JSON's `zero_optimization`, with DeepSpeed's defaults; sizes in elements."""

    stage: int
    reduce_bucket: int
    overlap: bool
    live_parameters: int
    sub_group: int


def read_zero(path: str) -> Zero:
    """Raises ConfigError where the file cannot be read or its values are not numbers."""
    try:
        section = json.loads(Path(path).read_text()).get("zero_optimization", {})
    except (OSError, json.JSONDecodeError) as error:
        raise ConfigError(f"deepspeed: {path}: expected a DeepSpeed JSON: {error}") from None
    stage = _number(path, section, "stage", 0)
    return Zero(
        stage=stage,
        reduce_bucket=_number(path, section, "reduce_bucket_size", 500_000_000),
        overlap=bool(section.get("overlap_comm", stage == 3)),
        live_parameters=_number(path, section, "stage3_max_live_parameters", 1_000_000_000),
        sub_group=_number(path, section, "sub_group_size", 1_000_000_000),
    )


def _number(path: str, section: dict[str, Any], key: str, default: int) -> int:
    value = section.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"deepspeed: {path}: zero_optimization.{key}: expected a number, got {value!r}")
    return int(value)
