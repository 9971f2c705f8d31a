"""A step is the same however it is cut into micro-batches: its gradient, its losses and what is logged of it."""

import os
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from rft_without_engine import accumulated, largest_difference, trainer_of, with_fields, written
from runs import run
from tiny import Tiny

from configs.rft import ObjectiveConfig, RFTConfig
from configs.run import ROOT
from rft.group_cuts import padded_tokens, tokens_of_groups
from rft.micro_batches import micro_batches

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
    tokens_P2 = tokens_of_groups(rolled, trainer.learner.unwrapped.num_queries, is_shared=True)
    assert sorted(map(sorted, (part.tolist() for part in parts))) == [[0, 2, 4], [1], [3], [5]]
    assert max(padded_tokens(parts, tokens_P2)) <= 600


def test_batches_have_as_many_tokens_as_are_counted(tiny: Tiny, rft_config: RFTConfig) -> None:
    """A budget of rows that are computed whole: rows x longest row of the tensors themselves."""
    config = six_groups(rft_config, ObjectiveConfig(decoder_update="frozen"))
    config = config.model_copy(update={"gradient_checkpointing": True, "max_tokens_per_micro_batch": 2000})
    trainer = trainer_of(config)
    rolled = written(trainer, tiny.of_task("stvg")[:6], LENGTHS)
    batches = list(micro_batches(rolled, trainer.learner, config))
    tokens_P2 = tokens_of_groups(rolled, trainer.learner.unwrapped.num_queries, is_shared=False)
    counted = padded_tokens([np.array(positions) for positions, _ in batches], tokens_P2)
    assert [batch.inputs["input_ids"].numel() for _, batch in batches] == counted
    assert 1 < len(batches) < 6 and max(counted) <= 2000


def test_signal_is_found_in_the_order_of_the_groups(tiny: Tiny, rft_config: RFTConfig) -> None:
    """The longest is first among the micro-batches; the fourth group has four equal answers."""
    config = six_groups(rft_config, ObjectiveConfig(decoder_update="frozen", zero_variance="drop"))
    trainer = trainer_of(config.model_copy(update={"max_tokens_per_micro_batch": 600}))
    rolled = written(trainer, tiny.of_task("stvg")[:6], LENGTHS)
    rolled[3] = type(rolled[3])(rolled[3].sample, rolled[3].prompt, [rolled[3].group[0]] * 4)
    assert trainer.sampler.signal(rolled) == [True, True, True, False, True, True]


def test_a_standard_deviation_of_the_batch_needs_it_whole(rft_config: RFTConfig) -> None:
    objective = ObjectiveConfig(decoder_update="frozen", scale_rewards="batch")
    six_groups(rft_config, objective)
    with pytest.raises(ValidationError, match="and no max_tokens_per_micro_batch"):
        with_fields(rft_config, objective=objective, max_tokens_per_micro_batch=600)


@pytest.mark.slow
@pytest.mark.parametrize("decoder_update", ["pathwise", "supervised"])
def test_ranks_take_as_many_micro_batches(decoder_update: str, rft_config: RFTConfig, tmp_path: Path) -> None:
    """One rank would need two by itself and the other four; each backward is one for both, and the gradient stays."""
    config = with_fields(
        rft_config,
        objective=ObjectiveConfig(decoder_update=decoder_update),
        max_tokens_per_micro_batch=450,
        prompts_per_micro_batch=4,
    )
    (tmp_path / "config.json").write_text(config.model_dump_json())
    launch = ["--standalone", "--local-addr", "127.0.0.1", "--nproc_per_node", "2"]
    script = str(ROOT / "tests" / "rft_without_engine.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    output = run("torch.distributed.run", *launch, script, str(tmp_path / "config.json"), env=environment)
    ranks = [line.split() for line in output.splitlines() if line.startswith("largest_error")]
    assert sorted(words[5] for words in ranks) == ["2", "4"]
    assert [words[3] for words in ranks] == ["4", "4"]
    assert max(float(words[1]) for words in ranks) <= 1e-6
