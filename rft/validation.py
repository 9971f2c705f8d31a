"""The reward of greedy answers to samples that are not trained on."""

from dataclasses import replace
from typing import Any

import torch

from configs.rft import RFTConfig
from data.mixture import draw_order, sample_groups
from data.sources import load_samples
from data.types import GroundingSample
from rewards.composer import RewardComposer
from rft.micro_batches import micro_batches, rewards_without_gradient
from rft.resampling import RolledOut
from rft.rollout import EngineClient
from rft.setup import Learner, sampling_args


def validation_samples(config: RFTConfig) -> list[GroundingSample]:
    """A fixed draw of the split; the same on every rank and at every step."""
    samples = load_samples(config.data, config.validation.split)
    total = min(config.validation.max_samples, len(samples))
    return [samples[i] for i in draw_order(sample_groups(samples, config.data), total=total, seed=0)]


def greedy_rewards(
    learner: Learner, engine: EngineClient, rewards: RewardComposer, config: RFTConfig, *, version: int
) -> dict[str, float]:
    """Means of the composed reward (`reward`) and its terms over answers at temperature 0; ranks share the samples."""
    accelerator = learner.accelerator
    mine = validation_samples(config)[accelerator.process_index :: accelerator.num_processes]
    greedy = replace(sampling_args(config, learner), num_generations=1, temperature=0.0)
    size = config.rollout.prompts_per_step  # as many videos at once as training has
    rows = [torch.zeros(1, 2 + len(rewards.names), device=accelerator.device)]  # a rank may have no sample
    for start in range(0, len(mine), size):
        samples = mine[start : start + size]
        prompts = [learner.encoder(sample) for sample in samples]
        groups = engine.generate(prompts, greedy, seeds=[0] * len(prompts), version=version)
        rolled = [RolledOut(*row) for row in zip(samples, prompts, groups, strict=True)]
        for _, batch in micro_batches(rolled, learner, config):
            scored, _ = rewards_without_gradient(batch, learner, rewards)
            ones_B1 = torch.ones_like(scored.total_B[:, None])
            rows.append(torch.cat([scored.total_B[:, None], scored.terms_BK, ones_B1], dim=1))
    sums: Any = accelerator.reduce(torch.cat(rows).sum(dim=0))
    *means, _ = (sums / sums[-1]).tolist()
    return {f"validation/{name}": mean for name, mean in zip(["reward", *rewards.names], means, strict=True)}
