import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from configs.rft import ObjectiveConfig
from rft.objective import StepCounts, kl_k3, pathwise_loss, policy_loss, policy_metrics, sampling_weights

# Two completions of 3 and 1 tokens; ratios 1, 2, 1 and 1/2; advantages +1 and -1.
LOGPS = torch.tensor([[-1.0, -1.0 + math.log(2), -1.0], [-1.0 - math.log(2), 0.0, 0.0]])
OLD = torch.tensor([[-1.0, -1.0, -1.0], [-1.0, 0.0, 0.0]])
MASK = torch.tensor([[True, True, True], [True, False, False]])
ADVANTAGES = torch.tensor([1.0, -1.0])
COUNTS = StepCounts(num_completions=2, num_tokens=4, num_tokens_mean=5.0, max_completion_length=8)


def objective(**changes: Any) -> ObjectiveConfig:
    """Clip at 0.2 / 0.28; cispo's weights at 5."""
    limit = {"epsilon_high": 5.0} if changes.get("loss_type") == "cispo" else {}
    fields: dict[str, Any] = {"decoder_update": "frozen", **limit, **changes}
    return ObjectiveConfig(**fields)


@pytest.mark.parametrize(
    ("loss_type", "expected"),
    [
        # Clip at 0.2 / 0.28. Row 1: 1 + min(2, 1.28) + 1 = 3.28. Row 2: min(-0.5, -0.8) = -0.8. Sum 2.48.
        ("sum", -2.48 / 2),
        ("grpo", -(3.28 / 3 - 0.8) / 2),
        ("bnpo", -2.48 / 4),
        ("dapo", -2.48 / 5),
        ("dr_grpo", -2.48 / (2 * 8)),
    ],
)
def test_policy_loss_by_hand(loss_type: str, expected: float) -> None:
    got = policy_loss(LOGPS, OLD, ADVANTAGES, MASK, COUNTS, objective(loss_type=loss_type))
    assert float(got) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("loss_type", ["sum", "grpo", "bnpo", "dr_grpo", "dapo", "cispo"])
def test_micro_batches_add_up(loss_type: str) -> None:
    """The counts are the whole step's, so the parts' losses sum to the whole's."""
    config = objective(loss_type=loss_type)
    whole = policy_loss(LOGPS, OLD, ADVANTAGES, MASK, COUNTS, config)
    parts = [
        policy_loss(LOGPS[i : i + 1], OLD[i : i + 1], ADVANTAGES[i : i + 1], MASK[i : i + 1], COUNTS, config)
        for i in (0, 1)
    ]
    torch.testing.assert_close(sum(parts), whole)


def test_on_policy_gradient_is_the_policy_gradient() -> None:
    """With ratio 1, d loss / d logp = -A / N on sampled tokens and 0 on padding."""
    logps = OLD.clone().requires_grad_()
    policy_loss(logps, OLD, ADVANTAGES, MASK, COUNTS, objective()).backward()
    torch.testing.assert_close(logps.grad, torch.tensor([[-0.5, -0.5, -0.5], [0.5, 0.0, 0.0]]))


def test_clipped_tokens_have_no_gradient() -> None:
    """Row 1, token 2: ratio 2 with a positive advantage is beyond the clip."""
    logps = LOGPS.clone().requires_grad_()
    policy_loss(logps, OLD, ADVANTAGES, MASK, COUNTS, objective()).backward()
    assert logps.grad is not None and logps.grad[0, 1] == 0 and logps.grad[0, 0] != 0


def test_cispo_by_hand() -> None:
    """Weights 1, min(2, 1.5), 1 and 1/2 on A log p: row 1 -1 + 1.5 (log 2 - 1) - 1, row 2 -1/2 (-1 - log 2); over 5."""
    got = policy_loss(LOGPS, OLD, ADVANTAGES, MASK, COUNTS, objective(loss_type="cispo", epsilon_high=1.5))
    total = -2 + 1.5 * (math.log(2) - 1) + 0.5 * (1 + math.log(2))
    assert float(got) == pytest.approx(-total / 5, abs=1e-6)


def test_cispo_on_policy_is_the_policy_gradient() -> None:
    """With every ratio 1, d loss / d logp = -A / 5: the limit must not be below 1."""
    logps = OLD.clone().requires_grad_()
    policy_loss(logps, OLD, ADVANTAGES, MASK, COUNTS, objective(loss_type="cispo")).backward()
    torch.testing.assert_close(logps.grad, torch.tensor([[-0.2, -0.2, -0.2], [0.2, 0.0, 0.0]]))


@pytest.mark.parametrize("epsilon_high", [0.28, 1.0])
def test_cispo_wants_a_limit_above_one(epsilon_high: float) -> None:
    with pytest.raises(ValidationError, match=r"epsilon_high > 1, for example 5.*got epsilon_high="):
        ObjectiveConfig(loss_type="cispo", decoder_update="frozen", epsilon_high=epsilon_high)


def test_cispo_trains_tokens_beyond_the_limit() -> None:
    """The weight is cut off, the gradient is not: -A w / 5."""
    logps = LOGPS.clone().requires_grad_()
    policy_loss(logps, OLD, ADVANTAGES, MASK, COUNTS, objective(loss_type="cispo", epsilon_high=1.5)).backward()
    torch.testing.assert_close(logps.grad, -torch.tensor([[1.0, 1.5, 1.0], [-0.5, 0.0, 0.0]]) / 5)


def test_sequence_ratio_by_hand() -> None:
    """Geometric means 2^(1/3) = 1.26 (below 1.28) and 1/2 (clipped to .8, so min(-.5, -.8)); a mean per completion."""
    config = objective(loss_type="grpo", importance_sampling_level="sequence")
    got = policy_loss(LOGPS, OLD, ADVANTAGES, MASK, COUNTS, config)
    assert float(got) == pytest.approx(-(2 ** (1 / 3) - 0.8) / 2, abs=1e-6)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("token_truncate", [[1.0, 1.5, 1.0], [0.5, 1.0, 1.0]]),
        ("token_mask", [[1.0, 0.0, 1.0], [0.5, 1.0, 1.0]]),
        ("sequence_truncate", [[1.5], [0.5]]),
        ("sequence_mask", [[0.0], [0.5]]),
    ],
)
def test_sampling_weights_by_hand(mode: str, expected: list[list[float]]) -> None:
    """Trainer / vLLM is 1, 2, 1 and 1/2; at most 1.5."""
    torch.testing.assert_close(sampling_weights(LOGPS, OLD, MASK, mode=mode, largest=1.5), torch.tensor(expected))


def test_weighted_objective_by_hand() -> None:
    """The surrogate's ratio is 1, and the weights 1, 1.5, 1 and 1/2 multiply the advantages: (3.5 - .5) / 2."""
    config = objective(importance_sampling="token_truncate", importance_sampling_max=1.5)
    assert float(policy_loss(LOGPS, OLD, ADVANTAGES, MASK, COUNTS, config)) == pytest.approx(-1.5, abs=1e-6)


def test_kl_by_hand() -> None:
    """d = log 2: 2 - log 2 - 1; equal policies: 0. On one of four tokens with beta 0.5, over two completions."""
    ref = OLD.clone()
    ref[0, 0] += math.log(2)
    k3 = 1 - math.log(2)
    assert kl_k3(OLD, ref)[0].tolist() == pytest.approx([k3, 0.0, 0.0], abs=1e-6)
    without = policy_loss(OLD, OLD, ADVANTAGES, MASK, COUNTS, objective())
    with_kl = policy_loss(OLD, OLD, ADVANTAGES, MASK, COUNTS, objective(beta=0.5), ref)
    assert float(with_kl - without) == pytest.approx(0.5 * k3 / 2, abs=1e-6)


def test_pathwise_loss_by_hand() -> None:
    """Sequence ratios: 1 x 2 x 1 = 2 and 1/2. -(2 x 0.5 + 0.5 x 1.0) / (2 x 0.25) = -3."""
    rewards = torch.tensor([0.5, 1.0], requires_grad=True)
    loss = pathwise_loss(rewards, LOGPS, OLD, MASK, COUNTS, objective(), scale=0.25)
    assert float(loss.detach()) == pytest.approx(-3.0)
    loss.backward()
    torch.testing.assert_close(rewards.grad, torch.tensor([-4.0, -1.0]))


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        # 1.5 and 1/2 in place of 2 and 1/2; -(1.5 x 0.5 + 0.5 x 1.0) / (2 x 0.25) = -2.5.
        ("sequence_truncate", -2.5),
        ("token_truncate", -2.5),
        # Without the first: -0.5 / 0.5.
        ("sequence_mask", -1.0),
        ("token_mask", -1.0),
    ],
)
def test_pathwise_weights_are_limited(mode: str, expected: float) -> None:
    """The sequence ratios are 2 and 1/2, the limit 1.5: boxes have the weight of their completion, whatever the text's have."""
    limited = objective(importance_sampling=mode, importance_sampling_max=1.5)
    loss = pathwise_loss(torch.tensor([0.5, 1.0]), LOGPS, OLD, MASK, COUNTS, limited, scale=0.25)
    assert float(loss) == pytest.approx(expected)


def test_metrics_by_hand() -> None:
    """|log 2| on two of four tokens."""
    metrics = policy_metrics(LOGPS, OLD, torch.ones_like(LOGPS), MASK)
    assert metrics["mismatch/mean"] == pytest.approx(math.log(2) / 2)
    assert metrics["mismatch/max"] == pytest.approx(math.log(2))
    assert metrics["policy/entropy"] == 1.0


def test_without_tokens_there_are_no_metrics_of_them() -> None:
    assert policy_metrics(LOGPS, OLD, torch.ones_like(LOGPS), torch.zeros_like(MASK)) == {}
