"""Scoring does not wait for the device: no value is read back, no copy to it blocks.

On a GPU `torch.cuda.set_sync_debug_mode` says so. Without one, tensors without values (FakeTensorMode) on a device of that name: reading
one, or a size that depends on one, is an error, and a blocking copy between devices is caught here.
"""

from typing import Any

import pytest
import torch
from test_rewards import SAMPLE
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from configs.rewards import RewardConfig
from data.answers import Answer, ParseFailure, SpanSec
from data.tubes import TubeBatch, tube_batch
from rewards.composer import RewardBreakdown, RewardComposer

ANSWERS: list[Answer | ParseFailure] = [SpanSec(1.0, 3.0), ParseFailure("grammar", "x"), SpanSec(0.0, 1.5)]


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


def scored(device: str, composer: RewardComposer) -> RewardBreakdown:
    """Three answers about one sample, boxes on the device."""
    frames_BT = torch.arange(40, device=device).expand(3, 40)
    boxes_BT4 = torch.full((3, 40, 4), 0.5, device=device)
    valid_BT = torch.ones(3, 40, dtype=torch.bool, device=device)
    return composer(tube_batch([SAMPLE] * 3, ANSWERS, boxes_BT4, frames_BT, valid_BT))


CONFIGS = {
    "bridge": RewardConfig(),
    "sarl": RewardConfig.model_validate({"preset": "sarl"}),
    "gates and clips": RewardConfig.model_validate(
        {"weights": {"spatial": 1.0}, "gates": {"viou": "temporal"}, "clips": {"spatial": [0, 1]}, "parse_failure": -1}
    ),
}


@pytest.mark.parametrize("name", list(CONFIGS))
def test_rewards_wait_for_nothing(name: str) -> None:
    composer = RewardComposer(CONFIGS[name])
    with FakeTensorMode(allow_non_fake_inputs=True), NoBlockingCopies():
        assert scored("cuda", composer).total_B.device.type == "cuda"


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
def test_rewards_wait_for_nothing_on_a_gpu() -> None:
    composer = RewardComposer(RewardConfig())
    scored("cuda", composer)
    torch.cuda.set_sync_debug_mode("error")
    try:
        scored("cuda", composer)
    finally:
        torch.cuda.set_sync_debug_mode("default")
