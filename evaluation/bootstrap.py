"""Percentile bootstrap intervals of means, and of paired differences: all columns share one set of resamples.

Equal to `scipy.stats.bootstrap(..., method="percentile")` with the same generator, which resamples every column anew.

Shapes: N samples, C columns, R resamples.
"""

from collections.abc import Mapping

import numpy as np

BATCH = 200  # resamples at a time


def mean_intervals(values_NC: np.ndarray, *, num_resamples: int, seed: int) -> np.ndarray:
    """95 % interval of each column's mean; degenerate for fewer than two samples or a constant column. -> [C, 2]."""
    means_C = values_NC.mean(axis=0)
    if len(values_NC) < 2:
        return np.stack([means_C, means_C], axis=1)
    means_RC = _resampled_means(values_NC, num_resamples, np.random.default_rng(seed))
    intervals_C2 = np.percentile(means_RC, [2.5, 97.5], axis=0).T
    is_constant_C = np.ptp(values_NC, axis=0) == 0
    return np.where(is_constant_C[:, None], means_C[:, None], intervals_C2)


def _resampled_means(values_NC: np.ndarray, num_resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Each resample as counts of the samples, so that a mean is a product. -> [R, C]."""
    num_samples, parts = len(values_NC), []
    for start in range(0, num_resamples, BATCH):
        size = min(BATCH, num_resamples - start)
        drawn_RN = rng.integers(0, num_samples, (size, num_samples))
        drawn_RN += np.arange(size)[:, None] * num_samples
        counts_RN = np.bincount(drawn_RN.ravel(), minlength=size * num_samples).reshape(size, num_samples)
        parts.append(counts_RN @ values_NC / num_samples)
    return np.concatenate(parts)


def interval(values: np.ndarray, *, num_resamples: int, seed: int) -> list[float]:
    """95 % interval of the mean of one column."""
    return mean_intervals(np.asarray(values, dtype=float)[:, None], num_resamples=num_resamples, seed=seed)[0].tolist()


def summarize_columns(
    columns: Mapping[str, np.ndarray], *, num_resamples: int, seed: int
) -> dict[str, float | list[float]]:
    """The number of samples as `n`; each column's mean under its name and its interval as `<name>_ci95`."""
    values_NC = np.stack([np.asarray(values, dtype=float) for values in columns.values()], axis=1)
    intervals_C2 = mean_intervals(values_NC, num_resamples=num_resamples, seed=seed)
    summary: dict[str, float | list[float]] = {"n": len(values_NC)}
    for name, mean, bounds in zip(columns, values_NC.mean(axis=0), intervals_C2, strict=True):
        summary[name] = float(mean)
        summary[f"{name}_ci95"] = bounds.tolist()
    return summary


def paired_differences(
    ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray], *, num_resamples: int, seed: int
) -> dict[str, dict[str, object]]:
    """Mean of ours - theirs on the same samples, as {column: {"mean": ..., "ci95": [low, high]}}."""
    columns = {name: np.asarray(values, dtype=float) - theirs[name] for name, values in ours.items() if name in theirs}
    summary = summarize_columns(columns, num_resamples=num_resamples, seed=seed)
    return {name: {"mean": summary[name], "ci95": summary[f"{name}_ci95"]} for name in columns}
