"""Rollouts whose log-probs and rewards are given: `rollout_loss` without a model or a video.

Shapes: B completions, L tokens, G completions of each prompt.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from configs.data import DataConfig
from configs.rft import ObjectiveConfig, RFTConfig
from configs.run import RunConfig
from configs.sources import SyntheticSource
from data.answers import ParseFailure
from data.types import FrameSpan, GroundingSample, Task
from model.grounder import GrounderOutput
from model.grounding_model import GroundingOutput
from rewards.composer import RewardBreakdown
from rft.objective import StepCounts
from rft.step import RolloutBatch, rollout_loss

SAMPLES = {
    "stvg": GroundingSample("a", "stvg", "which", "a.mp4", 4.0, 8, 8, FrameSpan(0, 4)),
    "temporal": GroundingSample("b", "temporal", "when", "b.mp4", 4.0, 8, 8, FrameSpan(0, 4)),
}
NO_GROUNDING = GrounderOutput(torch.zeros(0, 0, 0, 4), torch.zeros(0, 0, 0))


def config_of(objective: ObjectiveConfig) -> RFTConfig:
    """A config with that objective, which is not validated again; nothing else of it is read."""
    data = DataConfig(source=SyntheticSource(root="none", num_videos={}))
    config = RFTConfig(run=RunConfig(out="none"), checkpoint="none", data=data)
    return config.model_copy(update={"objective": objective.model_copy(update={"outcome_terms": ["viou"]})})


def given_loss(
    logps_BL: Tensor,
    old_BL: Tensor,
    mask_BL: Tensor,
    rewards_B: Tensor,
    counts: StepCounts,
    objective: ObjectiveConfig,
    *,
    num_generations: int,
    scale_of_task: Callable[[str], float],
    tasks: Sequence[Task] = (),
    truncated: Sequence[bool] = (),
    **also: Any,
) -> tuple[Tensor, dict[str, float]]:
    """`rollout_loss` of one micro-batch of whole groups. tasks, truncated: of each row; stvg and complete where there are none.

    The reward has one term, viou, which has all of its value.
    """
    size = len(rewards_B)
    batch = RolloutBatch(
        samples=[SAMPLES[task] for task in tasks or ["stvg"] * size],
        answers=[ParseFailure("grammar", "")] * size,
        inputs={"score_mask": mask_BL},
        old_logps_BL=old_BL,
        frame_idx_BF=torch.zeros(size, 0),
        valid_BF=torch.zeros(size, 0, dtype=torch.bool),
        truncated_B=torch.tensor(truncated or [False] * size),
        num_generations=num_generations,
    )
    terms_BK = rewards_B.detach()[:, None]
    rewards = RewardBreakdown(names=("viou",), terms_BK=terms_BK, paid_BK=terms_BK, total_B=rewards_B)
    output = GroundingOutput(logps_BL, torch.zeros_like(logps_BL), NO_GROUNDING)
    return rollout_loss(batch, output, rewards, scale_of_task, counts, config_of(objective), **also)
