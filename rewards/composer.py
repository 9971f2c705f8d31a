"""All reward terms of a batch through one call: raw, as they are paid after gates, clips and weights, and their sum.

Shapes: B completions, K terms.
"""

from dataclasses import dataclass
from functools import partial
from pkgutil import resolve_name
from typing import cast

import torch
from torch import Tensor

from configs.base import ConfigError
from configs.rewards import WRITTEN_TERMS, RewardConfig
from data.tubes import TubeBatch
from rewards.stvg_o1 import both_spatial_reward, think_reward
from rewards.tasks import weigh_by_task, weights_of_rows
from rewards.terms import TERMS, RewardTerm


@dataclass(frozen=True)
class RewardBreakdown:
    """terms_BK: raw values in the order of `names`, 0 for failed answers. paid_BK: what each of them adds to the total, after
    its clip and gate, with the weight that it has for the row's task; without gradient, 0 for failed answers. total_B: what is
    maximised; differentiable in the boxes.
    """

    names: tuple[str, ...]
    terms_BK: Tensor
    paid_BK: Tensor
    total_B: Tensor


class RewardComposer:
    """Weighs the terms of a config; a term of weight 0 is still computed and logged, unless it needs written boxes.

    Raises ConfigError for a term of one's own that cannot be imported.
    """

    def __init__(self, config: RewardConfig) -> None:
        self.config = config
        weights = _computed(config) | config.own
        self.terms = TERMS | _floored(config) | {name: _own_term(name) for name in config.own}
        self.names = tuple(weights)
        by_task = {"stvg": config.weights.model_dump()} | config.tasks
        self.weights_K = {
            task: torch.tensor([float((of_task | config.own).get(name, 0.0)) for name in self.names])
            for task, of_task in by_task.items()
        }

    def __call__(self, tubes: TubeBatch) -> RewardBreakdown:
        raw = {name: torch.where(tubes.parsed_B, self._values(name, tubes), 0.0) for name in self.names}
        shaped_BK = torch.stack([self._shaped(name, raw) for name in self.names], dim=1)
        total_B = weigh_by_task(shaped_BK, tubes.tasks, self.weights_K)
        # No clip and no term of one's own may pay for what is not an answer.
        total_B = torch.where(tubes.parsed_B, total_B, self.config.parse_failure)
        paid_BK = shaped_BK.detach() * weights_of_rows(tubes.tasks, self.weights_K, shaped_BK.device)
        paid_BK = torch.where(tubes.parsed_B[:, None], paid_BK, 0.0)
        return RewardBreakdown(self.names, torch.stack(list(raw.values()), dim=1), paid_BK, total_B)

    def _values(self, name: str, tubes: TubeBatch) -> Tensor:
        values_B = self.terms[name](tubes)
        if values_B.shape != tubes.parsed_B.shape:
            raise ValueError(f"reward {name}: expected {list(tubes.parsed_B.shape)} values, got {list(values_B.shape)}")
        return values_B

    def _shaped(self, name: str, raw: dict[str, Tensor]) -> Tensor:
        values_B = raw[name]
        if name in self.config.clips:
            values_B = values_B.clamp(*self.config.clips[name])  # type: ignore[index]
        if name in self.config.gates:
            values_B = values_B * raw[self.config.gates[name]]  # type: ignore[index]
        return values_B


def _computed(config: RewardConfig) -> dict[str, float]:
    """The terms with their weights for stvg: all but those of WRITTEN_TERMS that are not asked for, and those of other tasks."""
    weights = config.weights.model_dump()
    weights |= {term: 0.0 for terms in config.tasks.values() for term in terms if term not in weights}
    return {name: weight for name, weight in weights.items() if weight > 0 or name not in WRITTEN_TERMS}


def _floored(config: RewardConfig) -> dict[str, RewardTerm]:
    """STVG-o1's spatial terms with the config's floor."""
    if config.spatial_floor is None:
        return {}
    terms = {"both_spatial": both_spatial_reward, "think": think_reward}
    return {name: partial(term, floor=config.spatial_floor) for name, term in terms.items()}


def _own_term(name: str) -> RewardTerm:
    try:
        term = resolve_name(name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"rewards.own: {name} cannot be imported: {error}") from error
    if not callable(term):
        raise ConfigError(f"rewards.own: expected {name} to be a function of a TubeBatch, got {term!r}")
    return cast(RewardTerm, term)
