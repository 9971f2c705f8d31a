"""Rewards of temporal, rec and qa samples, by hand, alone and mixed with stvg in one batch; what is logged of each."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from test_rewards import SAMPLE, SHIFTED_BOX, TRUE_BOX

from configs.base import ConfigError, parse_config
from configs.rewards import RewardConfig
from data.answers import parse_answer
from data.tubes import tube_batch
from data.types import FrameSpan, GroundingSample
from rewards.composer import RewardBreakdown, RewardComposer
from rewards.tasks import metrics_by_task, weigh_by_task

TEMPORAL = replace(SAMPLE, sample_id="t", task="temporal", boxes_xyxy_px=None, width=0, height=0)
IMAGE = replace(
    SAMPLE, sample_id="r", task="rec", clip=FrameSpan(7, 8), span=FrameSpan(7, 8), boxes_xyxy_px=SAMPLE.boxes_xyxy_px[:1]  # type: ignore[index]
)  # fmt: skip
QUESTION = replace(
    SAMPLE,
    sample_id="q",
    task="qa",
    span=None,
    boxes_xyxy_px=None,
    options=("red", "green"),
    choice="B",
    width=0,
    height=0,
)
WEIGHTS = {
    "temporal": {"format": 0.1, "temporal": 1.0},
    "rec": {"format": 0.2, "viou": 2.0},
    "qa": {"format": 0.3, "choice": 3.0},
}


def scored(rows: list[tuple[GroundingSample, str, torch.Tensor]], **config: Any) -> RewardBreakdown:
    """Texts, with the same box at every frame of a clip of 40."""
    samples = [sample for sample, _, _ in rows]
    answers = [parse_answer(sample, text) for sample, text, _ in rows]
    boxes_BT4 = torch.stack([box.expand(40, 4) for _, _, box in rows])
    frames_BT = torch.arange(40).expand(len(rows), 40)
    tubes = tube_batch(samples, answers, boxes_BT4, frames_BT, torch.ones(len(rows), 40, dtype=torch.bool))
    return RewardComposer(RewardConfig.model_validate({"tasks": WEIGHTS} | config))(tubes)


TABLE = [
    # sample, text, box, total, why. The truth of stvg and temporal is 1.0 to 3.0 of 4 s.
    (SAMPLE, "<time> 1.0 - 2.0 </time>", TRUE_BOX, 0.1 + 0.5 + 0.5, "stvg: half of the interval, true boxes"),
    (TEMPORAL, "<time> 1.0 - 3.0 </time>", TRUE_BOX, 0.1 + 1, "temporal: the truth"),
    (TEMPORAL, "<time> 0.0 - 4.0 </time>", TRUE_BOX, 0.1 + 0.5, "temporal: 2 of 4 s"),
    (TEMPORAL, "<time> 3.0 - 4.0 </time>", TRUE_BOX, 0.1, "temporal: touching"),
    (TEMPORAL, "<box> </box>", TRUE_BOX, 0.0, "temporal: the answer of another task"),
    (IMAGE, "<box> </box>", TRUE_BOX, 0.2 + 2, "rec: the true box"),
    (IMAGE, "<box> </box>", SHIFTED_BOX, 0.2 + 2 / 3, "rec: IoU 1/3"),
    (IMAGE, "<time> 0.0 - 0.1 </time>", TRUE_BOX, 0.0, "rec: the answer of another task"),
    (QUESTION, "<answer> B </answer>", TRUE_BOX, 0.3 + 3, "qa: right"),
    (QUESTION, "<answer> A </answer>", TRUE_BOX, 0.3, "qa: wrong"),
    (QUESTION, "<answer> Z </answer>", TRUE_BOX, 0.3, "qa: no option"),
    (QUESTION, "B", TRUE_BOX, 0.0, "qa: a letter outside of the tags"),
]


@pytest.mark.parametrize(("sample", "text", "box", "expected", "why"), TABLE, ids=[row[-1] for row in TABLE])
def test_each_task_by_hand(sample: GroundingSample, text: str, box: torch.Tensor, expected: float, why: str) -> None:
    assert float(scored([(sample, text, box)]).total_B) == pytest.approx(expected, abs=1e-6)


def test_a_mixed_batch_is_its_rows_alone() -> None:
    got = scored([(sample, text, box) for sample, text, box, _, _ in TABLE])
    torch.testing.assert_close(got.total_B, torch.tensor([row[3] for row in TABLE]), atol=1e-6, rtol=0)


def test_each_row_is_paid_by_its_task() -> None:
    """The vIoU of stvg and the format of a question have no weight, though both are measured."""
    rows = [(SAMPLE, "<time> 1.0 - 2.0 </time>", TRUE_BOX), (IMAGE, "<box> </box>", SHIFTED_BOX)]
    rows.append((QUESTION, "<answer> B </answer>", TRUE_BOX))
    tasks = WEIGHTS | {"qa": {"choice": 3.0}}
    got = scored(rows, weights={"format": 0.5, "temporal": 2.0, "viou": 0.0}, tasks=tasks)
    paid = dict(zip(got.names, got.paid_BK.T, strict=True))
    torch.testing.assert_close(paid["format"], torch.tensor([0.5, 0.2, 0.0]))
    torch.testing.assert_close(paid["temporal"], torch.tensor([1.0, 0.0, 0.0]))
    torch.testing.assert_close(paid["viou"], torch.tensor([0.0, 2 / 3, 0.0]))
    torch.testing.assert_close(paid["choice"], torch.tensor([0.0, 0.0, 3.0]))
    torch.testing.assert_close(got.paid_BK.sum(dim=1), got.total_B)


def test_a_failure_has_its_price_in_every_task() -> None:
    rows = [(sample, "what?", TRUE_BOX) for sample in (SAMPLE, TEMPORAL, IMAGE, QUESTION)]
    assert scored(rows, parse_failure=-0.5).total_B.tolist() == [-0.5] * 4


def test_the_box_of_an_image_has_a_gradient_beside_rows_without_boxes() -> None:
    """A video of unknown size has no true boxes: nothing of it may reach the gradient."""
    boxes = [SHIFTED_BOX.clone().requires_grad_() for _ in range(3)]
    rows = [(IMAGE, "<box> </box>"), (TEMPORAL, "<time> 1.0 - 3.0 </time>"), (QUESTION, "<answer> B </answer>")]
    scored([(*row, box) for row, box in zip(rows, boxes, strict=True)]).total_B.sum().backward()
    image, temporal, question = (box.grad for box in boxes)
    assert image is not None and image[0] < 0 and image[2] < 0
    assert temporal is not None and question is not None and not temporal.any() and not question.any()


def test_a_task_without_weights_is_named() -> None:
    with pytest.raises(ConfigError, match=r"rewards\.tasks: expected weights for the task qa"):
        scored([(QUESTION, "<answer> B </answer>", TRUE_BOX)], tasks={})


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ({"tasks": {"qa": {"viou": 1.0}}}, "tasks.qa: expected terms of format, choice; got viou"),
        ({"tasks": {"rec": {"format": 0.0}}}, "tasks.rec: expected at least one positive weight"),
        ({"tasks": {"stvg": {"format": 1.0}}}, "tasks"),
        ({"gates": {"format": "choice"}}, "gates: choice is computed where rewards.tasks.qa"),
        ({"weights": {"choice": 1.0}}, "weights.choice"),
    ],
)
def test_configs_that_cannot_work(tree: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        parse_config(RewardConfig, tree, origin="test")


def test_weights_of_each_row() -> None:
    """1 x 1 + 2 x 10 for the first task, 3 x 100 for the second."""
    weights = {"stvg": torch.tensor([1.0, 10.0]), "qa": torch.tensor([100.0, 0.0])}
    terms_BK = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert weigh_by_task(terms_BK, ("stvg", "qa"), weights).tolist() == [21.0, 300.0]


def test_what_is_logged_of_each_task() -> None:
    """Two groups of two: stvg .2 and .4, mean .3, sample std .1 x sqrt 2; qa 1 and 1, of which no other term is logged."""
    terms_BK = torch.tensor([[0.2, 0.0], [0.4, 0.0], [9.0, 1.0], [9.0, 1.0]])
    earned = {"stvg": ["temporal"], "qa": ["choice"]}
    got = metrics_by_task(("temporal", "choice"), terms_BK, ("stvg", "stvg", "qa", "qa"), earned, 2)
    assert got == pytest.approx(
        {
            "reward/stvg/temporal": 0.3,
            "reward/stvg/temporal_group_std": 0.1 * 2**0.5,
            "reward/qa/choice": 1.0,
            "reward/qa/choice_group_std": 0.0,
        }
    )
    assert metrics_by_task(("temporal", "choice"), terms_BK[:2], ("stvg", "stvg"), earned, 2) == {}
