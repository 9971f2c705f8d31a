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

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from configs.rft import ObjectiveConfig


@dataclass(frozen=True)
class StepCounts:
    """Of the whole step, over all micro-batches of a rank; tokens are those that the loss is about."""

    num_completions: float
    """A whole number, unless groups are dropped: then the mean over ranks of those that are left."""
    num_tokens: int
    num_tokens_mean: float
    """Mean of num_tokens over all ranks: DDP averages gradients, so a sum over it is a mean over everyone's tokens."""
    max_completion_length: int
    num_drawn: int | None = None
    """Completions with those of dropped groups, which the decoder's term keeps; None: the same as num_completions."""
    targets: Mapping[str, Tensor] | None = None
    """What each supervised loss is a mean over (model/criterion.py: `target_counts`); None: the means of micro-batches,
    weighed by their rows."""


def _cut_off(weights: Tensor, largest: float) -> Tensor:
    return weights.clamp(max=largest)


def _zeroed(weights: Tensor, largest: float) -> Tensor:
    return weights.masked_fill(weights > largest, 0.0)


CORRECTIONS: dict[str, tuple[str, Callable[[Tensor, float], Tensor]]] = {
    "token_truncate": ("token", _cut_off),
    "token_mask": ("token", _zeroed),
    "sequence_truncate": ("sequence", _cut_off),
    "sequence_mask": ("sequence", _zeroed),
}
"""What a mode of `importance_sampling` weighs, and what becomes of a weight beyond the largest."""


def policy_loss(
    logps_BL: Tensor,
    old_logps_BL: Tensor,
    advantages_B: Tensor,
    mask_BL: Tensor,
    counts: StepCounts,
    objective: ObjectiveConfig,
    ref_logps_BL: Tensor | None = None,
) -> Tensor:
    """The clipped surrogate (PPO, 1707.06347, Eq. 7, on group advantages), normalised by `loss_type`.

    old_logps_BL: as sampled, by vLLM. ref_logps_BL: of the reference policy, where beta > 0.

    Sources: `grpo` 2402.03300 Eq. 3 and its KL Eq. 4; `dapo` 2503.14476 Eq. 8; `cispo` 2506.13585 Eq. 4; sequence ratio
    2507.18071 Eq. 7; `bnpo`, `dr_grpo` and the weights of importance sampling as in TRL 1.16. `sum` does not divide by length.
    """
    correction = objective.importance_sampling
    behaviour_BL = old_logps_BL if correction == "ratio" else logps_BL.detach()
    ratio_BL = _ratio(logps_BL - behaviour_BL, mask_BL, objective.importance_sampling_level)
    advantage_B1 = advantages_B[:, None]
    if objective.loss_type == "cispo":
        gain_BL = ratio_BL.clamp(max=objective.epsilon_high).detach() * advantage_B1 * logps_BL
    else:
        clipped_BL = ratio_BL.clamp(1 - objective.epsilon, 1 + objective.epsilon_high)
        gain_BL = torch.minimum(ratio_BL * advantage_B1, clipped_BL * advantage_B1)
    if correction != "ratio":
        gain_BL = gain_BL * sampling_weights(
            logps_BL, old_logps_BL, mask_BL, mode=correction, largest=objective.importance_sampling_max
        )
    if ref_logps_BL is not None:
        kl_BL = kl_k3(logps_BL, ref_logps_BL)
        gain_BL = gain_BL - objective.beta * (kl_BL * ratio_BL if objective.use_bias_correction_kl else kl_BL)
    gain_BL = torch.where(mask_BL, gain_BL.expand_as(logps_BL), 0.0)
    return -_normalised(gain_BL, mask_BL, counts, objective.loss_type)


def _ratio(log_ratio_BL: Tensor, mask_BL: Tensor, level: str) -> Tensor:
    """Of each token, [B, L], or the geometric mean of each completion, [B, 1]."""
    if level == "token":
        return torch.exp(log_ratio_BL)
    total_B1 = torch.where(mask_BL, log_ratio_BL, 0.0).sum(dim=1, keepdim=True)
    return torch.exp(total_B1 / mask_BL.sum(dim=1, keepdim=True).clamp(min=1))


def _normalised(gain_BL: Tensor, mask_BL: Tensor, counts: StepCounts, loss_type: str) -> Tensor:
    gain_B = gain_BL.sum(dim=1)
    if loss_type == "grpo":
        return (gain_B / mask_BL.sum(dim=1).clamp(min=1)).sum() / counts.num_completions
    divisor = {
        "sum": counts.num_completions,
        "bnpo": max(counts.num_tokens, 1),
        "dapo": max(counts.num_tokens_mean, 1.0),
        "cispo": max(counts.num_tokens_mean, 1.0),
        "dr_grpo": counts.num_completions * counts.max_completion_length,
    }[loss_type]
    return gain_B.sum() / divisor


def sampling_weights(logps_BL: Tensor, old_logps_BL: Tensor, mask_BL: Tensor, *, mode: str, largest: float) -> Tensor:
    """Importance weights trainer / vLLM, detached: [B, L] of tokens, [B, 1] of sequences.

    `*_truncate`: at most `largest` (truncated importance sampling); `*_mask`: 0 beyond it.
    """
    level, limited = CORRECTIONS[mode]
    log_ratio_BL = torch.where(mask_BL, (logps_BL - old_logps_BL).detach(), 0.0)
    return limited((log_ratio_BL.sum(dim=1, keepdim=True) if level == "sequence" else log_ratio_BL).exp(), largest)


def kl_k3(logps_BL: Tensor, ref_logps_BL: Tensor) -> Tensor:
    """exp(d) - d - 1 with d = log ref - log policy: an unbiased, non-negative estimate (GRPO, 2402.03300, Eq. 4)."""
    difference_BL = ref_logps_BL - logps_BL
    return difference_BL.exp() - difference_BL - 1


def pathwise_loss(
    rewards_B: Tensor,
    logps_BL: Tensor,
    old_logps_BL: Tensor,
    mask_BL: Tensor,
    counts: StepCounts,
    objective: ObjectiveConfig,
    *,
    scale: float,
) -> Tensor:
    """-1 / (N s) sum_i w_i R_i(b): rewards_B carry the gradient of the boxes, w_i is the detached sequence ratio.

    `importance_sampling` other than `ratio` limits it as it does the text's weights. The boxes of a completion have one weight,
    so a `token_*` mode limits the completion's.
    """
    log_ratio_B = torch.where(mask_BL, logps_BL - old_logps_BL, 0.0).sum(dim=1)
    weights_B = log_ratio_B.detach().exp()
    if objective.importance_sampling != "ratio":
        _, limited = CORRECTIONS[objective.importance_sampling]
        weights_B = limited(weights_B, objective.importance_sampling_max)
    return -(weights_B * rewards_B).sum() / (counts.num_completions * scale)


def policy_metrics(logps_BL: Tensor, old_logps_BL: Tensor, entropies_BL: Tensor, mask_BL: Tensor) -> dict[str, float]:
    """Disagreement of trainer and engine, and entropy, over the sampled tokens; nothing where there are none."""
    mask_BL = mask_BL.bool()
    if not mask_BL.any():
        return {}
    difference = (logps_BL - old_logps_BL).detach()[mask_BL].abs()
    return {
        "mismatch/mean": float(difference.mean()),
        "mismatch/max": float(difference.max()),
        "policy/entropy": float(entropies_BL.detach()[mask_BL].mean()),
    }
