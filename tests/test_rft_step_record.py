"""What is logged of a step, by hand: each mean over what it is a mean of, however many groups a micro-batch has."""

import pytest
import torch
from rft_without_engine import accumulated, trainer_of, with_fields, written
from tiny import Tiny

from configs.rft import ObjectiveConfig, RFTConfig
from rewards.composer import RewardBreakdown
from rft.step import RolloutBatch
from rft.step_record import StepRecord


def rows_of(tiny: Tiny, num_tokens: list[int]) -> RolloutBatch:
    """Completions of so many tokens, two of a prompt."""
    mask_BL = torch.arange(max(num_tokens)) < torch.tensor(num_tokens)[:, None]
    nothing = torch.zeros(len(num_tokens), 1)
    return RolloutBatch(
        samples=tiny.of_task("stvg")[:1] * len(num_tokens), answers=[], inputs={"score_mask": mask_BL},
        old_logps_BL=nothing, frame_idx_BF=nothing, valid_BF=nothing, truncated_B=nothing, num_generations=2,
    )  # fmt: skip


@pytest.mark.parametrize("max_tokens", [None, 1000])
def test_a_mean_weighs_what_it_is_of(max_tokens: int | None, tiny: Tiny, rft_config: RFTConfig) -> None:
    """Eight completions of one token, then two of 16: (8 * 1 + 2 * 0) / 10 and (8 * 1 + 32 * 3) / 40; losses add up."""
    record = StepRecord(rft_config.model_copy(update={"max_tokens_per_micro_batch": max_tokens}))
    parts = [
        ([1] * 8, {"reward/total": 1.0, "policy/entropy": 1.0, "mismatch/max": 0.1, "loss/policy": 0.5}),
        ([16, 16], {"reward/total": 0.0, "policy/entropy": 3.0, "mismatch/max": 0.3, "loss/policy": 0.25}),
    ]
    for num_tokens, metrics in parts:
        ones_B = torch.ones(len(num_tokens))
        record.add(
            rows_of(tiny, num_tokens), RewardBreakdown(("viou",), ones_B[:, None], ones_B[:, None], ones_B), metrics
        )
    expected = {"reward/total": 0.8, "policy/entropy": 2.6, "mismatch/max": 0.3, "loss/policy": 0.75}
    assert record.metrics(["viou"]) == pytest.approx(expected)
    assert record.rewards_N2.shape == (10, 2)


def test_uneven_cuts_are_logged_as_the_whole(tiny: Tiny, rft_config: RFTConfig) -> None:
    """Five groups of answers of different lengths, four and one at a time and all at once."""
    rollout = rft_config.rollout.model_copy(update={"prompts_per_step": 5})
    config = with_fields(rft_config.model_copy(update={"rollout": rollout}), objective=ObjectiveConfig(beta=0.1))
    trainer = trainer_of(config)
    rolled = written(trainer, tiny.of_task("stvg")[:5], [0, 20, 3, 21, 60])
    metrics = [
        accumulated(trainer, rolled, config.model_copy(update={"prompts_per_micro_batch": size}))[1].metrics(
            trainer.rewards.names
        )
        for size in (4, 5)
    ]
    assert metrics[0] == pytest.approx(metrics[1], rel=1e-6, abs=1e-6)
