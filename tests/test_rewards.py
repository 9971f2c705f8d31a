"""Reward terms and the composer: hand-derived values, and what does not pay."""

from dataclasses import replace

import pytest
import torch

from configs.base import ConfigError, parse_config
from configs.rewards import RewardConfig
from data.answers import Answer, ParseFailure, SpanSec, format_answer, parse_answer
from data.tubes import TubeBatch, tube_batch
from data.types import FrameSpan, GroundingSample
from rewards.composer import RewardBreakdown, RewardComposer

# 40 frames at 10 fps, the truth is [10, 30); a 20 x 20 box in a 100 x 50 image.
SAMPLE = GroundingSample(
    sample_id="a",
    task="stvg",
    query="the red circle",
    video_path="a.mp4",
    fps=10.0,
    width=100,
    height=50,
    clip=FrameSpan(0, 40),
    span=FrameSpan(10, 30),
    boxes_xyxy_px=((20.0, 10.0, 40.0, 30.0),) * 20,
)
TRUE_BOX = torch.tensor([0.2, 0.2, 0.4, 0.6])
# Shifted right by half its width: intersection 1/2, union 3/2 of the box -> IoU 1/3.
SHIFTED_BOX = torch.tensor([0.3, 0.2, 0.5, 0.6])


def tubes(answer: Answer | ParseFailure, box: torch.Tensor = TRUE_BOX) -> TubeBatch:
    """One answer with the same box at every frame."""
    frames = torch.arange(40)[None]
    inside = torch.zeros(1, 40, dtype=torch.bool)
    if isinstance(answer, SpanSec):
        inside[0] = (frames[0] >= answer.start_sec * 10) & (frames[0] < answer.end_sec * 10)
    return tube_batch([SAMPLE], [answer], box.expand(1, 40, 4), frames, inside)


def reward(answer: Answer | ParseFailure, box: torch.Tensor = TRUE_BOX, **config: object) -> RewardBreakdown:
    return RewardComposer(RewardConfig(**config))(tubes(answer, box))  # type: ignore[arg-type]


def test_the_true_answer_at_30_frames_a_second_needs_two_decimals() -> None:
    """0.1 s is three frames of 29.97 fps: with one decimal the true answer is up to 1.5 frames off at each end."""
    fast = replace(SAMPLE, fps=29.97)
    frames = torch.arange(40)[None]
    for decimals, is_exact in ((1, False), (2, True)):
        answer = parse_answer(fast, format_answer(fast, decimals=decimals))
        got = tube_batch([fast], [answer], TRUE_BOX.expand(1, 40, 4), frames, torch.ones(1, 40, dtype=torch.bool))
        assert (float(got.tiou()) == 1.0) == is_exact


def test_the_true_answer_earns_the_maximum() -> None:
    """Text as SFT writes it, true boxes: every term is 1, the gated sum 2."""
    answer = parse_answer(SAMPLE, format_answer(SAMPLE, decimals=1))
    got = reward(answer)
    assert got.names == ("format", "temporal", "viou", "spatial", "gated")
    torch.testing.assert_close(got.terms_BK, torch.tensor([[1.0, 1.0, 1.0, 1.0, 2.0]]))
    assert float(got.total_B) == pytest.approx(0.1 + 1 + 1)
    assert float(reward(answer, preset="sarl").total_B) == pytest.approx(0.6 + 2 * 2)


@pytest.mark.parametrize(
    ("answer", "box", "expected", "why"),
    [
        (SpanSec(1.0, 3.0), SHIFTED_BOX, (1.0, 1.0, 1 / 3), "right time, box IoU 1/3"),
        (SpanSec(1.0, 2.0), TRUE_BOX, (1.0, 0.5, 0.5), "half of the 20 frames, none too many"),
        (SpanSec(0.0, 4.0), TRUE_BOX, (1.0, 0.5, 0.5), "whole video: 20 of 40"),
        (SpanSec(0.0, 2.0), SHIFTED_BOX, (1.0, 1 / 3, 1 / 9), "10 shared of 30; each worth 1/3"),
        (SpanSec(3.0, 4.0), TRUE_BOX, (1.0, 0.0, 0.0), "touching spans do not overlap"),
        (SpanSec(1.5, 1.6), TRUE_BOX, (1.0, 0.05, 0.05), "one confident frame: 1 of 20"),
        (SpanSec(9.0, 12.0), TRUE_BOX, (1.0, 0.0, 0.0), "outside of the clip: readable, but empty"),
        (ParseFailure("grammar", "x"), TRUE_BOX, (0.0, 0.0, 0.0), "not an answer"),
        (ParseFailure("reversed", "x"), TRUE_BOX, (0.0, 0.0, 0.0), "reversed"),
        (SpanSec(1.0, 3.0), torch.tensor([0.0, 0.0, 1.0, 1.0]), (1.0, 1.0, 0.08), "full frame: 0.2 x 0.4 of 1"),
    ],
)
def test_terms_by_hand(
    answer: Answer | ParseFailure, box: torch.Tensor, expected: tuple[float, float, float], why: str
) -> None:
    """format, temporal, viou."""
    torch.testing.assert_close(
        reward(answer, box).terms_BK[0, :3], torch.tensor(expected), msg=lambda text: f"{why}: {text}"
    )


def test_total_is_the_weighted_sum_and_failures_have_their_price() -> None:
    """0.1 x 1 + 1 x 0.5 + 2 x 0.5 = 1.6; a failure costs what the config says."""
    weights = {"format": 0.1, "temporal": 1.0, "viou": 2.0}
    assert float(reward(SpanSec(1.0, 2.0), weights=weights).total_B) == pytest.approx(1.6)
    assert float(reward(ParseFailure("grammar", ""), weights=weights, parse_failure=-0.5).total_B) == pytest.approx(
        -0.5
    )


def test_rewards_are_differentiable_in_the_boxes() -> None:
    """Moving the shifted box left raises vIoU: the gradient of the total says so."""
    box = SHIFTED_BOX.clone().requires_grad_()
    reward(SpanSec(1.0, 3.0), box).total_B.sum().backward()
    assert box.grad is not None and box.grad[0] < 0 and box.grad[2] < 0


def test_batched_equals_single() -> None:
    """Rows do not disturb each other."""
    answers: list[Answer | ParseFailure] = [SpanSec(1.0, 2.0), ParseFailure("grammar", ""), SpanSec(0.0, 4.0)]
    frames = torch.arange(40).expand(3, 40)
    batch = tube_batch([SAMPLE] * 3, answers, TRUE_BOX.expand(3, 40, 4), frames, torch.ones(3, 40, dtype=torch.bool))
    together = RewardComposer(RewardConfig())(batch).total_B
    alone = torch.cat([reward(answer).total_B for answer in answers])
    torch.testing.assert_close(together, alone)


def test_an_unlabelled_sample_cannot_be_scored() -> None:
    """A question without a true span is an error that names it."""
    question = replace(SAMPLE, span=None, boxes_xyxy_px=None)
    with pytest.raises(ValueError, match="cannot be scored: \\['a'\\]"):
        tube_batch([question], [SpanSec(0, 1)], torch.zeros(1, 1, 4), torch.zeros(1, 1), torch.ones(1, 1).bool())


def test_an_unknown_term_is_a_config_error() -> None:
    """Terms are checked when the config is read."""
    with pytest.raises(ConfigError, match="viuo"):
        parse_config(RewardConfig, {"weights": {"viuo": 1.0}}, origin="test")
