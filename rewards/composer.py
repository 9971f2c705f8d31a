"""All reward terms of a batch through one call: raw terms, and their weighted sum.

Shapes: B completions, K terms.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from configs.rewards import RewardConfig
from data.tubes import TubeBatch
from rewards.terms import TERMS


@dataclass(frozen=True)
class RewardBreakdown:
    """terms_BK: raw values in the order of `names`. total_B: what is maximised; differentiable in the boxes."""

    names: tuple[str, ...]
    terms_BK: Tensor
    total_B: Tensor


class RewardComposer:
    """Weights the terms of a config; a term of weight 0 is still computed and logged."""

    def __init__(self, config: RewardConfig) -> None:
        weights = config.weights.model_dump()
        self.names = tuple(weights)
        self.weights_K = torch.tensor(list(weights.values()))
        self.parse_failure = config.parse_failure

    def __call__(self, tubes: TubeBatch) -> RewardBreakdown:
        terms_BK = torch.stack([TERMS[name](tubes) for name in self.names], dim=1)
        failed_B = (~tubes.parsed_B).float()
        total_B = terms_BK @ self.weights_K.to(terms_BK.device) + self.parse_failure * failed_B
        return RewardBreakdown(self.names, terms_BK, total_B)

    @property
    def maximum(self) -> float:
        """The reward of a perfect answer."""
        return float(self.weights_K.sum())
