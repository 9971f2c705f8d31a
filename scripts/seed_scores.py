"""Scores of trainings with several seeds as one: each sentence's scores are averaged over seeds, intervals are over sentences."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from configs.run import read_metrics
from evaluation.metrics import Scores, paired_difference
from scripts.demo_summary import COLUMNS

BOOTSTRAP: dict[str, int] = {"num_resamples": 2000, "seed": 0}


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


def train_minutes(trained: Path) -> float:
    """From the first logged step of a run folder to the last."""
    times = [row["time"] for row in read_metrics(trained / "metrics.jsonl")]
    return round((times[-1] - times[0]) / 60, 2)
