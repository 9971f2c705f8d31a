"""One annotation source per file: `load(config, split) -> Split`. To add one, add a file and a line."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from configs.data import DataConfig
from configs.sources import MixtureSource
from data.annotations import AnnotationError, Split
from data.probing import probe_samples
from data.sources import (
    activitynet_captions,
    charades_sta,
    didemo,
    hcstvg,
    jsonl,
    mixture,
    nextgqa,
    prepared,
    qvhighlights,
    refcoco,
    synthetic,
    tacos,
    vidstg,
)
from data.types import GroundingSample

logger = logging.getLogger("data.sources")

SOURCES: dict[str, Callable[[Any, str], Split]] = {
    "synthetic": synthetic.load,
    "jsonl": jsonl.load,
    "prepared": prepared.load,
    "vidstg": vidstg.load,
    "hcstvg_v1": hcstvg.load_v1,
    "hcstvg_v2": hcstvg.load_v2,
    "charades_sta": charades_sta.load,
    "activitynet_captions": activitynet_captions.load,
    "qvhighlights": qvhighlights.load,
    "didemo": didemo.load,
    "tacos": tacos.load,
    "nextgqa": nextgqa.load,
    "refcoco": refcoco.load,
}


READABLE: dict[str, Callable[[Any, str], Split]] = {**SOURCES, "prepared": prepared.load_readable}
"""For those who need every video."""


def load_samples(config: DataConfig, split: str, *, probe: bool = True, labelled: bool = True) -> list[GroundingSample]:
    """All samples of a split whose task has a positive weight, ready to be trained on or scored.

    labelled: False takes questions without a true answer too, to be asked alone.
    probe: put samples annotated in seconds on the clock of their videos, which are read through for it unless a source
    `prepared` holds what they gave; its `problem_videos` says what bad ones do. Without it samples are as annotated
    (`GroundingSample.is_probed`), and those of bad videos are among them.
    Raises AnnotationError when none is left, and for a record, or a video looked at so, that cannot be used unless
    `bad_records` is "skip".
    """
    return load_samples_and_rejected(config, split, probe=probe, labelled=labelled)[0]


def load_samples_and_rejected(
    config: DataConfig, split: str, *, probe: bool = True, labelled: bool = True
) -> tuple[list[GroundingSample], list[AnnotationError]]:
    """`load_samples`, and one error for each record or video that was left out."""
    read = _read(config, split, READABLE if probe else SOURCES)
    if read.rejected:
        if config.bad_records == "error":
            raise _with_count(read)
        logger.warning(
            "%s: %d of %d records left out, first: %s", split, len(read.rejected), read.num_records, read.rejected[0]
        )
    origin = f"{config.source.type}, split {split!r}"
    kept = [sample for sample in read.samples if config.tasks.get(sample.task, 0.0) > 0]
    if not kept:
        tasks = sorted({sample.task for sample in read.samples})
        raise AnnotationError(origin, f"no sample of a task in {config.tasks}; its tasks are {tasks}")
    if left_out := Counter(sample.task for sample in read.samples) - Counter(sample.task for sample in kept):
        logger.info("%s: left out, since data.tasks has no weight for them: %s", split, dict(left_out))
    _warn_without_boxes(kept, split)
    unlabelled = [sample.sample_id for sample in kept if sample.task != "qa" and sample.span is None]
    if unlabelled and labelled:
        raise AnnotationError(origin, f"{len(unlabelled)} samples have no span, first {unlabelled[:3]}")
    several = [sample.sample_id for sample in kept if sample.more_tubes]
    if several and labelled:
        cause = f"expected one tube, {len(several)} samples have more_tubes, first {several[:3]}"
        raise AnnotationError(origin, f"{cause}: training and metrics take one span of one object")
    kept, unreadable = _probed(config, split, kept) if probe else (kept, [])
    return kept, [*read.rejected, *unreadable]


def _warn_without_boxes(samples: list[GroundingSample], split: str) -> None:
    tubes = [sample for sample in samples if sample.task == "stvg" and sample.span is not None]
    if tubes and not any(any(sample.boxes_xyxy_px or ()) for sample in tubes):
        logger.warning(
            "%s: none of %d stvg samples has a box, so boxes are neither trained nor scored", split, len(tubes)
        )


def _probed(
    config: DataConfig, split: str, samples: list[GroundingSample]
) -> tuple[list[GroundingSample], list[AnnotationError]]:
    """Samples annotated in seconds, on the clock of their videos, and an error for each that is left out."""
    probed, errors = probe_samples(samples)
    if errors:
        if config.bad_records == "error" or not probed:
            raise errors[0]
        logger.warning("%s: %d samples left out for their videos, first: %s", split, len(errors), errors[0])
    return probed, errors


def _with_count(read: Split) -> AnnotationError:
    """The first rejected record, how many there are, and what leaves them out."""
    first = read.rejected[0]
    cause = f"{first.cause}. {len(read.rejected)} rejected, {read.num_records} records read; data.bad_records=skip leaves them out"
    return AnnotationError(first.path, cause, record=first.record, field=first.field)


def _read(config: DataConfig, split: str, loaders: Mapping[str, Callable[[Any, str], Split]]) -> Split:
    if isinstance(config.source, MixtureSource):
        return mixture.load(config.source, split, tasks=config.tasks, loaders=loaders)
    return loaders[config.source.type](config.source, split)
