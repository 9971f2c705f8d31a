"""Rollouts of a step -> the micro-batches that go through one forward each: whole groups at a time."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from configs.rft import RFTConfig
from data.collate import Batch
from data.dataset import model_inputs
from rewards.composer import RewardBreakdown, RewardComposer
from rft.resampling import RolledOut
from rft.setup import Learner
from rft.step import RolloutBatch, answered_tubes, make_batch


def micro_batches(
    rolled: Sequence[RolledOut], learner: Learner, config: RFTConfig, *, step: int | None = None
) -> Iterator[RolloutBatch]:
    """`prompts_per_micro_batch` groups at a time. step: draws the frames of supervised box losses; None: without them."""
    model, size = learner.unwrapped, config.prompts_per_micro_batch
    for start in range(0, len(rolled), size):
        part = rolled[start : start + size]
        yield make_batch(
            [one.sample for one in part],
            [one.prompt for one in part],
            [one.group for one in part],
            learner.processor,
            config,
            num_queries=model.num_queries,
            temporal_patch_size=model.temporal_patch_size,
            style=learner.encoder.style,
            rng=None if step is None else np.random.default_rng([config.run.seed, 2, step, start]),
        )


def inputs_of(batch: RolloutBatch, device: torch.device) -> Batch:
    """The forward's tensors, on the device."""
    return {name: tensor.to(device) for name, tensor in model_inputs(batch.inputs).items()}


def rewards_without_gradient(
    batch: RolloutBatch, learner: Learner, rewards: RewardComposer
) -> tuple[RewardBreakdown, Tensor]:
    """Rewards of the batch's completions, and the terms by group, [P, G, K]."""
    with torch.no_grad():
        scored = rewards(answered_tubes(batch, learner.unwrapped(**inputs_of(batch, learner.accelerator.device))))
    return scored, scored.terms_BK.unflatten(0, (-1, batch.num_generations))
