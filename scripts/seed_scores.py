"""Scores of trainings with several seeds as one: each sentence's scores are averaged over seeds, intervals are over sentences."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from configs.run import read_metrics
from data.types import GroundingSample
from evaluation.metrics import Scores, paired_difference, score, summarize
from evaluation.predict import PREDICTIONS, WRONG_QUERY_PREDICTIONS
from evaluation.predictions import read_predictions
from scripts.demo_summary import COLUMNS

BOOTSTRAP: dict[str, int] = {"num_resamples": 2000, "seed": 0}


def right_and_wrong(samples: Sequence[GroundingSample], evaluated: Path) -> tuple[Scores, Scores]:
    """Of the answers in an evaluation's folder: to the right sentences, and to other samples'."""
    return tuple(score(samples, read_predictions(evaluated / name)) for name in (PREDICTIONS, WRONG_QUERY_PREDICTIONS))  # pyright: ignore[reportReturnType]


def seed_of(cell: Path) -> int:
    """The number of a folder `seed0`."""
    return int(cell.name.removeprefix("seed"))


class Run(Protocol):
    """What every report knows of a training with one seed: scores of the right sentences, and of wrong ones."""

    @property
    def right(self) -> Scores: ...

    @property
    def wrong(self) -> Scores: ...


def summarize_seeds(runs: Mapping[int, Run]) -> dict[str, Any]:
    """Values of the mean over seeds with intervals, those of each seed, and right - wrong."""
    right, wrong = [run.right for run in runs.values()], [run.wrong for run in runs.values()]
    return {
        "values": summarize(mean_scores(right), **BOOTSTRAP),
        "by_seed": by_seed(right),
        "right_minus_wrong": paired_difference(mean_scores(right), mean_scores(wrong), **BOOTSTRAP),
    }


def mean_scores(runs: Sequence[Scores]) -> Scores:
    """Of each sentence the mean over seeds."""
    parts = ([run.tiou, run.viou, run.gt_viou, run.parsed] for run in runs)
    return Scores(*(np.mean(column, axis=0) for column in zip(*parts, strict=True)))


def by_seed(runs: Sequence[Scores]) -> dict[str, list[float]]:
    """Column -> the mean of each seed."""
    return {column: [float(run.columns()[column].mean()) for run in runs] for column in COLUMNS}


def seed_differences(ours: Sequence[Scores], theirs: Sequence[Scores]) -> dict[str, Any]:
    """Ours - theirs, {column: {"mean", "ci95", "by_seed"}}; both in the order of the same seeds."""
    difference = paired_difference(mean_scores(ours), mean_scores(theirs), **BOOTSTRAP)
    pairs = [(o.columns(), t.columns()) for o, t in zip(ours, theirs, strict=True)]
    return {
        column: {**difference[column], "by_seed": [float(o[column].mean() - t[column].mean()) for o, t in pairs]}
        for column in COLUMNS
    }


def shared_seed_differences(ours: Mapping[int, Run], theirs: Mapping[int, Run]) -> dict[str, Any]:
    """The same of the right sentences, over the seeds that both have. Raises ValueError where they have none in common."""
    shared = sorted(ours.keys() & theirs.keys())
    if not shared:
        raise ValueError(f"no seed in common: {sorted(ours)} and {sorted(theirs)}")
    return seed_differences([ours[seed].right for seed in shared], [theirs[seed].right for seed in shared])


def is_certain(difference: Mapping[str, Any]) -> bool:
    """Whether the interval over sentences excludes 0 and all of at least two seeds have the sign of the mean."""
    (low, high), seeds = difference["ci95"], difference["by_seed"]
    return low * high > 0 and len(seeds) > 1 and all(value * difference["mean"] > 0 for value in seeds)


def train_minutes(trained: Path) -> float:
    """All steps of a run folder, each at the median time of a step: what a kill, a checkpoint or a validation took is not in it."""
    return round(seconds_per_step(trained) * _logged(trained)[-1]["step"] / 60, 2)


def seconds_per_step(trained: Path) -> float:
    """Median over what lies between two logged steps."""
    pairs = pairwise(_logged(trained))
    return float(np.median([(b["time"] - a["time"]) / (b["step"] - a["step"]) for a, b in pairs]))


def _logged(trained: Path) -> list[dict[str, Any]]:
    """A row for each logged training step; those of validation alone are none."""
    rows = read_metrics(trained / "metrics.jsonl")
    return [row for row in rows if "loss/total" in row or "reward/total" in row]
