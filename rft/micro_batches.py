"""Rollouts of a step -> the micro-batches that go through one forward each: whole groups at a time."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from configs.rft import RFTConfig
from data.collate import Batch
from data.dataset import model_inputs, training_frames
from model.criterion import target_counts
from rewards.composer import RewardBreakdown, RewardComposer
from rft.group_cuts import cut_groups, fewest_parts, tokens_of_groups
from rft.resampling import RolledOut
from rft.setup import Learner
from rft.step import RolloutBatch, answered_tubes, make_batch

Positions = list[int]
"""Of groups among the rollouts of a step."""


def micro_batches(
    rolled: Sequence[RolledOut], learner: Learner, config: RFTConfig, *, step: int | None = None
) -> Iterator[tuple[Positions, RolloutBatch]]:
    """Which groups, and their rows; each group once.

    step: that is trained on. Then the frames of supervised box losses are drawn, and every rank must call: all of them get
    as many micro-batches, since each backward is one for all of them under DDP. None: a forward of this rank alone.
    """
    model = learner.unwrapped
    frames = None if step is None else _supervised_frames(rolled, config, step)
    for positions in _parts(rolled, learner, config, is_alone=step is None):
        part = [rolled[position] for position in positions]
        yield (
            positions,
            make_batch(
                [one.sample for one in part],
                [one.prompt for one in part],
                [one.group for one in part],
                learner.processor,
                num_queries=model.num_queries,
                temporal_patch_size=model.temporal_patch_size,
                style=learner.encoder.style,
                supervised_frames=None if frames is None else [frames[position] for position in positions],
            ),
        )


def _parts(rolled: Sequence[RolledOut], learner: Learner, config: RFTConfig, *, is_alone: bool) -> list[Positions]:
    budget = config.max_tokens_per_micro_batch
    if budget is None:
        return _in_turn(len(rolled), config.prompts_per_micro_batch)
    tokens_P2 = tokens_of_groups(rolled, learner.unwrapped.num_queries)
    num_parts = fewest_parts(tokens_P2, budget)
    if not is_alone:
        num_parts = learner.largest_over_ranks(num_parts)
    return [part.tolist() for part in cut_groups(tokens_P2, budget, num_parts)]


def _in_turn(num_groups: int, size: int) -> list[Positions]:
    return [list(range(start, min(start + size, num_groups))) for start in range(0, num_groups, size)]


def _supervised_frames(rolled: Sequence[RolledOut], config: RFTConfig, step: int) -> list[np.ndarray] | None:
    """Those of each group, the same however the step is cut; None where the objective does not ask for them."""
    if config.objective.decoder_update != "supervised":
        return None
    frames: list[np.ndarray] = []
    for positions in _in_turn(len(rolled), config.prompts_per_micro_batch):
        rng = np.random.default_rng([config.run.seed, 2, step, positions[0]])
        frames += [training_frames(rolled[p].sample, rolled[p].prompt, config.frames, rng) for p in positions]
    return frames


def sum_of_targets(batches: Iterable[RolloutBatch]) -> dict[str, Tensor]:
    """What each supervised loss of the step is a mean over."""
    counted = [target_counts(batch.inputs) for batch in batches]
    return {name: torch.stack([counts[name] for counts in counted]).sum() for name in counted[0]}


def inputs_of(batch: RolloutBatch, device: torch.device) -> Batch:
    """The forward's tensors, on the device."""
    return {name: tensor.to(device) for name, tensor in model_inputs(batch.inputs).items()}


def rewards_without_gradient(
    batch: RolloutBatch, learner: Learner, rewards: RewardComposer
) -> tuple[RewardBreakdown, Tensor]:
    """Rewards of the batch's completions, and what each term pays by group, [P, G, K]."""
    with torch.no_grad():
        scored = rewards(answered_tubes(batch, learner.unwrapped(**inputs_of(batch, learner.accelerator.device))))
    return scored, scored.paid_BK.unflatten(0, (-1, batch.num_generations))
