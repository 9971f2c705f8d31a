"""A step is the same however it is cut into micro-batches: its gradient, its losses and what is logged of it."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from rft_without_engine import accumulated, largest_difference, trainer_of, with_fields, written
from runs import run
from tiny import Tiny

from configs.rft import ObjectiveConfig, RFTConfig
from configs.run import ROOT
from rft.group_cuts import padded_tokens, tokens_of_groups
from rft.micro_batches import micro_batches, rewards_without_gradient

LENGTHS = [0, 20, 3, 21, 1, 60]
"""Words more in a question and its longest answer. Tokens of the prompt and of four rows: 105 + 84 to 221 + 316."""


def six_groups(config: RFTConfig, objective: ObjectiveConfig) -> RFTConfig:
    rollout = config.rollout.model_copy(update={"prompts_per_step": 6})
    return with_fields(config.model_copy(update={"rollout": rollout}), objective=objective)


OBJECTIVES = {
    "pathwise": ObjectiveConfig(),
    "supervised": ObjectiveConfig(decoder_update="supervised"),
    "dapo, group, dropped": ObjectiveConfig(
        decoder_update="frozen", loss_type="dapo", scale_rewards="group", zero_variance="drop"
    ),
    "grpo, kl": ObjectiveConfig(decoder_update="frozen", loss_type="grpo", beta=0.1),
}


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_a_step_cut_by_tokens_is_that_of_one_micro_batch(
    objective: ObjectiveConfig, tiny: Tiny, rft_config: RFTConfig
) -> None:
    """At 600 tokens the three longest are alone and the others together: every group once."""
    config = six_groups(rft_config, objective)
    trainer = trainer_of(config)
    rolled = written(trainer, tiny.of_task("stvg")[:6], LENGTHS)
    signal = [True, False, True, True, True, True] if objective.zero_variance == "drop" else None
    whole, whole_record = accumulated(trainer, rolled, config, signal)
    by_tokens = config.model_copy(update={"max_tokens_per_micro_batch": 600})
    cut, cut_record = accumulated(trainer, rolled, by_tokens, signal)
    assert largest_difference(cut, whole) <= 1e-6
    metrics, expected = (record.metrics(trainer.rewards.names) for record in (cut_record, whole_record))
    assert metrics == pytest.approx(expected, rel=1e-6, abs=1e-6)
    parts = [np.array(positions) for positions, _ in micro_batches(rolled, trainer.learner, by_tokens)]
    tokens_P2 = tokens_of_groups(rolled, trainer.learner.unwrapped.num_queries)
    assert sorted(map(sorted, (part.tolist() for part in parts))) == [[0, 2, 4], [1], [3], [5]]
    assert max(padded_tokens(parts, tokens_P2)) <= 600


@pytest.mark.parametrize("gradient_checkpointing", [False, True], ids=["cached", "packed"])
def test_the_llm_reads_as_many_tokens_as_are_counted(
    gradient_checkpointing: bool, tiny: Tiny, rft_config: RFTConfig
) -> None:
    """Padding included, in one pass or in one of prompts and one of what follows them."""
    config = six_groups(rft_config, ObjectiveConfig(decoder_update="frozen")).model_copy(
        update={"gradient_checkpointing": gradient_checkpointing, "max_tokens_per_micro_batch": 900}
    )
    trainer = trainer_of(config)
    rolled = written(trainer, tiny.of_task("stvg")[:6], LENGTHS)
    batches = list(micro_batches(rolled, trainer.learner, config))
    tokens_P2 = tokens_of_groups(rolled, trainer.learner.unwrapped.num_queries)
    counted = padded_tokens([np.array(positions) for positions, _ in batches], tokens_P2)
    read: list[int] = []
    trainer.learner.unwrapped.mllm.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(kwargs["inputs_embeds"][..., 0].numel()), with_kwargs=True
    )
    for _, batch in batches:
        rewards_without_gradient(batch, trainer.learner, trainer.rewards)
    passes = 1 if gradient_checkpointing else 2
    assert [sum(read[i : i + passes]) for i in range(0, len(read), passes)] == counted
    assert len(batches) == 3 and max(counted) <= 900


def test_signal_is_found_in_the_order_of_the_groups(tiny: Tiny, rft_config: RFTConfig) -> None:
    """The longest is first among the micro-batches; the fourth group has four equal answers."""
    config = six_groups(rft_config, ObjectiveConfig(decoder_update="frozen", zero_variance="drop"))
    trainer = trainer_of(config.model_copy(update={"max_tokens_per_micro_batch": 600}))
    rolled = written(trainer, tiny.of_task("stvg")[:6], LENGTHS)
    rolled[3] = type(rolled[3])(rolled[3].sample, rolled[3].prompt, [rolled[3].group[0]] * 4)
    assert trainer.sampler.signal(rolled) == [True, True, True, False, True, True]


def test_groups_are_masked_by_the_signal_that_was_found(tiny: Tiny, rft_config: RFTConfig) -> None:
    """And not by one that is looked for again, in another rounding: the rewards of every group differ here, one is kept."""
    config = six_groups(rft_config, ObjectiveConfig(decoder_update="frozen", zero_variance="drop"))
    trainer = trainer_of(config)
    rolled = written(trainer, tiny.of_task("stvg")[:6], LENGTHS)
    signal = [position == 3 for position in range(6)]
    by_tokens = config.model_copy(update={"max_tokens_per_micro_batch": 600})
    found, record = accumulated(trainer, rolled, by_tokens, signal)
    assert record.metrics(trainer.rewards.names)["reward/no_signal_groups"] == pytest.approx(5 / 6)
    alone, _ = accumulated(trainer, rolled[3:4], config, [True])
    assert largest_difference(found, alone) <= 1e-6


def test_a_standard_deviation_of_the_batch_needs_it_whole(rft_config: RFTConfig) -> None:
    objective = ObjectiveConfig(decoder_update="frozen", scale_rewards="batch")
    six_groups(rft_config, objective)
    with pytest.raises(ValidationError, match="and no max_tokens_per_micro_batch"):
        with_fields(rft_config, objective=objective, max_tokens_per_micro_batch=600)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "kept"),
    [
        (ObjectiveConfig(), [4, 4]),
        (ObjectiveConfig(decoder_update="supervised"), [4, 4]),
        (ObjectiveConfig(decoder_update="frozen", zero_variance="drop"), [3, 1]),
    ],
    ids=["pathwise", "supervised", "dropped"],
)
def test_two_ranks(objective: ObjectiveConfig, kept: list[int], rft_config: RFTConfig, tmp_path: Path) -> None:
    """One would need two micro-batches by itself and the other four: each backward is one for both, so both take four.

    Their gradient is that of all eight groups on one rank, where three groups of one and one of the other are kept too;
    but not that of supervised boxes, each of which is a mean over its rank's own targets.
    """
    config = with_fields(rft_config, objective=objective, max_tokens_per_micro_batch=450, prompts_per_micro_batch=4)
    ranks = sorted(on_two_ranks(config, tmp_path), key=lambda found: found["alone"])
    assert [found["alone"] for found in ranks] == [2, 4]
    assert [found["micro_batches"] for found in ranks] == [4, 4]
    assert [found["kept"] for found in ranks] == kept
    assert max(found["cut_error"] for found in ranks) <= 1e-6
    if objective.decoder_update != "supervised":
        assert max(found["one_rank_error"] for found in ranks) <= 1e-6


@pytest.mark.slow
def test_two_ranks_divide_by_the_standard_deviation_of_both(rft_config: RFTConfig, tmp_path: Path) -> None:
    """That of the 16 rewards of one is not that of all 32: their gradient is that of all eight groups on one rank."""
    objective = ObjectiveConfig(decoder_update="frozen", scale_rewards="batch")
    ranks = on_two_ranks(with_fields(rft_config, objective=objective, prompts_per_micro_batch=4), tmp_path)
    assert [found["kept"] for found in ranks] == [4, 4]
    assert max(found["one_rank_error"] for found in ranks) <= 1e-6


def on_two_ranks(config: RFTConfig, folder: Path) -> list[dict[str, Any]]:
    """What each rank of tests/rft_without_engine.py has found."""
    path = folder / "config.json"
    path.write_text(config.model_dump_json())
    launch = ["--standalone", "--local-addr", "127.0.0.1", "--nproc_per_node", "2"]
    script = str(ROOT / "tests" / "rft_without_engine.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    output = run("torch.distributed.run", *launch, script, str(path), env=environment)
    return [json.loads(line.removeprefix("rank ")) for line in output.splitlines() if line.startswith("rank ")]
