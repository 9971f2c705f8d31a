"""Which sample comes at which position of a run: a pure function of the seed, so that resuming needs no state."""

from collections.abc import Mapping, Sequence
from typing import Any
from zlib import crc32

import numpy as np

from data.types import GroundingSample


def draw_order(
    samples: Sequence[GroundingSample], weights: Mapping[Any, float], *, total: int, seed: int
) -> np.ndarray:
    """Indices of the samples at positions 0, 1, ..., total - 1; a longer run begins with the order of a shorter one.

    The task of a position is drawn by weight; within a task all samples come once before any comes again.
    """
    by_task: dict[str, np.ndarray] = {
        task: np.flatnonzero([sample.task == task for sample in samples]) for task in weights
    }
    tasks = [task for task in by_task if weights[task] > 0 and len(by_task[task])]
    if not tasks:
        raise ValueError(f"no sample of a task in {dict(weights)}")
    shares = np.array([weights[task] for task in tasks], dtype=float)
    task_of_position = np.random.default_rng([seed, 0x5EED]).choice(len(tasks), size=total, p=shares / shares.sum())
    order = np.empty(total, dtype=np.int64)
    for number, task in enumerate(tasks):
        positions = np.flatnonzero(task_of_position == number)
        order[positions] = _epochs(by_task[task], len(positions), np.random.default_rng([seed, crc32(task.encode())]))
    return order


def _epochs(indices: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` entries: permutation after permutation of `indices`."""
    rounds = -(-count // len(indices)) if count else 0
    shuffled = [rng.permutation(indices) for _ in range(rounds)]
    return np.concatenate([*shuffled, np.empty(0, dtype=np.int64)])[:count]
