"""Means with intervals of scored samples, by task and query type, and paired differences of two prediction files.

Both are 95 % percentile bootstrap over samples. A column may be NaN where it is not defined for a sample (QVHighlights'
length ranges); its mean is over the others, and their number is `<name>_n`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from evaluation.bootstrap import paired_differences, summarize_columns
from evaluation.task_scores import Columns, TaskScores


def summarize_task(scores: TaskScores, *, num_resamples: int, seed: int) -> dict[str, Any]:
    """{"all": means and intervals, a query type: ..., "failures": {id: reason}}."""
    groups = {
        name: _summarize(_masked(scores.columns, mask), num_resamples=num_resamples, seed=seed)
        for name, mask in scores.groups().items()
    }
    return {**groups, "failures": scores.failures}


def compare_tasks(ours: TaskScores, theirs: TaskScores, *, num_resamples: int, seed: int) -> dict[str, Any]:
    """Mean of ours - theirs for each group and column, with its interval. Both are of the same samples."""
    if ours.ids != theirs.ids:
        raise ValueError("the two files were not scored on the same samples")
    compared: dict[str, Any] = {}
    for name, mask in ours.groups().items():
        columns = _masked(ours.columns, mask), _masked(theirs.columns, mask)
        full = [_defined(part) for part in columns]
        compared[name] = paired_differences(full[0], full[1], num_resamples=num_resamples, seed=seed)
    return compared


def _masked(columns: Columns, mask: np.ndarray) -> Columns:
    return {name: values[mask] for name, values in columns.items()}


def _defined(columns: Mapping[str, np.ndarray]) -> Columns:
    return {name: values for name, values in columns.items() if not np.isnan(values).any()}


def _summarize(columns: Columns, *, num_resamples: int, seed: int) -> dict[str, Any]:
    full = _defined(columns)
    summary: dict[str, Any] = summarize_columns(full, num_resamples=num_resamples, seed=seed)
    for name in columns.keys() - full.keys():
        values = columns[name][~np.isnan(columns[name])]
        summary[f"{name}_n"] = len(values)
        if len(values):
            part = summarize_columns({name: values}, num_resamples=num_resamples, seed=seed)
            summary |= {key: part[key] for key in part if key != "n"}
    return summary
