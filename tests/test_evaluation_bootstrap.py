"""Bootstrap intervals: equal to scipy's, column by column."""

import numpy as np
import pytest
from scipy.stats import bootstrap

from evaluation.bootstrap import mean_intervals, paired_differences, summarize_columns


def test_equal_to_scipy_with_the_same_generator() -> None:
    """500 resamples, more than one batch; continuous and 0/1 columns."""
    values_NC = np.random.default_rng(1).uniform(size=(300, 2))
    values_NC[:, 1] = values_NC[:, 1] > 0.4
    ours = mean_intervals(values_NC, num_resamples=500, seed=3)
    for column in range(2):
        rng = np.random.default_rng(3)
        result = bootstrap((values_NC[:, column],), np.mean, n_resamples=500, method="percentile", batch=200, rng=rng)
        assert ours[column] == pytest.approx(result.confidence_interval, abs=1e-12)


def test_one_sample_and_constants_are_degenerate() -> None:
    assert mean_intervals(np.array([[0.3, 0.7]]), num_resamples=100, seed=0).tolist() == [[0.3, 0.3], [0.7, 0.7]]
    constant = mean_intervals(np.full((7, 1), 0.1), num_resamples=100, seed=0)[0]
    assert constant[0] == constant[1] == pytest.approx(0.1)


def test_summaries_and_differences_have_every_column() -> None:
    ours, theirs = {"a": np.array([1.0, 0.0]), "b": np.ones(2)}, {"a": np.zeros(2), "b": np.zeros(2), "c": np.ones(2)}
    summary = summarize_columns(ours, num_resamples=100, seed=0)
    assert (summary["n"], summary["a"], summary["b_ci95"]) == (2, 0.5, [1.0, 1.0])
    differences = paired_differences(ours, theirs, num_resamples=100, seed=0)
    assert {name: entry["mean"] for name, entry in differences.items()} == {"a": 0.5, "b": 1.0}
