"""What a GRPO step is told by: counts, rewards within groups, lengths. Of the main rank's own completions."""

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from configs.rft import RFTConfig
from evaluation.vllm_engine import Rollout, RolloutError
from rewards.composer import RewardBreakdown
from rft.objective import StepCounts

Groups = Sequence[Sequence[Rollout]]


class PhaseSeconds:
    """How long each phase of a step took."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)

    @contextlib.contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Add the duration of a phase."""
        start = time.perf_counter()
        yield
        self._seconds[phase] += time.perf_counter() - start

    def clear(self) -> None:
        """Begin a step."""
        self._seconds.clear()

    def metrics(self) -> dict[str, float]:
        """Seconds of this step by phase."""
        return {f"seconds/{phase}": round(value, 4) for phase, value in self._seconds.items()}


def combine(collected: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Micro-batches of a step -> the step: losses add up, maxima are maxima, the rest are means."""

    def one(name: str, values: Sequence[float]) -> float:
        if name.startswith("loss/"):
            return float(np.sum(values))
        return float(np.max(values) if name.endswith("/max") else np.mean(values))

    return {name: one(name, values) for name, values in collected.items()}


def reward_metrics(rewards: RewardBreakdown, num_generations: int) -> dict[str, float]:
    """Mean of each term, its standard deviation within groups, and the share of groups that teach nothing."""
    total_PG = rewards.total_B.detach().reshape(-1, num_generations)
    metrics = {"reward/total": float(total_PG.mean()), "reward/total_group_std": float(total_PG.std(dim=1).mean())}
    metrics["reward/zero_std_groups"] = float((total_PG.std(dim=1) < 1e-6).float().mean())
    for name, values_B in zip(rewards.names, rewards.terms_BK.detach().unbind(dim=1), strict=True):
        values_PG = values_B.reshape(-1, num_generations)
        metrics[f"reward/{name}"] = float(values_PG.mean())
        metrics[f"reward/{name}_group_std"] = float(values_PG.std(dim=1).mean())
    return metrics


def step_counts(groups: Groups, config: RFTConfig, mean_over_ranks: Callable[[float], float]) -> StepCounts:
    """Completions and tokens of the whole step. mean_over_ranks: every rank must call."""
    rollouts = [rollout for group in groups for rollout in group]
    trained = [r for r in rollouts if not (config.objective.mask_truncated_completions and r.is_truncated)]
    num_tokens = sum(len(rollout.completion_ids) for rollout in trained)
    return StepCounts(
        num_completions=len(rollouts),
        num_tokens=num_tokens,
        num_tokens_mean=mean_over_ranks(num_tokens),
        max_completion_length=config.rollout.max_completion_length,
    )


def completion_metrics(groups: Groups) -> dict[str, float]:
    """Lengths in tokens and the share that was cut off."""
    rollouts = [rollout for group in groups for rollout in group]
    return {
        "completion/mean_length": float(np.mean([len(rollout.completion_ids) for rollout in rollouts])),
        "completion/truncated": float(np.mean([rollout.is_truncated for rollout in rollouts])),
    }


def check_mismatch(mean: float, limit: float, step: int) -> None:
    """Raise RolloutError where trainer and engine disagree on the log-probs of the engine's own samples."""
    if not mean <= limit:
        raise RolloutError(f"step {step}: log-probs of trainer and vLLM differ by {mean:.4f} on average, limit {limit}")
