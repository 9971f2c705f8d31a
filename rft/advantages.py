"""Group-relative advantages and the scale that they are divided by.

Source: GRPO is DeepSeekMath (2402.03300), section 4.1; no division is Dr. GRPO (2503.20783); the batch's standard
deviation is Lite-PPO (2508.08221). The running one is ours: it changes slowly, so it can divide the pathwise term too
without flipping the sign of what a group teaches. Standard deviations are the sample's plus 1e-4, as in TRL 1.16.

Shapes: P prompts, G completions of each.
"""

from torch import Tensor

STD_EPS = 1e-4


def group_advantages(rewards_PG: Tensor, *, scale: Tensor) -> Tensor:
    """(r - mean of the group) / scale; scale is anything that broadcasts to [P, G]. Equal rewards teach nothing: 0."""
    # In float32 the mean of equal rewards can be one ulp off, and a small scale turns that into a signal.
    rewards_PG = rewards_PG.double()
    return ((rewards_PG - rewards_PG.mean(dim=1, keepdim=True)) / scale.double()).float()


def group_std(rewards_PG: Tensor) -> Tensor:
    """Sample standard deviation of each group + 1e-4, [P, 1]."""
    return rewards_PG.double().std(dim=1, keepdim=True) + STD_EPS


def batch_std(rewards_PG: Tensor) -> Tensor:
    """Sample standard deviation of all rewards + 1e-4, [1, 1]."""
    return rewards_PG.double().std().reshape(1, 1) + STD_EPS


class RunningStd:
    """An exponential average of the batch's standard deviation, with a floor; constant within a step."""

    def __init__(self, *, initial: float, decay: float, floor: float) -> None:
        self.value, self.decay, self.floor = initial, decay, floor

    @property
    def scale(self) -> float:
        """What this step divides by."""
        return max(self.value, self.floor)

    def update(self, rewards: Tensor) -> None:
        """Take in all rewards of a step, any shape, after it."""
        self.value = self.decay * self.value + (1 - self.decay) * float(rewards.double().std(correction=0))
