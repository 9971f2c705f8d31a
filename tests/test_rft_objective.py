import math

import pytest
import torch

from rft.objective import LossType, StepCounts, pathwise_loss, policy_loss, policy_metrics

# Two completions of 3 and 1 tokens; ratios 1, 2, 1 and 1/2; advantages +1 and -1.
LOGPS = torch.tensor([[-1.0, -1.0 + math.log(2), -1.0], [-1.0 - math.log(2), 0.0, 0.0]])
OLD = torch.tensor([[-1.0, -1.0, -1.0], [-1.0, 0.0, 0.0]])
MASK = torch.tensor([[True, True, True], [True, False, False]])
ADVANTAGES = torch.tensor([1.0, -1.0])
COUNTS = StepCounts(num_completions=2, num_tokens=4, max_completion_length=8)


@pytest.mark.parametrize(
    ("loss_type", "expected"),
    [
        # Clip at 0.2 / 0.28. Row 1: 1 + min(2, 1.28) + 1 = 3.28. Row 2: min(-0.5, -0.8) = -0.8. Sum 2.48.
        ("sum", -2.48 / 2),
        ("grpo", -(3.28 / 3 - 0.8) / 2),
        ("bnpo", -2.48 / 4),
        ("dr_grpo", -2.48 / (2 * 8)),
    ],
)
def test_policy_loss_by_hand(loss_type: LossType, expected: float) -> None:
    got = policy_loss(
        LOGPS, OLD, ADVANTAGES, MASK, COUNTS, loss_type=loss_type, epsilon=0.2, epsilon_high=0.28
    )  # fmt: skip
    assert float(got) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("loss_type", ["sum", "grpo", "bnpo", "dr_grpo"])
def test_micro_batches_add_up(loss_type: LossType) -> None:
    """The counts are the whole step's, so the parts' losses sum to the whole's."""
    args = {"loss_type": loss_type, "epsilon": 0.2, "epsilon_high": 0.28}
    whole = policy_loss(LOGPS, OLD, ADVANTAGES, MASK, COUNTS, **args)
    parts = [
        policy_loss(LOGPS[i : i + 1], OLD[i : i + 1], ADVANTAGES[i : i + 1], MASK[i : i + 1], COUNTS, **args)
        for i in (0, 1)
    ]
    torch.testing.assert_close(sum(parts), whole)


def test_on_policy_gradient_is_the_policy_gradient() -> None:
    """With ratio 1, d loss / d logp = -A / N on sampled tokens and 0 on padding."""
    logps = OLD.clone().requires_grad_()
    policy_loss(logps, OLD, ADVANTAGES, MASK, COUNTS, loss_type="sum", epsilon=0.2, epsilon_high=0.28).backward()
    torch.testing.assert_close(logps.grad, torch.tensor([[-0.5, -0.5, -0.5], [0.5, 0.0, 0.0]]))


def test_clipped_tokens_have_no_gradient() -> None:
    """Row 1, token 2: ratio 2 with a positive advantage is beyond the clip."""
    logps = LOGPS.clone().requires_grad_()
    policy_loss(logps, OLD, ADVANTAGES, MASK, COUNTS, loss_type="sum", epsilon=0.2, epsilon_high=0.28).backward()
    assert logps.grad is not None and logps.grad[0, 1] == 0 and logps.grad[0, 0] != 0


def test_pathwise_loss_by_hand() -> None:
    """Sequence ratios: 1 x 2 x 1 = 2 and 1/2. -(2 x 0.5 + 0.5 x 1.0) / (2 x 0.25) = -3."""
    rewards = torch.tensor([0.5, 1.0], requires_grad=True)
    loss = pathwise_loss(rewards, LOGPS, OLD, MASK, COUNTS, scale=0.25)
    assert float(loss.detach()) == pytest.approx(-3.0)
    loss.backward()
    torch.testing.assert_close(rewards.grad, torch.tensor([-4.0, -1.0]))


def test_both_terms_are_the_gradient_of_the_expected_reward() -> None:
    """An enumerable toy: one token of three, a box per token, J = sum_y pi(y) R(y, b_y).

    Exact: dJ/dlogit_k = pi_k (R_k - J), dJ/db_y = pi_y dR/db. The estimator, summed over all y with weight pi(y)
    instead of sampled, with the mean of the group as its baseline, must give the same.
    """
    logits = torch.tensor([0.3, -0.5, 1.0], dtype=torch.float64, requires_grad=True)
    boxes = torch.tensor([0.2, 0.7, 0.4], dtype=torch.float64, requires_grad=True)

    def reward(b: torch.Tensor) -> torch.Tensor:
        return 1 - (b - 0.5) ** 2

    expected = (logits.softmax(0) * reward(boxes)).sum()
    exact = torch.autograd.grad(expected, [logits, boxes])

    # 10,000 completions in exact proportion to pi (up to rounding) stand for the expectation.
    counts = (logits.softmax(0) * 10_000).round().long()
    tokens = torch.repeat_interleave(torch.arange(3), counts)
    logps = logits.log_softmax(0)[tokens][:, None]
    rewards = reward(boxes)[tokens]
    advantages = rewards.detach() - rewards.detach().mean()
    step = StepCounts(num_completions=len(tokens), num_tokens=len(tokens), max_completion_length=1)
    mask = torch.ones_like(logps, dtype=torch.bool)
    loss = policy_loss(logps, logps.detach(), advantages, mask, step, loss_type="sum", epsilon=0.2, epsilon_high=0.28)
    loss = loss + pathwise_loss(rewards, logps, logps.detach(), mask, step, scale=1.0)
    estimated = torch.autograd.grad(-loss, [logits, boxes])
    for ours, true in zip(estimated, exact, strict=True):
        torch.testing.assert_close(ours, true, atol=2e-4, rtol=1e-3)


def test_metrics_by_hand() -> None:
    """|log 2| on two of four tokens."""
    metrics = policy_metrics(LOGPS, OLD, torch.ones_like(LOGPS), MASK)
    assert metrics["mismatch/mean"] == pytest.approx(math.log(2) / 2)
    assert metrics["mismatch/max"] == pytest.approx(math.log(2))
    assert metrics["policy/entropy"] == 1.0
