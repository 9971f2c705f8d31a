"""Reward terms. Each maps a TubeBatch to [B] values in [0, 1], on its device, without a loop over samples.

A failed answer is worth 0 in every term; its extra price is `RewardConfig.parse_failure`. To add a term, write a
function, add a line to TERMS and a weight to configs/rewards.py.
"""

from collections.abc import Callable

from torch import Tensor

from data.tubes import TubeBatch


def format_reward(tubes: TubeBatch) -> Tensor:
    """1 where the answer follows the grammar (STVG-o1, 2511.21375, Eq. 3)."""
    return tubes.parsed_B.float()


def temporal_reward(tubes: TubeBatch) -> Tensor:
    """tIoU of the answered interval (STVG-o1, Eq. 5)."""
    return tubes.tiou()


def viou_reward(tubes: TubeBatch) -> Tensor:
    """The evaluator's own vIoU: over the union of frames, so that skipping frames does not pay."""
    return tubes.viou()


TERMS: dict[str, Callable[[TubeBatch], Tensor]] = {
    "format": format_reward,
    "temporal": temporal_reward,
    "viou": viou_reward,
}
