"""Which sample comes at which position of a run: a pure function of the seed, so that resuming needs no state.

Positions are counted over all ranks: step s of a run is positions s * n, ..., s * n + n - 1, of which every rank takes
its own, so that a resumed run, and one on other ranks, goes on with the same samples.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from zlib import crc32

import numpy as np

from configs.data import DataConfig
from configs.sources import MixturePart, MixtureSource
from data.types import GroundingSample, Task


@dataclass(frozen=True)
class Group:
    """Samples of one task, of one part of a mixture: drawn together, in proportion to `weight`.

    name: the task, or `part/task`. indices: of its samples, ascending, at least one.
    """

    name: str
    task: Task
    weight: float
    indices: np.ndarray


def sample_groups(samples: Sequence[GroundingSample], data: DataConfig) -> list[Group]:
    """The groups of a split with samples and a positive weight. Raises ValueError when there are none.

    One source: a group for each of `data.tasks`. A mixture: one for each part and task; parts are drawn by `weight`,
    within a part its tasks by the part's `tasks`.
    """
    if isinstance(data.source, MixtureSource):
        groups = [group for name, part in data.source.parts.items() for group in _part(name, part, samples, data)]
    else:
        groups = _tasks(samples, data.tasks)
    if not groups:
        raise ValueError(f"no sample of a task in {data.tasks}")
    return groups


def _tasks(samples: Sequence[GroundingSample], weights: dict[Task, float], part: str | None = None) -> list[Group]:
    found: dict[Task, list[int]] = defaultdict(list)
    for index, sample in enumerate(samples):
        if part is None or sample.source == part:
            found[sample.task].append(index)
    prefix = "" if part is None else f"{part}/"
    return [
        Group(f"{prefix}{task}", task, weight, np.array(found[task]))
        for task, weight in weights.items()
        if weight > 0 and found[task]
    ]


def _part(name: str, part: MixturePart, samples: Sequence[GroundingSample], data: DataConfig) -> list[Group]:
    weights = data.tasks if part.tasks is None else part.tasks
    kept: dict[Task, float] = {task: weight for task, weight in weights.items() if data.tasks.get(task, 0.0) > 0}
    groups = _tasks(samples, kept, name) if part.weight > 0 else []
    total = sum(group.weight for group in groups)
    return [replace(group, weight=part.weight * group.weight / total) for group in groups]


def draw_order(groups: Sequence[Group], *, total: int, seed: int, per_task: int | None = None) -> np.ndarray:
    """Indices of the samples at positions 0, 1, ..., total - 1; a longer run begins with the order of a shorter one.

    The group of a position is drawn by weight; within a group all samples come once before any comes again. With
    `per_task`, positions 0, ..., per_task - 1 share a task, then the next `per_task` ones, and so on: the task is drawn
    by the weight of its groups, and the group of each position among those.
    """
    order = np.empty(total, dtype=np.int64)
    group_of_position = _mixed(groups, total, seed) if per_task is None else _by_task(groups, total, seed, per_task)
    for number, group in enumerate(groups):
        positions = np.flatnonzero(group_of_position == number)
        order[positions] = _epochs(group.indices, len(positions), _generator(seed, group.name))
    return order


def _generator(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng([seed, crc32(name.encode())])


def _draw(weights: Sequence[float], count: int, rng: np.random.Generator) -> np.ndarray:
    shares = np.array(weights, dtype=float)
    return rng.choice(len(shares), size=count, p=shares / shares.sum())


def _mixed(groups: Sequence[Group], total: int, seed: int) -> np.ndarray:
    return _draw([group.weight for group in groups], total, np.random.default_rng([seed, 0x5EED]))


def _by_task(groups: Sequence[Group], total: int, seed: int, size: int) -> np.ndarray:
    by_task: dict[Task, list[int]] = defaultdict(list)
    for number, group in enumerate(groups):
        by_task[group.task].append(number)
    weights = [sum(groups[number].weight for number in numbers) for numbers in by_task.values()]
    task_of_step = _draw(weights, -(-total // size), np.random.default_rng([seed, 0x5EED]))
    task_of_position = np.repeat(task_of_step, size)[:total]
    chosen = np.empty(total, dtype=np.int64)
    for row, (task, numbers) in enumerate(by_task.items()):
        positions = np.flatnonzero(task_of_position == row)
        rng = _generator(seed, f"groups of {task}")
        chosen[positions] = np.array(numbers)[_draw([groups[n].weight for n in numbers], len(positions), rng)]
    return chosen


def _epochs(indices: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` entries: permutation after permutation of `indices`."""
    rounds = -(-count // len(indices)) if count else 0
    shuffled = [rng.permutation(indices) for _ in range(rounds)]
    return np.concatenate([*shuffled, np.empty(0, dtype=np.int64)])[:count]
