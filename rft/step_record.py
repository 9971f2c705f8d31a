"""What the micro-batches of a step leave behind: rewards of all completions, and metrics of the whole step.

Shapes: N completions of a rank's step, K reward terms.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from configs.rft import RFTConfig
from rewards.composer import RewardBreakdown
from rewards.tasks import metrics_by_task
from rft.step import RolloutBatch

TOKEN_MEANS = ("mismatch/mean", "policy/entropy", "policy/kl")
"""What is a mean over tokens; over completions otherwise."""


class StepRecord:
    """What the micro-batches of a step leave behind, in the order in which they were computed.

    Means of the step are over its completions or its tokens, however it was cut.
    """

    def __init__(self, config: RFTConfig) -> None:
        self.config = config
        self._tasks: list[str] = []
        self._terms: list[Tensor] = []
        self._rewards: list[Tensor] = []
        self._parts: list[tuple[dict[str, float], int, int]] = []

    def add(self, batch: RolloutBatch, rewards: RewardBreakdown, metrics: dict[str, float]) -> None:
        """One micro-batch."""
        total_B = rewards.total_B.detach()
        self._tasks += [sample.task for sample in batch.samples]
        self._terms.append(rewards.terms_BK.detach())
        self._rewards.append(torch.stack([total_B, batch.task_numbers_B.to(total_B)], dim=1))
        self._parts.append((metrics, len(batch.samples), int(batch.mask_BL.sum())))

    @property
    def rewards_N2(self) -> Tensor:
        """The composed reward of every completion, and its task as a position in TASKS."""
        return torch.cat(self._rewards)

    def metrics(self, terms: Sequence[str]) -> dict[str, float]:
        """Of the step: losses add up, maxima are maxima, the rest are means; and each task's rewards, where it has several.

        terms: names of the reward terms.
        """
        names = dict.fromkeys(name for metrics, _, _ in self._parts for name in metrics)
        earned, size = self.config.rewards.terms_by_task, self.config.rollout.num_generations
        by_task = metrics_by_task(terms, torch.cat(self._terms), self._tasks, earned, size)
        return {name: self._combined(name) for name in names} | by_task

    def _combined(self, name: str) -> float:
        parts = [part for part in self._parts if name in part[0]]
        values = [metrics[name] for metrics, _, _ in parts]
        if name.startswith("loss/"):
            return float(np.sum(values))
        if name.endswith("/max"):
            return float(np.max(values))
        weights = [tokens if name in TOKEN_MEANS else rows for _, rows, tokens in parts]
        return float(np.average(values, weights=weights))
