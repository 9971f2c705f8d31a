"""Scoring does not wait for the device: no value is read back, no copy to it blocks.

On a GPU `torch.cuda.set_sync_debug_mode` says so. Without one, tensors without values (FakeTensorMode) on a device of that name: reading
one, or a size that depends on one, is an error, and a blocking copy between devices is caught here.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from test_rewards import SAMPLE
from test_rewards_tasks import IMAGE, QUESTION, TEMPORAL
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from configs.rewards import RewardConfig
from data.answers import Answer, ParseFailure, SpanSec, parse_answer
from data.tube_indices import WrittenTubes
from data.tubes import TubeBatch, tube_batch
from data.types import GroundingSample
from data.written_answers import AnswerStyle, read_answers, written_beside_truth
from rewards.composer import RewardBreakdown, RewardComposer

ANSWERS: list[Answer | ParseFailure] = [SpanSec(1.0, 3.0), ParseFailure("grammar", "x"), SpanSec(0.0, 1.5)]
BOX = "[200, 200, 400, 600]"
TUBE = f"<time> 1 - 2 </time>\n<think_bbox> 1. {BOX} </think_bbox>\n<pred_bbox> 1. {BOX}, 2. {BOX} </pred_bbox>"
TASKS = {"temporal": {"temporal": 1.0}, "rec": {"viou": 1.0, "spatial": 1.0}, "qa": {"format": 0.1, "choice": 1.0}}


@dataclass(frozen=True)
class Answered:
    """Samples and their answers; written: where boxes are in the text."""

    samples: list[GroundingSample]
    answers: list[Answer | ParseFailure]
    written: WrittenTubes | None = None


def mixed() -> Answered:
    """A sample of each task, the answer of another task, and one that is none."""
    texts = {"stvg": "<time> 1.0 - 2.0 </time>", "rec": "<box> </box>", "qa": "<answer> B </answer>"}
    rows = [(sample, texts.get(sample.task, texts["stvg"])) for sample in (SAMPLE, TEMPORAL, IMAGE, QUESTION)]
    rows += [(IMAGE, texts["qa"]), (SAMPLE, "x")]
    return Answered([sample for sample, _ in rows], [parse_answer(*row) for row in rows])


def written(samples: list[GroundingSample], texts: list[str]) -> Answered:
    """With boxes in the text. They are read on the CPU before the test begins: a step does that before it scores."""
    frame_idx, style = [np.arange(s.clip.start, s.clip.end) for s in samples], AnswerStyle(answer_format="tube")
    read = read_answers(samples, frame_idx, texts, style)
    return Answered(samples, read.answers, written_beside_truth(read, samples, frame_idx, style))


class BlockingCopy(Exception):
    """A copy between devices that is waited for."""


class NoBlockingCopies(TorchDispatchMode):
    """Raises BlockingCopy for a copy to another device that is waited for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default:
            is_moved = result.device.type != args[0].device.type
            if is_moved and not (kwargs or {}).get("non_blocking", False):
                raise BlockingCopy(f"{args[0].device} -> {result.device}")
        return result


def scored(device: str, composer: RewardComposer, answered: Answered | None = None) -> RewardBreakdown:
    """Boxes on the device; by default three answers about one sample."""
    answered = answered or Answered([SAMPLE] * 3, ANSWERS)
    rows = len(answered.samples)
    frames_BT = torch.arange(40, device=device).expand(rows, 40)
    boxes_BT4 = torch.full((rows, 40, 4), 0.5, device=device)
    valid_BT = torch.ones(rows, 40, dtype=torch.bool, device=device)
    tubes = tube_batch(answered.samples, answered.answers, boxes_BT4, frames_BT, valid_BT, written=answered.written)
    return composer(tubes)


def config_of(**tree: Any) -> RewardConfig:
    return RewardConfig.model_validate(tree)


SHAPED = {"gates": {"viou": "temporal"}, "clips": {"spatial": [0, 1]}, "parse_failure": -1}
CASES = {
    "bridge": (config_of(), None),
    "sarl": (config_of(preset="sarl"), None),
    "gates and clips": (config_of(weights={"spatial": 1.0}, **SHAPED), None),
    "mixed tasks": (config_of(tasks=TASKS), mixed()),
    "mixed tasks with gates and clips": (config_of(weights={"spatial": 1.0}, tasks=TASKS, **SHAPED), mixed()),
    "written boxes": (config_of(preset="stvg_o1"), written([SAMPLE] * 3, [TUBE, "x", TUBE])),
    "written boxes in mixed tasks, every term": (
        config_of(preset="stvg_o1", weights={"gated": 1.0}, tasks=TASKS, spatial_floor=0.0, **SHAPED),
        written(
            [SAMPLE, TEMPORAL, IMAGE, QUESTION, IMAGE],
            [TUBE, "<time> 1.0 - 2.0 </time>", f"<pred_bbox> {BOX} </pred_bbox>", "<answer> B </answer>", TUBE],
        ),
    ),
}


@pytest.mark.parametrize("name", list(CASES))
def test_rewards_wait_for_nothing(name: str) -> None:
    """What they pay, which signal is looked for in, neither."""
    config, answered = CASES[name]
    composer = RewardComposer(config)
    with FakeTensorMode(allow_non_fake_inputs=True), NoBlockingCopies():
        got = scored("cuda", composer, answered)
        assert {got.total_B.device.type, got.paid_BK.device.type, got.terms_BK.device.type} == {"cuda"}


def reads_a_value(tubes: TubeBatch) -> torch.Tensor:
    return tubes.tiou() * float(tubes.tiou().max())


def picks_rows(tubes: TubeBatch) -> torch.Tensor:
    return torch.full_like(tubes.tiou(), len(tubes.tiou()[tubes.parsed_B]))


def moves_a_constant(tubes: TubeBatch) -> torch.Tensor:
    return tubes.tiou() * torch.tensor([0.5], device=tubes.parsed_B.device)


@pytest.mark.parametrize(
    ("term", "error"),
    [
        (reads_a_value, DataDependentOutputException),
        (picks_rows, DynamicOutputShapeException),
        (moves_a_constant, BlockingCopy),
    ],
)
def test_a_term_that_waits_is_found(term: Any, error: type[Exception]) -> None:
    composer = RewardComposer(RewardConfig(own={f"{__name__}:{term.__name__}": 1.0}))
    with pytest.raises(error), FakeTensorMode(allow_non_fake_inputs=True), NoBlockingCopies():
        scored("cuda", composer)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", list(CASES))
def test_rewards_wait_for_nothing_on_a_gpu(name: str) -> None:
    config, answered = CASES[name]
    composer = RewardComposer(config)
    scored("cuda", composer, answered)
    torch.cuda.set_sync_debug_mode("error")
    try:
        scored("cuda", composer, answered)
    finally:
        torch.cuda.set_sync_debug_mode("default")
