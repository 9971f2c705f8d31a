"""Group-relative advantages, the scale that they are divided by, and which groups have a signal at all.

Source: GRPO is DeepSeekMath (2402.03300), section 4.1; no division is Dr. GRPO (2503.20783); the batch's standard
deviation is Lite-PPO (2508.08221). Standard deviations of groups and batches are the sample's plus 1e-4, as in TRL 1.16.

A running standard deviation of each task is from OneThinker (2512.03043: EMA-GRPO), and departs from its code in three
ways. Theirs takes in a step's rewards before it divides them, with a decay of 0.99, and divides by the group's own wherever
an advantage would be above 5. Ours takes them in after the step, so the scale is a constant that no reward of the step moves,
and can divide the pathwise term too; its decay is 0.9; and instead of another divisor it has a floor.

Shapes: P prompts, G completions of each, K reward terms, N completions of all ranks.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from data.types import Task

TASKS: tuple[str, ...] = get_args(Task)
STD_EPS = 1e-4
SAME_REWARD = 1e-6
"""Rewards that differ by less are the same one, in another rounding."""


def group_advantages(rewards_PG: Tensor, *, scale: Tensor) -> Tensor:
    """(r - mean of the group) / scale; scale is anything that broadcasts to [P, G]. Equal rewards teach nothing: 0."""
    # In float32 the mean of equal rewards can be one ulp off, and a small scale turns that into a signal.
    rewards_PG = rewards_PG.double()
    return ((rewards_PG - rewards_PG.mean(dim=1, keepdim=True)) / scale.double()).float()


def group_std(rewards_PG: Tensor) -> Tensor:
    """Sample standard deviation of each group + 1e-4, [P, 1]."""
    return rewards_PG.double().std(dim=1, keepdim=True) + STD_EPS


def batch_std(rewards_N: Tensor) -> Tensor:
    """Sample standard deviation of the rewards of all ranks + 1e-4, [1, 1]."""
    return rewards_N.double().std().reshape(1, 1) + STD_EPS


def this_rank(values: Tensor) -> Tensor:
    """The values of all ranks, where there is one."""
    return values


def advantage_scale(
    rewards_PG: Tensor,
    tasks_P: Sequence[str],
    mode: Literal["running", "group", "batch", "none"],
    scale_of_task: Callable[[str], float],
    all_ranks: Callable[[Tensor], Tensor] = this_rank,
) -> Tensor:
    """What advantages are divided by under `scale_rewards=mode`; broadcasts to [P, G].

    scale_of_task: for `running`. all_ranks: for `batch`, whose standard deviation is of the rewards of every rank, as in TRL.
    """
    match mode:
        case "running":
            return rewards_PG.new_tensor([[scale_of_task(task)] for task in tasks_P])
        case "group":
            return group_std(rewards_PG)
        case "batch":
            return batch_std(all_ranks(rewards_PG.flatten()))
        case "none":
            return rewards_PG.new_ones(1, 1)


def has_signal(paid_PGK: Tensor, names: Sequence[str], outcome: Sequence[str]) -> Tensor:
    """Groups in which at least one outcome term pays two completions differently, [P] bool.

    paid_PGK: after clips, gates and the weights of the group's task (RewardBreakdown.paid_BK): what a clip cuts off, and what
    another task alone pays for, makes no advantage. DAPO (2503.14476, section 3.2) looks at the accuracy alone: a group whose
    answers are all as good, and differ in form only, teaches nothing about the task. A NaN is a signal: it is for the step to end
    with it, not for another group to take its place.
    """
    values_PGK = paid_PGK[..., [names.index(name) for name in outcome]]
    spread_PK = values_PGK.amax(dim=1) - values_PGK.amin(dim=1)
    return ~(spread_PK <= SAME_REWARD).all(dim=1)


class RunningStd:
    """For each task an exponential average of its rewards' standard deviation, with a floor; constant within a step.

    Tasks pay on scales of their own: one average over all would divide the rewards of one by the spread of another.
    """

    def __init__(self, *, initial: float, decay: float, floor: float) -> None:
        self.initial, self.decay, self.floor = initial, decay, floor
        self.values: dict[str, float] = {}

    def scale(self, task: str) -> float:
        """What the rewards of a task are divided by in this step."""
        return max(self.values.get(task, self.initial), self.floor)

    def update(self, rewards_by_task: Mapping[str, Tensor]) -> None:
        """Take in all rewards of a step after it, those of each task as a tensor of any shape."""
        for task, rewards in rewards_by_task.items():
            spread = float(rewards.double().std(correction=0))
            self.values[task] = self.decay * self.values.get(task, self.initial) + (1 - self.decay) * spread


def split_by_task(rewards_N: Tensor, task_numbers_N: Tensor) -> dict[str, Tensor]:
    """The rewards of each task that is there; task_numbers_N: positions in TASKS."""
    numbers = torch.unique(task_numbers_N).long().tolist()
    return {TASKS[number]: rewards_N[task_numbers_N == number] for number in numbers}
