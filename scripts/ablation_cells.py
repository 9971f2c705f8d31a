"""The cells of an ablation (configs/ablation/cells.yaml): what each changes of the default. All are checked at once."""

import json
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from configs.base import Config, ConfigError, load_config
from configs.evaluation import EvaluationConfig
from configs.sft import SFTConfig

DEFAULT = "default"

Name = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
"""Of a cell, and of its folder."""
Changes = dict[str, bool | int | float | str]
"""Dotted key of a config -> value."""


class Cell(Config):
    """One row of the table."""

    asks: str
    """What is switched off or changed, in words."""
    train: Changes = {}
    """Of cell.yaml. Without any, the default's checkpoint is taken and nothing is trained."""
    evaluate: Changes = {}
    """Of evaluate.yaml."""


class CellTable(Config):
    """cells.yaml; the cells run in its order."""

    cells: dict[Name, Cell]

    @model_validator(mode="after")
    def _default_and_changes(self) -> "CellTable":
        if DEFAULT not in self.cells:
            raise ValueError(f"cells: expected one of the name {DEFAULT!r}")
        for name, cell in self.cells.items():
            if bool(cell.train or cell.evaluate) == (name == DEFAULT):
                raise ValueError(f"cells.{name}: expected changes in every cell but {DEFAULT!r}, and none there")
        return self


def is_trained(name: str, cell: Cell) -> bool:
    """Whether the cell has a training of its own; otherwise it asks the default's checkpoint."""
    return name == DEFAULT or bool(cell.train)


def cell_folder(out: Path, name: str, seed: int) -> Path:
    """Where a cell's train/ and eval/ are."""
    return out / "cells" / name / f"seed{seed}"


def trained_folder(out: Path, name: str, cell: Cell, seed: int) -> Path:
    """Where the train/ is that its answers come from."""
    return cell_folder(out, name if is_trained(name, cell) else DEFAULT, seed)


def load_cells(configs: Path) -> dict[str, Cell]:
    """The table in a folder of configs, every cell of it checked against the schemas, so that none fails hours later.

    Raises ConfigError with file, cell and key: for a config that is not valid, and for a change that changes nothing.
    """
    path = configs / "cells.yaml"
    cells = load_config(CellTable, path).cells
    for name, cell in cells.items():
        check_changes(SFTConfig, configs / "cell.yaml", cell.train, origin=f"{path}: cell {name}")
        check_changes(EvaluationConfig, configs / "evaluate.yaml", cell.evaluate, origin=f"{path}: cell {name}")
    return cells


def check_changes(schema: type[Config], path: Path, changes: Changes, *, origin: str) -> None:
    """Raise ConfigError, with `origin`, where a change is not valid in the config at `path`, or changes nothing."""
    default = load_config(schema, path).model_dump(mode="json")
    try:
        changed = load_config(schema, path, overrides(changes)).model_dump(mode="json")
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}") from None
    for key in changes:
        if value_at(changed, key) == value_at(default, key):
            raise ConfigError(f"{origin}: {key}={value_at(default, key)!r} is what {path} has; expected another value")


def value_at(tree: Mapping[str, Any], dotted: str) -> Any:
    """`a.b` of a nested dict."""
    return reduce(lambda node, key: node[key], dotted.split("."), tree)


def overrides(changes: Changes) -> tuple[str, ...]:
    """As a command line has them; as JSON, since YAML reads a bare `off` as false."""
    return tuple(f"{key}={json.dumps(value)}" for key, value in changes.items())
