"""The GRPO objective for a grounder with a decoder: pure functions.

For prompt x, text y ~ pi(.|x) and boxes b(x, y), J = E_y[R(y, b(x, y))] has the gradient

    E_y[ grad log pi(y|x) A(y) ]   +   E_y[ dR/db  db/dtheta ]
    score-function term: the text      pathwise term: decoder, queries and what feeds them

The systems whose code we read drop the second term (their decoder is frozen or absent). With a shared scale s:

    L = -1 / (N s) sum_i [ sum_t rho_it (R_i - mean of the group) + w_i R_i(b) ]

The mean of a group includes completion i itself, as in GRPO: that scales the first term by (G - 1) / G.

Losses are sums divided by counts of the whole step, so that the losses of its micro-batches add up.

Shapes: B completions, L tokens.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

LossType = Literal["sum", "grpo", "bnpo", "dr_grpo"]


@dataclass(frozen=True)
class StepCounts:
    """Of the whole step, over all micro-batches of a rank."""

    num_completions: int
    num_tokens: int
    max_completion_length: int


def policy_loss(
    logps_BL: Tensor,
    old_logps_BL: Tensor,
    advantages_B: Tensor,
    mask_BL: Tensor,
    counts: StepCounts,
    *,
    loss_type: LossType,
    epsilon: float,
    epsilon_high: float,
) -> Tensor:
    """The clipped surrogate (PPO, 1707.06347, Eq. 7, on group advantages), normalised by `loss_type`.

    Normalisations: `grpo` 2402.03300 Eq. 3; `bnpo` and `dr_grpo` as in TRL 1.16; `sum` does not divide by length.
    """
    ratio_BL = torch.exp(logps_BL - old_logps_BL)
    clipped_BL = ratio_BL.clamp(1 - epsilon, 1 + epsilon_high)
    advantage_B1 = advantages_B[:, None]
    gain_BL = torch.minimum(ratio_BL * advantage_B1, clipped_BL * advantage_B1)
    gain_B = torch.where(mask_BL, gain_BL, 0.0).sum(dim=1)
    if loss_type == "grpo":
        return -(gain_B / mask_BL.sum(dim=1).clamp(min=1)).sum() / counts.num_completions
    divisor = {
        "sum": counts.num_completions,
        "bnpo": max(counts.num_tokens, 1),
        "dr_grpo": counts.num_completions * counts.max_completion_length,
    }[loss_type]
    return -gain_B.sum() / divisor


def pathwise_loss(
    rewards_B: Tensor, logps_BL: Tensor, old_logps_BL: Tensor, mask_BL: Tensor, counts: StepCounts, *, scale: float
) -> Tensor:
    """-1 / (N s) sum_i w_i R_i(b): rewards_B carry the gradient of the boxes, w_i is the detached sequence ratio."""
    log_ratio_B = torch.where(mask_BL, logps_BL - old_logps_BL, 0.0).sum(dim=1)
    weights_B = log_ratio_B.detach().exp()
    return -(weights_B * rewards_B).sum() / (counts.num_completions * scale)


def policy_metrics(logps_BL: Tensor, old_logps_BL: Tensor, entropies_BL: Tensor, mask_BL: Tensor) -> dict[str, float]:
    """Disagreement of trainer and engine, and entropy, over the sampled tokens."""
    mask_BL = mask_BL.bool()
    difference = (logps_BL - old_logps_BL).detach()[mask_BL].abs()
    return {
        "mismatch/mean": float(difference.mean()),
        "mismatch/max": float(difference.max()),
        "policy/entropy": float(entropies_BL.detach()[mask_BL].mean()),
    }
