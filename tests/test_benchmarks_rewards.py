"""The loops that rewards are measured against give the same rewards, of every term, on answers that are not all alike."""

import json

import pytest
import torch

from benchmarks.reward_batches import draw_written
from benchmarks.rewards import ALL_TERMS, STYLE, largest_differences, measure, score_written
from data.written_answers import read_answers
from rewards.composer import RewardComposer
from rewards.terms import TERMS

PARTS = {
    "ours_parsing", "ours_scoring", "published_parsing", "published_loop", "one_pass_parsing", "one_pass_scoring",
}  # fmt: skip


def test_the_loops_give_our_rewards() -> None:
    """4 groups with 2 answers that are none, of 12 frames each; and 4 letters."""
    result = json.loads(json.dumps(measure(rollouts=32, frames=12, repeats=1)))
    spans, written = result["spans"], result["written"]
    assert set(written["max_abs_diff"]) == set(written["terms"]) == set(TERMS)
    assert set(spans["max_abs_diff"]) == set(spans["terms"]) == {"format", "temporal", "viou", "spatial", "gated"}
    for part in (spans, written):
        assert all(value <= 1e-6 for value in part["max_abs_diff"].values())
        assert set(part["seconds"]) == PARTS
        assert {"ratio", "ratio_one_pass", "ratio_scoring"} <= set(part)
    assert result["ratio"] == written["ratio"]
    assert result["max_abs_diff"] == max(*spans["max_abs_diff"].values(), *written["max_abs_diff"].values())


def test_every_term_differs_between_answers() -> None:
    """So that equal rewards say something: 2 of 32 tubes are none, 2 lack a draft box, 2 have a box too many; half of 4 letters."""
    drawn = draw_written(32, 12)
    read = read_answers(drawn.samples, drawn.frame_idx, drawn.texts, STYLE)
    terms = score_written(RewardComposer(ALL_TERMS), drawn.samples, drawn.frame_idx, read)
    assert terms["format"].tolist() == [float(number not in (0, 16)) for number in range(36)]
    assert terms["consistency"].sum() == 32 - 2 - 2 - 2
    assert terms["choice"].tolist() == [0.0] * 32 + [1.0, 0.0, 1.0, 0.0]
    for name in ("temporal", "viou", "spatial", "gated", "both_spatial", "think"):
        assert len(terms[name].unique()) > 16, name


@pytest.mark.parametrize("value", [0.5 + 2e-6, float("nan")])
def test_sides_that_disagree_are_not_compared(value: float) -> None:
    ours = {"viou": torch.tensor([0.5, 0.5])}
    assert largest_differences(ours, [{"viou": [0.5, 0.5 + 5e-7]}])["viou"] == pytest.approx(5e-7)
    with pytest.raises(ValueError, match=r"expected the same rewards .* got differences \{'viou'"):
        largest_differences(ours, [{"viou": [0.5, 0.5]}, {"viou": [0.5, value]}])
