"""Presets, gates, clips and terms of one's own; and what cheating earns under every preset."""

import math
from typing import Any

import pytest
import torch
from test_rewards import SAMPLE, SHIFTED_BOX, TRUE_BOX, reward, tubes
from torch import Tensor

from configs.base import ConfigError, parse_config
from configs.rewards import PRESETS, RewardConfig, RewardWeights
from data.answers import Answer, ParseFailure, SpanSec, parse_answer
from data.tubes import TubeBatch
from rewards.composer import RewardComposer

FAR_BOX = torch.tensor([0.8, 0.7, 1.0, 1.0])
FULL_FRAME = torch.tensor([0.0, 0.0, 1.0, 1.0])


def half(batch: TubeBatch) -> Tensor:
    """A term of one's own: 1/2, whatever the answer."""
    return torch.full(batch.parsed_B.shape, 0.5)


def wrong_shape(batch: TubeBatch) -> Tensor:
    return torch.ones(1, 1)


@pytest.mark.parametrize(
    ("answer", "box", "spatial", "gated", "why"),
    [
        # GIoU of the shifted box is its IoU 1/3 (the hull is the union); each x is .1 off: 1/3 - .2.
        (SpanSec(1.0, 3.0), SHIFTED_BOX, 1 / 3 - 0.2, 1 + 1 / 3, "right time, IoU 1/3"),
        # Half of the frames: GIoU 1, tIoU 1/2 + 1/4 x 1.
        (SpanSec(1.0, 2.0), TRUE_BOX, 1.0, 0.75, "half of the interval, true boxes"),
        (SpanSec(3.0, 4.0), TRUE_BOX, 0.0, 0.0, "no frame in common"),
        # Disjoint: areas .08 and .06, hull .8 x .8 = .64, so GIoU = -(.64 - .14) / .64; L1 .6 + .5 + .6 + .4.
        (SpanSec(1.0, 3.0), FAR_BOX, -0.5 / 0.64 - 2.1, 1.0, "right time, a box elsewhere"),
        (ParseFailure("grammar", "x"), TRUE_BOX, 0.0, 0.0, "not an answer"),
    ],
)
def test_spatial_and_gated_by_hand(
    answer: Answer | ParseFailure, box: Tensor, spatial: float, gated: float, why: str
) -> None:
    got = reward(answer, box).terms_BK[0, 3:]
    torch.testing.assert_close(got, torch.tensor([spatial, gated]), msg=lambda text: f"{why}: {text}")


def test_a_preset_gives_the_weights_that_are_not_given() -> None:
    assert RewardConfig().weights.model_dump() == dict.fromkeys(RewardWeights.model_fields, 0.0) | PRESETS["bridge"]
    changed = RewardConfig.model_validate({"preset": "sarl", "weights": {"gated": 1.0}})
    assert (changed.weights.format, changed.weights.gated, changed.weights.temporal) == (0.6, 1.0, 0.0)


def test_a_gate_multiplies() -> None:
    """tIoU 1/2, vIoU 1/2: 0.1 + 0.5 + 0.5 x 0.5."""
    assert float(reward(SpanSec(1.0, 2.0), gates={"viou": "temporal"}).total_B) == pytest.approx(0.85)


def test_a_clip_cuts_off() -> None:
    """The box elsewhere has spatial -2.88; with the clip it is 0 and no longer worse than no overlap."""
    alone = {"format": 0.0, "temporal": 0.0, "viou": 0.0, "spatial": 1.0}
    assert float(reward(SpanSec(1.0, 3.0), FAR_BOX, weights=alone).total_B) < -2
    assert float(reward(SpanSec(1.0, 3.0), FAR_BOX, weights=alone, clips={"spatial": (0, 1)}).total_B) == 0


def test_what_each_term_pays() -> None:
    """tIoU 1/2, vIoU 1/2, spatial of the true box 1, cut off at .6: 0.1 x 1, 1 x 1/2, 2 x 1/2 x 1/2, 3 x .6; gated has no weight."""
    weights = {"format": 0.1, "temporal": 1.0, "viou": 2.0, "spatial": 3.0}
    shaping: dict[str, Any] = {
        "weights": weights,
        "gates": {"viou": "temporal"},
        "clips": {"spatial": (0.0, 0.6)},
        "parse_failure": -1,
    }
    got = reward(SpanSec(1.0, 2.0), **shaping)
    torch.testing.assert_close(got.paid_BK, torch.tensor([[0.1, 0.5, 0.5, 1.8, 0.0]]))
    torch.testing.assert_close(got.terms_BK, torch.tensor([[1.0, 0.5, 0.5, 1.0, 0.75]]))
    assert float(got.total_B) == pytest.approx(2.9)
    shaping["clips"] = {"viou": (0.5, 1.0)}
    assert not reward(ParseFailure("grammar", ""), **shaping).paid_BK.any()


def test_a_term_of_ones_own() -> None:
    """2 x 1/2 on top of 2.1 for an answer; nothing for a failure, whatever the term and the clips say."""
    own = {f"{__name__}:half": 2.0}
    got = reward(SpanSec(1.0, 3.0), own=own)
    assert got.names[-1] == f"{__name__}:half" and float(got.terms_BK[0, -1]) == 0.5
    assert float(got.total_B) == pytest.approx(3.1)
    failed = reward(ParseFailure("grammar", ""), own=own, clips={"viou": (0.5, 1.0)}, parse_failure=-0.25)
    assert float(failed.total_B) == -0.25 and not failed.terms_BK.any()


def test_a_term_of_the_wrong_shape_is_named() -> None:
    composer = RewardComposer(RewardConfig(own={f"{__name__}:wrong_shape": 1.0}))
    with pytest.raises(ValueError, match=r"wrong_shape: expected \[1\] values, got \[1, 1\]"):
        composer(tubes(SpanSec(1.0, 3.0)))


@pytest.mark.parametrize(("name", "expected"), [("nowhere:f", "nowhere"), ("math:g", "'g'"), ("math:pi", "a function")])
def test_a_term_that_cannot_be_used_is_a_config_error(name: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        RewardComposer(RewardConfig(own={name: 1.0}))


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ({"weights": {"format": 0.0, "temporal": 0.0, "viou": 0.0}}, "at least one positive weight"),
        ({"weights": {"viou": -1.0}}, "weights.viou"),
        ({"preset": "brigde"}, "'bridge', 'sarl' or 'stvg_o1'"),
        ({"gates": {"viou": "gated", "gated": "format"}}, "viou is multiplied by a term that has a gate"),
        ({"gates": {"viuo": "format"}}, "gates"),
        ({"clips": {"viou": [1.0, 0.0]}}, "clips.viou: expected lowest < highest"),
        ({"own": {"no function": 1.0}}, "own"),
        ({"parse_failure": 0.5}, "parse_failure"),
    ],
)
def test_configs_that_cannot_work(tree: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        parse_config(RewardConfig, tree, origin="test")


# What cheating earns; where boxes are in the text, see test_rewards_stvg_o1.py. The honest answer is off by 0.2 s at each end, its box by a tenth of the object's width.

HONEST = "<time> 1.2 - 2.8 </time>"
HONEST_BOX = torch.tensor([0.22, 0.2, 0.42, 0.6])
CHEATS = {
    "whole-video span": ("<time> 0.0 - 4.0 </time>", HONEST_BOX),
    "full-frame box": (HONEST, FULL_FRAME),
    "no overlap in time": ("<time> 3.0 - 4.0 </time>", HONEST_BOX),
    "one confident frame": ("<time> 2.0 - 2.1 </time>", TRUE_BOX),
    "two answers": (f"{HONEST} {HONEST}", HONEST_BOX),
    "truncated answer": ("<time> 1.2 - 2", HONEST_BOX),
    "reversed span": ("<time> 2.8 - 1.2 </time>", HONEST_BOX),
    "a number that is none": ("<time> nan - inf </time>", HONEST_BOX),
    "a huge number": ("<time> 1.2 - 999999.0 </time>", HONEST_BOX),
    "unicode digits": ("<time> \u0661.\u0662 - \u0662.\u0668 </time>", HONEST_BOX),
    "text around the answer": (f"The best answer: {HONEST}", HONEST_BOX),
    "nothing": ("", HONEST_BOX),
}


def earned(text: str, box: Tensor, **config: Any) -> float:
    return float(reward(parse_answer(SAMPLE, text), box, **config).total_B)


@pytest.mark.parametrize("preset", [name for name in PRESETS if not RewardConfig(preset=name).written_terms])  # type: ignore[arg-type]
@pytest.mark.parametrize("cheat", list(CHEATS))
def test_honesty_pays_under_every_preset(preset: str, cheat: str) -> None:
    assert math.isfinite(earned(*CHEATS[cheat], preset=preset))
    assert earned(HONEST, HONEST_BOX, preset=preset) > earned(*CHEATS[cheat], preset=preset) + 0.1


def test_known_weakness_of_spatial_and_its_switch() -> None:
    """Alone, `spatial` pays one true frame more than an honest tube, and no overlap more than a bad box."""
    alone = {"format": 0.0, "temporal": 0.0, "viou": 0.0, "spatial": 1.0}
    assert earned(*CHEATS["one confident frame"], weights=alone) > earned(HONEST, HONEST_BOX, weights=alone)
    assert earned(*CHEATS["no overlap in time"], weights=alone) > earned(HONEST, FAR_BOX, weights=alone)
    switched = {"weights": alone, "clips": {"spatial": (0.0, 1.0)}, "gates": {"spatial": "temporal"}}
    assert earned(*CHEATS["one confident frame"], **switched) < earned(HONEST, HONEST_BOX, **switched)
    assert earned(*CHEATS["no overlap in time"], **switched) <= earned(HONEST, FAR_BOX, **switched)
