"""Several sources as one split: ids become `part/id`, a sample's source is the part's name.

A part that cannot be read, or that lacks samples of a task it names, is an error with the part's name: left out in
silence, its share would go to the others.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from configs.sources import AnnotationFiles, MixturePart, MixtureSource
from data.annotations import AnnotationError, Split
from data.types import Task

Loaders = Mapping[str, Callable[[Any, str], Split]]


def load(config: MixtureSource, split: str, *, tasks: Mapping[Task, float], loaders: Loaders) -> Split:
    """The samples that can be drawn: of parts with a positive weight and this split, of their tasks that `tasks` keeps.

    Raises AnnotationError naming the part.
    """
    joined = Split()
    for name, part in config.parts.items():
        own_split, drawn = part.splits.get(split, split), _drawn_tasks(part, tasks)
        if own_split is not None and drawn:
            _add_part(joined, name, _read_part(name, part, own_split, loaders), part, drawn)
    return joined


def _drawn_tasks(part: MixturePart, tasks: Mapping[Task, float]) -> set[Task]:
    weights = tasks if part.tasks is None else part.tasks
    return {task for task, weight in weights.items() if part.weight * weight * tasks.get(task, 0.0) > 0}


def _read_part(name: str, part: MixturePart, split: str, loaders: Loaders) -> Split:
    try:
        for folder in _folders(part):
            if not Path(folder).is_dir():
                raise AnnotationError(folder, "no such folder")
        return loaders[part.source.type](part.source, split)
    except AnnotationError as error:
        raise _of_part(error, name) from error


def _folders(part: MixturePart) -> list[str]:
    """Published files, which have to be there before a run starts."""
    if not isinstance(part.source, AnnotationFiles):
        return []
    return [folder for folder in (part.source.annotations, part.source.videos) if folder]


def _add_part(joined: Split, name: str, read: Split, part: MixturePart, drawn: set[Task]) -> None:
    kept = [sample for sample in read.samples if sample.task in drawn]
    missing = drawn - {sample.task for sample in kept}
    if missing and (part.tasks is not None or not kept):
        if read.rejected:
            raise _of_part(read.rejected[0], name)
        found = sorted({sample.task for sample in read.samples})
        raise AnnotationError(f"part {name!r} of the mixture", f"no sample of {sorted(missing)}; its tasks are {found}")
    for sample in kept:
        joined.add(replace(sample, sample_id=f"{name}/{sample.sample_id}", source=name))
    kept_ids = {sample.sample_id for sample in kept}
    for flag, ids in read.flags.items():
        joined.flags[flag] += [f"{name}/{sample_id}" for sample_id in ids if sample_id in kept_ids]
    joined.rejected += [_of_part(error, name) for error in read.rejected]
    joined.num_records += read.num_records


def _of_part(error: AnnotationError, name: str) -> AnnotationError:
    cause = f"{error.cause} (part {name!r} of the mixture)"
    return AnnotationError(error.path, cause, record=error.record, field=error.field)
