"""One annotation source per file: `load(config, split) -> list[GroundingSample]`. To add one, add a file and a line."""

from collections.abc import Callable
from typing import Any

from configs.data import DataConfig
from data.sources import jsonl, synthetic, vidstg
from data.types import GroundingSample

SOURCES: dict[str, Callable[[Any, str], list[GroundingSample]]] = {
    "synthetic": synthetic.load,
    "jsonl": jsonl.load,
    "vidstg": vidstg.load,
}


def load_samples(config: DataConfig, split: str) -> list[GroundingSample]:
    """All samples of a split whose task has a positive weight. Raises AnnotationError when none is left."""
    samples = SOURCES[config.source.type](config.source, split)
    if unlabelled := [sample.sample_id for sample in samples if sample.task != "qa" and sample.span is None]:
        raise jsonl.AnnotationError(f"split {split!r}: {len(unlabelled)} samples have no span, first {unlabelled[:3]}")
    kept = [sample for sample in samples if config.tasks.get(sample.task, 0.0) > 0]
    if not kept:
        tasks = sorted({sample.task for sample in samples})
        raise jsonl.AnnotationError(
            f"{config.source.type}, split {split!r}: no sample of a task in {config.tasks}; its tasks are {tasks}"
        )
    return kept
