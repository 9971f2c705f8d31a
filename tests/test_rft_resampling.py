"""Which prompts a step draws again, by hand, and that it is a function of (seed, step)."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from configs.rft import RFTConfig
from data.mixture import Group
from rft.resampling import further_rows, resample

GROUPS = [Group("stvg", "stvg", 1.0, np.arange(100))]


class Drawing:
    """Numbers stand for rollouts: even ones have signal."""

    def __init__(self) -> None:
        self.rounds: list[list[int]] = []

    def roll(self, samples: Any) -> Any:
        self.rounds.append(list(samples))
        return samples

    @staticmethod
    def has_signal(rolled: Sequence[Any]) -> list[bool]:
        return [number % 2 == 0 for number in rolled]


def drawn_from(first: Any, further: Iterator[Any], max_resamples: int) -> tuple[Any, int, list[list[int]]]:
    drawing = Drawing()
    rolled, num_kept, drawn = resample(first, further, drawing.roll, drawing.has_signal, max_resamples=max_resamples)
    assert num_kept == sum(drawing.has_signal(rolled))
    return rolled, drawn, drawing.rounds


@pytest.mark.parametrize(
    ("max_resamples", "expected", "drawn", "rounds"),
    [
        # Two of four have signal; 5 and 6 are drawn, then 7, then 8.
        (0, [2, 4, 1, 3], 4, []),
        (1, [2, 4, 6, 1], 6, [[5, 6]]),
        (2, [2, 4, 6, 1], 7, [[5, 6], [7]]),
        (3, [2, 4, 6, 8], 8, [[5, 6], [7], [8]]),
        (9, [2, 4, 6, 8], 8, [[5, 6], [7], [8]]),
    ],
)
def test_as_many_as_are_missing_are_drawn(max_resamples: int, expected: list, drawn: int, rounds: list) -> None:
    assert drawn_from([1, 2, 3, 4], iter(range(5, 50)), max_resamples) == (expected, drawn, rounds)


def test_nothing_is_drawn_where_all_have_signal() -> None:
    assert drawn_from([2, 4], iter([6]), 3) == ([2, 4], 2, [])


def test_a_step_without_signal_keeps_its_size() -> None:
    """The samples are used up before the draws are."""
    assert drawn_from([1, 3], iter([5, 7, 9]), 5) == ([1, 3], 5, [[5, 7], [9]])


def test_further_samples_follow_from_seed_and_step() -> None:
    taken = np.array([3, 7, 11])
    first = further_rows(GROUPS, taken, count=20, seed=1, step=4)
    assert len(set(first)) == 20 and not set(first) & set(taken)
    assert first.tolist() == further_rows(GROUPS, taken, count=20, seed=1, step=4).tolist()
    for seed, step in ((1, 5), (2, 4)):
        assert first.tolist() != further_rows(GROUPS, taken, count=20, seed=seed, step=step).tolist()


def test_no_more_samples_than_there_are() -> None:
    rows = further_rows([Group("stvg", "stvg", 1.0, np.arange(5))], np.array([0, 1]), count=20, seed=0, step=0)
    assert sorted(rows) == [2, 3, 4]


BASE: dict[str, Any] = {
    "run": {"out": "x"},
    "checkpoint": "x",
    "data": {"source": {"type": "synthetic", "root": "x"}, "tasks": {"stvg": 1.0}},
}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ["temporal", "viou"]),
        ({"rewards": {"preset": "sarl"}}, ["gated"]),
        ({"rewards": {"weights": {"viou": 0.0}, "own": {"mine:term": 0.5}}}, ["temporal", "mine:term"]),
        ({"rewards": {"tasks": {"qa": {"format": 0.1, "choice": 1.0}}}}, ["temporal", "viou", "choice"]),
        ({"objective": {"outcome_terms": ["temporal"]}}, ["temporal"]),
    ],
)
def test_signal_terms_of_a_config(changes: dict[str, Any], expected: list[str]) -> None:
    """Those with a weight but the format; or the ones that are asked for."""
    assert RFTConfig.model_validate(BASE | changes).signal_terms == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"objective": {"outcome_terms": ["gated"]}}, "expected terms with a weight"),
        (
            {
                "objective": {"zero_variance": "mask"},
                "rewards": {"weights": {"format": 1.0, "temporal": 0.0, "viou": 0.0}},
            },
            r"outcome_terms: .* got \[\]",
        ),
        ({"objective": {"zero_variance": "drop", "decoder_update": "pathwise"}}, "use zero_variance=mask"),
    ],
)
def test_configs_without_a_signal_are_refused(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        RFTConfig.model_validate(BASE | changes)
