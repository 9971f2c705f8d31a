"""Which sample comes when: shares, epochs, determinism."""

import dataclasses

import numpy as np
import pytest

from data.mixture import draw_order
from data.types import FrameSpan, GroundingSample, Task


def make_samples(**counts: int) -> list[GroundingSample]:
    """That many samples of each task, in turn."""
    base = GroundingSample(
        sample_id="",
        task="temporal",
        query="the red circle",
        video_path="v.mp4",
        fps=8.0,
        width=64,
        height=64,
        clip=FrameSpan(0, 64),
        span=FrameSpan(0, 1),
    )
    extra: dict[Task, dict[str, object]] = {
        "temporal": {},
        "stvg": {"boxes_xyxy_px": (None,)},
        "rec": {"boxes_xyxy_px": (None,), "clip": FrameSpan(0, 1)},
        "qa": {"options": ("x", "y"), "choice": "A"},
    }
    return [
        dataclasses.replace(base, task=task, sample_id=f"{task}-{i}", **extra[task])  # type: ignore[index]
        for task, count in counts.items()
        for i in range(count)
    ]


def tasks_of(samples: list[GroundingSample], order: np.ndarray) -> np.ndarray:
    return np.array([samples[i].task for i in order])


def test_shares_follow_the_weights() -> None:
    """Weights 3 : 1 give shares 0.75 and 0.25; over 4000 draws the standard deviation is sqrt(.75 * .25 / 4000) =
    0.0068, so 0.03 is more than 4 of them. How many samples a task has plays no part."""
    samples = make_samples(stvg=5, qa=50)
    order = draw_order(samples, {"stvg": 3.0, "qa": 1.0}, total=4000, seed=0)
    assert abs((tasks_of(samples, order) == "stvg").mean() - 0.75) < 0.03


def test_each_sample_comes_once_per_epoch() -> None:
    """Within a task, every stretch of n entries from a multiple of n on is a permutation of its n samples."""
    samples = make_samples(stvg=7, qa=3)
    order = draw_order(samples, {"stvg": 1.0, "qa": 1.0}, total=100, seed=3)
    for task, count in (("stvg", 7), ("qa", 3)):
        of_task = order[tasks_of(samples, order) == task]
        assert len(of_task) >= 3 * count
        expected = sorted(i for i, sample in enumerate(samples) if sample.task == task)
        for start in range(0, len(of_task) - count + 1, count):
            assert sorted(of_task[start : start + count]) == expected


def test_epochs_are_shuffled_anew() -> None:
    order = draw_order(make_samples(stvg=20), {"stvg": 1.0}, total=60, seed=0).reshape(3, 20)
    assert len({tuple(epoch) for epoch in order}) == 3


def test_order_is_a_function_of_the_seed() -> None:
    samples = make_samples(stvg=10, temporal=10)
    weights: dict[Task, float] = {"stvg": 1.0, "temporal": 1.0}
    first = draw_order(samples, weights, total=50, seed=1)
    np.testing.assert_array_equal(first, draw_order(samples, weights, total=50, seed=1))
    assert (first != draw_order(samples, weights, total=50, seed=2)).any()


@pytest.mark.parametrize("weights", [{"stvg": 1.0, "qa": 0.0}, {"stvg": 1.0}, {"stvg": 1.0, "rec": 1.0}])
def test_a_task_without_weight_or_samples_is_left_out(weights: dict[Task, float]) -> None:
    """Zero weight, no weight, or no samples (rec): all positions go to stvg."""
    samples = make_samples(stvg=4, qa=4)
    order = draw_order(samples, weights, total=40, seed=0)
    assert len(order) == 40
    assert set(tasks_of(samples, order)) == {"stvg"}


@pytest.mark.parametrize("weights", [{}, {"stvg": 0.0}, {"rec": 1.0}])
def test_nothing_left_is_an_error(weights: dict[Task, float]) -> None:
    with pytest.raises(ValueError, match="no sample of a task in"):
        draw_order(make_samples(stvg=2), weights, total=4, seed=0)


def test_a_run_of_no_steps_is_empty() -> None:
    assert len(draw_order(make_samples(stvg=2), {"stvg": 1.0}, total=0, seed=0)) == 0
