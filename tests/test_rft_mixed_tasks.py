"""A micro-batch of GRPO with all four tasks: what each group earns, what is logged of it, what it trains."""

import pytest
import torch
from test_rft_step import batch_of, step, with_objective
from tiny import Tiny

from configs.base import ConfigError, parse_config
from configs.rewards import RewardConfig
from configs.rft import RFTConfig
from data.dataset import model_inputs
from data.types import GroundingSample
from model.build import load_checkpoint
from rewards.composer import RewardComposer
from rewards.tasks import metrics_by_task
from rft.step import answered_tubes

TASKS = ("stvg", "temporal", "rec", "qa")
WEIGHTS = {
    "temporal": {"format": 0.1, "temporal": 1.0},
    "rec": {"format": 0.1, "viou": 1.0},
    "qa": {"format": 0.1, "choice": 1.0},
}


def mixed(config: RFTConfig, **objective: object) -> RFTConfig:
    rewards = RewardConfig.model_validate({"tasks": WEIGHTS})
    return with_objective(config, **objective).model_copy(update={"rewards": rewards})


def one_of_each(tiny: Tiny) -> list[GroundingSample]:
    return [tiny.of_task(task)[0] for task in TASKS]


@pytest.mark.parametrize("decoder_update", ["frozen", "supervised", "pathwise"])
def test_all_tasks_in_one_batch(decoder_update: str, tiny: Tiny, rft_config: RFTConfig) -> None:
    """Each group has the true answer and one that is none, so half of the answers are right.

    A true interval is tIoU 1, the true letter choice 1; the box of an image is the decoder's, somewhere.
    """
    model, _ = load_checkpoint(tiny.folder, dtype="float32")
    config = mixed(rft_config, decoder_update=decoder_update)
    batch = batch_of(tiny, one_of_each(tiny), config, texts=["what?"])
    assert batch.valid_BF[4].sum() == 1, "the one frame of the image"
    assert not batch.valid_BF[[2, 6]].any(), "no frame for an interval alone, or a letter"
    loss, _ = step(model, batch, config)
    loss.backward()
    assert torch.isfinite(loss) and model.mllm.lm_head.weight.grad.abs().any()
    rewards = RewardComposer(config.rewards)(answered_tubes(batch, model(**model_inputs(batch.inputs))))
    tasks = [sample.task for sample in batch.samples]
    metrics = metrics_by_task(rewards.names, rewards.terms_BK, tasks, config.rewards.terms_by_task, 2)
    assert metrics["reward/stvg/temporal"] == metrics["reward/temporal/temporal"] == pytest.approx(0.5, abs=1e-3)
    assert metrics["reward/qa/choice"] == 0.5
    assert metrics["reward/qa/choice_group_std"] == pytest.approx(0.5**0.5)
    assert 0 <= metrics["reward/rec/viou"] <= 0.5
    assert "reward/qa/viou" not in metrics and "reward/stvg/choice" not in metrics


def test_one_task_is_logged_as_ever(tiny: Tiny, rft_config: RFTConfig) -> None:
    model, _ = load_checkpoint(tiny.folder, dtype="float32")
    _, metrics = step(model, batch_of(tiny, one_of_each(tiny)[:1], rft_config), rft_config)
    assert not [name for name in metrics if name.startswith("reward/") and name.count("/") > 1]


def test_a_task_that_is_drawn_needs_rewards(rft_config: RFTConfig) -> None:
    tree = rft_config.model_dump(mode="json")
    tree["data"]["tasks"] = {"stvg": 1.0, "qa": 0.5, "rec": 0.0}
    with pytest.raises(
        ConfigError, match=r"rewards.tasks: expected weights for qa, .* such as qa: \{format: 0.1, choice: 1\}"
    ):
        parse_config(RFTConfig, tree, origin="test")
    tree["rewards"]["tasks"] = {"qa": {"choice": 1.0}}
    assert parse_config(RFTConfig, tree, origin="test").rewards.tasks == {"qa": {"choice": 1.0}}
