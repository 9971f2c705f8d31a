"""STVG-o1's five rewards against numbers derived by hand, and its known weakness with its switch."""

import math
from dataclasses import replace

import pytest
import torch
from test_data_tube_text import PAPER
from written import SAMPLE, scored, steady, tube_text, written_tubes_of

from configs.base import ConfigError, parse_config
from configs.rewards import PRESETS, RewardConfig, check_grounder
from data.types import FrameSpan
from rewards.composer import RewardComposer

# Written boxes and their GIoU - L1 to the true box (.2, .2, .6, .6), of area .16.
TRUE = "200, 200, 600, 600"  # 1
SHIFTED = "400, 200, 800, 600"  # intersection .08, union = hull .24: 1/3; L1 .2 + .2: -1/15
HALF = "400, 200, 600, 600"  # 1/2; L1 .2: .3
FAR = "800, 800, 1000, 1000"  # union .16 + .04, hull .8 x .8: -.44 / .64; L1 .6 + .6 + .4 + .4: -2.6875
FULL = "0, 0, 1000, 1000"  # .16 of 1; L1 .2 + .2 + .4 + .4: -1.04
S, H, F, W = -1 / 15, 0.3, -2.6875, -1.04


def both(first: int, last: int, box: str) -> str:
    return tube_text(f"{first} - {last}", steady(first, last, box), steady(first, last, box))


def exact(think: dict[int, str], final: dict[int, str]) -> str:
    """The true interval."""
    return tube_text("4 - 7", think, final)


TRUE_ROW = steady(4, 7, TRUE)

# text, (R_f, R_c, R_t, R_s, R_k), why. The total is R_f + R_c + R_t + R_s + R_k / 2.
TABLE = [
    (both(4, 7, TRUE), (1, 1, 1, 2, 0), "the truth"),
    (exact(steady(4, 7, SHIFTED), TRUE_ROW), (1, 1, 1, S + 1, 1 - S), "a shifted draft, made right"),
    (exact(TRUE_ROW, steady(4, 7, SHIFTED)), (1, 1, 1, 1 + S, 0), "a right draft, made wrong"),
    (exact(steady(4, 7, HALF), TRUE_ROW), (1, 1, 1, H + 1, 1 - H), "half of the box as a draft"),
    (both(4, 7, HALF), (1, 1, 1, 2 * H, 0), "half of the box in both"),
    (both(4, 7, SHIFTED), (1, 1, 1, 2 * S, 0), "shifted by half of its width"),
    (both(4, 7, FULL), (1, 1, 1, 2 * W, 0), "full frame"),
    (both(4, 7, FAR), (1, 1, 1, 2 * F, 0), "a box elsewhere"),
    (exact(steady(4, 7, FAR), TRUE_ROW), (1, 1, 1, F + 1, 1 - F), "sandbagged draft"),
    (exact({4: TRUE, 5: TRUE, 6: HALF, 7: HALF}, TRUE_ROW), (1, 1, 1, 0.65 + 1, 0.35), "(1 + 1 + .3 + .3) / 4"),
    (both(4, 5, TRUE), (1, 1, 0.5, 2, 0), "half of the interval"),
    (both(0, 9, TRUE), (1, 1, 0.4, 2, 0), "whole video: 4 of 10"),
    (both(6, 9, TRUE), (1, 1, 1 / 3, 2, 0), "2 shared of 6"),
    (both(5, 5, TRUE), (1, 1, 0.25, 2, 0), "one confident frame"),
    (both(0, 3, TRUE), (1, 1, 0, 0, 0), "touching intervals do not overlap"),
    (both(4, 12, TRUE), (1, 1, 4 / 6, 2, 0), "past the clip's end, where the interval is cut"),
    (both(10, 12, TRUE), (1, 1, 0, 0, 0), "outside of the clip"),
    (exact(TRUE_ROW, steady(4, 6, TRUE)), (1, 0, 1, 1 + 0.75, 0), "a final box is missing"),
    (exact(steady(5, 7, TRUE), TRUE_ROW), (1, 0, 1, 0.75 + 1, 0.25), "a draft box is missing"),
    (exact(TRUE_ROW, steady(4, 8, TRUE)), (1, 0, 1, 2, 0), "a box outside of the interval"),
    (exact(steady(0, 3, TRUE), steady(0, 3, TRUE)), (1, 0, 1, 0, 0), "boxes at other indices"),
    (both(4, 7, TRUE)[:-1], (0, 0, 0, 0, 0), "truncated"),
    (both(4, 7, TRUE) + both(4, 7, TRUE), (0, 0, 0, 0, 0), "two answers"),
    (both(4, 7, TRUE).replace("4 - 7", "7 - 4"), (0, 0, 0, 0, 0), "reversed"),
    (both(4, 7, TRUE).replace("7. [", "6. ["), (0, 0, 0, 0, 0), "two boxes for one frame"),
    ("", (0, 0, 0, 0, 0), "nothing"),
]


@pytest.mark.parametrize(("text", "expected", "why"), TABLE, ids=[row[2] for row in TABLE])
def test_rewards_by_hand(text: str, expected: tuple[float, ...], why: str) -> None:
    got = scored([text], preset="stvg_o1")
    torch.testing.assert_close(_five(got, 0), torch.tensor(expected).float(), atol=1e-5, rtol=0)
    *four, think = expected
    assert float(got.total_B) == pytest.approx(sum(four) + 0.5 * think, abs=1e-5)


def test_a_batch_is_scored_as_its_answers_alone() -> None:
    together = scored([text for text, _, _ in TABLE], preset="stvg_o1")
    expected = torch.tensor([row for _, row, _ in TABLE]).float()
    torch.testing.assert_close(
        torch.stack([_five(together, b) for b in range(len(TABLE))]), expected, atol=1e-5, rtol=0
    )


def _five(got: object, b: int) -> torch.Tensor:
    """R_f, R_c, R_t, R_s, R_k."""
    names = ("format", "consistency", "temporal", "both_spatial", "think")
    return torch.stack([got.terms_BK[b, got.names.index(name)] for name in names])  # type: ignore[attr-defined]


def test_the_papers_example() -> None:
    """Figure 2, with its final boxes as the truth: R_spa of those is 1. Of the drafts, per frame, in thousandths:

    5: intersection 117 x 177 = 20709, areas 22568 + 24079, union 25938, hull 128 x 204 = 26112; L1 7 + 5 + 4 + 22 = 38
    6: intersection 104 x 182 = 18928, areas 24192 + 23028, union 28292, hull 136 x 212 = 28832; L1 22 + 10 + 10 + 20 = 62
    7: intersection  95 x 193 = 18335, areas 25375 + 21945, union 28985, hull 135 x 219 = 29565; L1 30 + 10 + 10 + 16 = 66
    """
    final = ((278.0, 35.0, 399.0, 234.0), (289.0, 34.0, 403.0, 236.0), (300.0, 28.0, 405.0, 237.0))
    sample = replace(SAMPLE, width=1000, height=1000, span=FrameSpan(5, 8), boxes_xyxy_px=final)
    draft = (
        (20709 / 25938 - (26112 - 25938) / 26112 - 0.038)
        + (18928 / 28292 - (28832 - 28292) / 28832 - 0.062)
        + (18335 / 28985 - (29565 - 28985) / 29565 - 0.066)
    ) / 3
    got = scored([PAPER], sample, preset="stvg_o1")
    torch.testing.assert_close(_five(got, 0), torch.tensor([1, 1, 1, draft + 1, 1 - draft]), atol=1e-5, rtol=0)
    assert float(got.total_B) == pytest.approx(3 + draft + 1 + 0.5 * (1 - draft), abs=1e-5)


def test_a_frame_without_an_annotated_box_does_not_count() -> None:
    """Of 4 - 7, frame 5 has none: (1 + .3 + .3) / 3 for the draft, 1 for the final boxes."""
    box = (20.0, 20.0, 60.0, 60.0)
    sample = replace(SAMPLE, boxes_xyxy_px=(box, None, box, box))
    got = scored([exact({4: TRUE, 5: FAR, 6: HALF, 7: HALF}, TRUE_ROW)], sample, preset="stvg_o1")
    torch.testing.assert_close(_five(got, 0)[3:], torch.tensor([1.6 / 3 + 1, 1 - 1.6 / 3]), atol=1e-5, rtol=0)


def test_known_weakness_and_its_switch() -> None:
    """No overlap (2.0) is worth more than the true interval with a box elsewhere (3 - 5.375); with a floor of 0 it is not."""
    bad, away = both(4, 7, FAR), both(0, 3, TRUE)
    assert scored([bad, away], preset="stvg_o1").total_B.tolist() == pytest.approx([-2.375, 2.0])
    assert scored([bad, away], preset="stvg_o1", spatial_floor=0.0).total_B.tolist() == pytest.approx([3.0, 2.0])


def test_sandbagged_drafts_do_not_pay_with_the_floor_but_would_with_a_clip() -> None:
    """Both drafts with true final boxes: half the box has .3 + 1 + .35; a box elsewhere has 0 + 1 + .5, and with R_s cut
    off at 0 instead 0 + 3.6875 / 2, which is more."""
    honest, sandbagged = exact(steady(4, 7, HALF), TRUE_ROW), exact(steady(4, 7, FAR), TRUE_ROW)
    floored = scored([honest, sandbagged], preset="stvg_o1", spatial_floor=0.0).total_B.tolist()
    assert floored == pytest.approx([3 + 1.3 + 0.35, 3 + 1.0 + 0.5])
    clipped = scored([honest, sandbagged], preset="stvg_o1", clips={"both_spatial": (0.0, 2.0)}).total_B.tolist()
    assert clipped == pytest.approx([3 + 1.3 + 0.35, 3 + 0 + 3.6875 / 2])


def test_the_other_presets_score_written_tubes_too() -> None:
    """Right time, half of the box: tIoU 1, IoU 1/2."""
    got = scored([both(4, 7, HALF)], preset="bridge")
    assert got.names == ("format", "temporal", "viou", "spatial", "gated")
    torch.testing.assert_close(got.terms_BK, torch.tensor([[1.0, 1.0, 0.5, 0.3, 1.5]]), atol=1e-5, rtol=0)


def test_written_boxes_are_the_texts_alone() -> None:
    """Answers of another grounder have none, and the preset says so."""
    tubes = replace(written_tubes_of([both(4, 7, TRUE)]), written=None)
    with pytest.raises(ValueError, match="grounder text"):
        RewardComposer(RewardConfig(preset="stvg_o1"))(tubes)


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ({"preset": "stvg_o1"}, r"rewards.weights: consistency, both_spatial, think .*grounder bridge"),
        ({"weights": {"think": 0.1}}, r"rewards.weights: think .*grounder bridge"),
    ],
)
def test_a_preset_that_a_grounder_cannot_satisfy_is_a_config_error(tree: dict, expected: str) -> None:
    bridge = frozenset({"format", "temporal", "viou", "spatial", "gated"})
    config = parse_config(RewardConfig, tree, origin="test")
    with pytest.raises(ConfigError, match=expected):
        check_grounder(config, "bridge", bridge)
    check_grounder(config, "text", bridge | {"consistency", "both_spatial", "think"})
    check_grounder(RewardConfig(), "bridge", bridge)


def test_a_gate_needs_a_weight() -> None:
    with pytest.raises(ConfigError, match="consistency is computed where it has a weight alone"):
        parse_config(RewardConfig, {"gates": {"viou": "consistency"}}, origin="test")


# What cheating earns. The honest answer ends a second early, its box is off by a twentieth of the object's width.

NEAR = "220, 200, 620, 600"
HONEST = both(4, 6, NEAR)
CHEATS = {
    "whole-video span": both(0, 9, NEAR),
    "full-frame box": both(4, 6, FULL),
    "no overlap in time": both(0, 3, NEAR),
    "one confident frame": both(5, 5, TRUE),
    "boxes at other indices": tube_text("4 - 6", steady(0, 2, NEAR), steady(0, 2, NEAR)),
    "two answers": HONEST + "\n" + HONEST,
    "two boxes for one frame": HONEST.replace("6. [", "5. ["),
    "truncated answer": HONEST[:-20],
    "reversed span": HONEST.replace("4 - 6", "6 - 4"),
    "a number that is none": HONEST.replace("4 - 6", "nan - inf"),
    "a huge number": HONEST.replace("4 - 6", "4 - 9999"),
    "unicode digits": HONEST.replace("4 - 6", "\u0664 - \u0666"),
    "text around the answer": "The best answer: " + HONEST,
    "nothing": "",
}
NEUTRAL = {
    "sandbagged drafts": tube_text("4 - 6", steady(4, 6, FAR), steady(4, 6, NEAR)),
    "a single final box": tube_text("4 - 6", steady(4, 6, NEAR), steady(4, 4, NEAR)),
}
"""What no preset rewards, and what those do not see that look at the final tube alone, interpolated."""


def earned(text: str, preset: str) -> float:
    return float(scored([text], preset=preset).total_B)


@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize("cheat", list(CHEATS))
def test_honesty_pays_under_every_preset(preset: str, cheat: str) -> None:
    assert math.isfinite(earned(CHEATS[cheat], preset))
    assert earned(HONEST, preset) > earned(CHEATS[cheat], preset) + 0.1


@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize("cheat", list(NEUTRAL))
def test_what_only_written_terms_see(preset: str, cheat: str) -> None:
    """Sandbagging costs .865 + 2.6875 and earns half of it; a missing box costs R_c."""
    gain = earned(NEUTRAL[cheat], preset) - earned(HONEST, preset)
    assert gain < -0.1 if preset == "stvg_o1" else gain == pytest.approx(0.0, abs=1e-6)
