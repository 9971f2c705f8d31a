"""The loss of a micro-batch on given log-probs and rewards: scales, and completions that were cut off."""

import math
from typing import Any

import pytest
import torch
from given_rollouts import config_of, given_loss
from torch import Tensor

from configs.rft import ObjectiveConfig
from evaluation.vllm_engine import Rollout
from rft.objective import StepCounts
from rft.step_metrics import step_counts

REWARDS = torch.tensor([0.0, 1.0, 0.0, 3.0])
"""Two groups of two: -1/2, 1/2 and -3/2, 3/2 from their means."""
COUNTS = StepCounts(num_completions=4, num_tokens=4, num_tokens_mean=4.0, max_completion_length=1)


def gradient_and_scale(scale_rewards: str, all_ranks: object) -> tuple[Tensor, float]:
    """On-policy, of one token in each completion: -A / 4; and the scale that is logged."""
    logps_BL = torch.full((4, 1), -1.0, requires_grad=True)
    objective = ObjectiveConfig(decoder_update="frozen", scale_rewards=scale_rewards)  # type: ignore[arg-type]
    loss, metrics = given_loss(
        logps_BL, logps_BL.detach(), torch.ones(4, 1, dtype=torch.bool), REWARDS, COUNTS, objective,
        num_generations=2, scale_of_task={"stvg": 0.5, "temporal": 0.25}.__getitem__,
        tasks=["stvg", "stvg", "temporal", "temporal"], all_ranks=all_ranks,
    )  # fmt: skip
    return torch.autograd.grad(loss, logps_BL)[0].flatten(), metrics["policy/scale"]


def never(values: Tensor) -> Tensor:
    pytest.fail("a scale that is not the batch's needs no other rank")


@pytest.mark.parametrize(
    ("scale_rewards", "scales"),
    [
        ("none", (1.0, 1.0)),
        # Sample variances 1/2 and 9/2.
        ("group", (math.sqrt(0.5) + 1e-4, math.sqrt(4.5) + 1e-4)),
        # Those of the tasks, stvg and temporal.
        ("running", (0.5, 0.25)),
    ],
)
def test_scales_by_hand(scale_rewards: str, scales: tuple[float, float]) -> None:
    gradient_B, logged = gradient_and_scale(scale_rewards, never)
    advantages_B = torch.tensor([-0.5 / scales[0], 0.5 / scales[0], -1.5 / scales[1], 1.5 / scales[1]])
    torch.testing.assert_close(gradient_B, -advantages_B / 4)
    assert logged == pytest.approx(sum(scales) / 2)


@pytest.mark.parametrize(
    ("others", "std"),
    [
        # 0, 1, 0, 3: mean 1, squares 1 + 0 + 1 + 4 = 6, over 3.
        ([], math.sqrt(2)),
        # With 2, 2, 2, 2 of another rank: mean 1.5, squares 2.25 + .25 + 2.25 + 2.25 + 4 x .25 = 8, over 7.
        ([2.0, 2.0, 2.0, 2.0], math.sqrt(8 / 7)),
    ],
)
def test_the_scale_of_a_batch_is_that_of_all_ranks(others: list[float], std: float) -> None:
    gradient_B, logged = gradient_and_scale("batch", lambda own: torch.cat([own, torch.tensor(others)]))
    torch.testing.assert_close(gradient_B, -torch.tensor([-0.5, 0.5, -1.5, 1.5]) / (std + 1e-4) / 4)
    assert logged == pytest.approx(std + 1e-4)


LENGTHS, MASK = (2, 3), torch.tensor([[True, True, False], [True, True, True]])


@pytest.mark.parametrize(
    ("loss_type", "expected"),
    [
        # Rewards 0 and 1, so A = -1/2 and 1/2; the second is cut off. -A over 2 completions, or over the 2 tokens that are left.
        ("sum", 0.5 / 2),
        ("grpo", 0.5 / 2 / 2),
        ("dapo", 0.5 / 2),
        ("bnpo", 0.5 / 2),
        ("dr_grpo", 0.5 / (2 * 32)),
    ],
)
def test_truncated_completions_are_masked(loss_type: str, expected: float) -> None:
    """No gradient and no count of its tokens; its reward is in the mean, and it is one of the completions."""
    masked: dict[str, Any] = {"mask_truncated_completions": True, "loss_type": loss_type}
    objective = ObjectiveConfig(decoder_update="frozen", scale_rewards="none", **masked)
    group = [Rollout([5] * length, [-1.0] * length, length == 3, 0) for length in LENGTHS]
    counts = step_counts([group], None, config_of(objective), lambda value: value)
    assert (counts.num_completions, counts.num_tokens, counts.num_tokens_mean) == (2, 2, 2)
    logps_BL = torch.full((2, 3), -1.0, requires_grad=True)
    loss, _ = given_loss(
        logps_BL, logps_BL.detach(), MASK, REWARDS[:2], counts, objective,
        num_generations=2, scale_of_task=never_asked, truncated=[False, True],
    )  # fmt: skip
    (gradient_BL,) = torch.autograd.grad(loss, logps_BL)
    torch.testing.assert_close(gradient_BL, torch.tensor([[expected, expected, 0.0], [0.0, 0.0, 0.0]]))


def never_asked(task: str) -> float:
    pytest.fail("scale_rewards=none needs no scale of a task")


def test_truncated_completions_count_by_default() -> None:
    group = [Rollout([5] * length, [-1.0] * length, length == 3, 0) for length in LENGTHS]
    objective = ObjectiveConfig(decoder_update="frozen")
    assert step_counts([group], None, config_of(objective), lambda value: value).num_tokens == 5


@pytest.mark.parametrize("loss_type", ["sum", "grpo", "dapo"])
def test_a_step_of_truncated_completions_alone_has_no_gradient(loss_type: str) -> None:
    masked: dict[str, Any] = {"mask_truncated_completions": True, "loss_type": loss_type}
    objective = ObjectiveConfig(decoder_update="frozen", **masked)
    group = [Rollout([5] * length, [-1.0] * length, True, 0) for length in LENGTHS]
    counts = step_counts([group], None, config_of(objective), lambda value: value)
    logps_BL = torch.full((2, 3), -1.0, requires_grad=True)
    loss, _ = given_loss(
        logps_BL, logps_BL.detach(), MASK, REWARDS[:2], counts, objective,
        num_generations=2, scale_of_task=lambda task: 0.5, truncated=[True, True],
    )  # fmt: skip
    assert float(loss.detach()) == 0 and not torch.autograd.grad(loss, logps_BL)[0].any()


def test_boxes_are_weighed_as_importance_sampling_says() -> None:
    """Trainer / vLLM is 2, 1, 1/2 and 1 with a limit of 1.5: dL/dR = -w / (N s), with N = 4 and s = 0.5."""
    logps_BL = torch.tensor([[math.log(2)], [0.0], [-math.log(2)], [0.0]]) - 1
    rewards_B = REWARDS.clone().requires_grad_()
    objective = ObjectiveConfig(importance_sampling="token_mask", importance_sampling_max=1.5)
    loss, _ = given_loss(
        logps_BL, torch.full((4, 1), -1.0), torch.ones(4, 1, dtype=torch.bool), rewards_B, COUNTS, objective,
        num_generations=2, scale_of_task=lambda task: 0.5,
    )  # fmt: skip
    (gradient_B,) = torch.autograd.grad(loss, rewards_B)
    torch.testing.assert_close(gradient_B, -torch.tensor([0.0, 1.0, 0.5, 1.0]) / (4 * 0.5))
