"""What a GRPO step is told by: counts, rewards within groups, lengths. Of the main rank's own completions."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from configs.rft import RFTConfig
from evaluation.vllm_engine import Rollout, RolloutError
from rewards.composer import RewardBreakdown
from rft.advantages import SAME_REWARD
from rft.objective import StepCounts

Groups = Sequence[Sequence[Rollout]]


class NonFiniteStep(RuntimeError):
    """The gradient of a step is NaN or infinite: nothing was updated by it."""


def reward_metrics(rewards: RewardBreakdown, num_generations: int) -> dict[str, float]:
    """Mean of each term, its standard deviation within groups, and the share of groups that teach nothing."""
    total_PG = rewards.total_B.detach().reshape(-1, num_generations)
    metrics = {"reward/total": float(total_PG.mean()), "reward/total_group_std": float(total_PG.std(dim=1).mean())}
    metrics["reward/zero_std_groups"] = float((total_PG.std(dim=1) < SAME_REWARD).float().mean())
    for name, values_B in zip(rewards.names, rewards.terms_BK.detach().unbind(dim=1), strict=True):
        values_PG = values_B.reshape(-1, num_generations)
        metrics[f"reward/{name}"] = float(values_PG.mean())
        metrics[f"reward/{name}_group_std"] = float(values_PG.std(dim=1).mean())
    return metrics


def step_counts(
    groups: Groups,
    signal: Sequence[bool] | None,
    config: RFTConfig,
    mean_over_ranks: Callable[[float], float],
) -> StepCounts:
    """Completions and tokens of the whole step. mean_over_ranks: every rank must call.

    signal: which groups have one, where those without are dropped. Ranks may keep different numbers of groups: then the count
    is their mean, so that DDP's mean of gradients is one over everyone's completions.
    """
    num_drawn = sum(len(group) for group in groups)
    is_dropped = config.objective.zero_variance == "drop"
    if is_dropped:
        assert signal is not None
        groups = [group for group, is_kept in zip(groups, signal, strict=True) if is_kept]
    rollouts = [rollout for group in groups for rollout in group]
    trained = [r for r in rollouts if not (config.objective.mask_truncated_completions and r.is_truncated)]
    num_tokens = sum(len(rollout.completion_ids) for rollout in trained)
    return StepCounts(
        num_completions=max(mean_over_ranks(len(rollouts)), 1.0) if is_dropped else len(rollouts),
        num_tokens=num_tokens,
        num_tokens_mean=mean_over_ranks(num_tokens),
        max_completion_length=config.rollout.max_completion_length,
        num_drawn=num_drawn,
    )


def completion_metrics(groups: Groups) -> dict[str, float]:
    """Lengths in tokens and the share that was cut off."""
    rollouts = [rollout for group in groups for rollout in group]
    return {
        "completion/mean_length": float(np.mean([len(rollout.completion_ids) for rollout in rollouts])),
        "completion/truncated": float(np.mean([rollout.is_truncated for rollout in rollouts])),
    }


def check_mismatch(metrics: Mapping[str, float], limit: float, step: int) -> None:
    """Raise RolloutError where trainer and engine disagree on the log-probs of the engine's own samples, if there are any."""
    mean = metrics.get("mismatch/mean")
    if mean is not None and not mean <= limit:
        raise RolloutError(f"step {step}: log-probs of trainer and vLLM differ by {mean:.1e} on average, limit {limit}")


def check_finite(grad_norm: float, metrics: Mapping[str, float], step: int) -> None:
    """Raise NonFiniteStep where the gradient's norm is not finite, with the metrics of this rank that are not either.

    One NaN reward makes a whole group's advantages NaN, and clipping and AdamW would carry it into all weights. The norm is that
    of the gradient which all ranks share, so all of them raise; only those whose own completions are to blame name metrics.
    """
    if not math.isfinite(grad_norm):
        found = {name: value for name, value in metrics.items() if not math.isfinite(value)}
        listed = ", ".join(f"{name}={value}" for name, value in found.items()) or "none of this rank's metrics"
        raise NonFiniteStep(f"step {step}: expected a finite gradient, its norm is {grad_norm}; not finite: {listed}")
