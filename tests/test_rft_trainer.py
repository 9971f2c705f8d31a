"""Steps of a real trainer with a real vLLM engine: what a corrupted push or a NaN does, and which prompts a step draws."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from configs.checkpoints import CheckpointStore
from configs.rewards import RewardConfig
from configs.rft import PHASES, ObjectiveConfig, RFTConfig
from data.tubes import TubeBatch
from evaluation.vllm_engine import RolloutError
from rft.rollout import EngineClient
from rft.sampling import StepPrompts
from rft.step_metrics import NonFiniteStep
from rft.trainer import GRPOTrainer


class CorruptingClient(EngineClient):
    """Changes one tensor on its way to the engine."""

    tensor = "model.language_model.layers.1.mlp.down_proj.weight"

    def push(self, weights: dict[str, Tensor], *, version: int) -> None:
        """With noise as large as the tensor."""
        noise = torch.randn(weights[self.tensor].shape, generator=torch.Generator().manual_seed(0))
        corrupt = weights[self.tensor] + weights[self.tensor].std() * noise
        super().push(weights | {self.tensor: corrupt}, version=version)


def trainer_of(config: RFTConfig, engine: EngineClient, out: Path) -> tuple[GRPOTrainer, StepPrompts]:
    """With the engine's weights pushed, at step 0."""
    trainer = GRPOTrainer(config, engine, None, CheckpointStore(str(out), config.checkpoints), None)
    trainer.push(version=0)
    return trainer, StepPrompts(config, trainer.learner)


def test_a_corrupted_push_fails_the_step(engine: Any, rft_config: RFTConfig, tmp_path: Path) -> None:
    """One tensor of a hundred: the error names the step, the mean difference and the limit."""
    corrupting = CorruptingClient(engine._engine, timeout_sec=300.0)
    trainer, prompts = trainer_of(rft_config, corrupting, tmp_path)
    with pytest.raises(RolloutError, match=r"^step 0: log-probs of trainer and vLLM differ by") as caught:
        trainer.step(0, prompts)
    found = re.fullmatch(r".* by (\d+\.\d{4}) on average, limit 0.02", str(caught.value))
    assert found is not None and float(found[1]) > 0.02


def test_an_intact_push_does_not(engine: Any, rft_config: RFTConfig, tmp_path: Path) -> None:
    """And the step says where its time went."""
    trainer, prompts = trainer_of(rft_config, engine, tmp_path)
    trainer.seconds.clear()
    assert trainer.step(0, prompts)["mismatch/max"] < 1e-4
    metrics = trainer.seconds.metrics()
    spent = {phase for phase in PHASES if metrics[f"seconds/{phase}"] > 0}
    needed = {"encode", "rollout", "vision", "prompt", "completions", "decoder", "scoring", "reward", "backward"}
    assert needed | {"update", "push", "wait"} <= spent
    assert not spent & {"validate", "signal", "reference"}


def test_a_step_draws_prompts_in_place_of_those_without_signal(
    engine: Any, rft_config: RFTConfig, sft_run: Path, tmp_path: Path
) -> None:
    """After a little supervised training some groups have signal. The same weights and step: the same draws."""
    config = rft_config.model_copy(
        update={
            "checkpoint": str(sft_run / "checkpoint"),
            "rollout": rft_config.rollout.model_copy(update={"max_resamples": 2, "prompts_per_step": 4}),
            "objective": ObjectiveConfig(decoder_update="supervised", zero_variance="drop"),
        }
    )
    trainer, prompts = trainer_of(config, engine, tmp_path)
    (rolled, signal, counted), (again, _, _) = (trainer.sampler.step(0, prompts) for _ in range(2))
    ids = [one.sample.sample_id for one in rolled]
    assert ids == [one.sample.sample_id for one in again] and len(set(ids)) == 4
    assert signal is not None and signal == trainer.sampler.signal(rolled) == sorted(signal, reverse=True)
    assert 4 <= counted["rollout/prompts"] <= 12 and (all(signal) or counted["rollout/prompts"] > 4)
    metrics = trainer.step(0, prompts)
    assert metrics["reward/no_signal_groups"] == pytest.approx(1 - sum(signal) / 4)


def nan_for_one(tubes: TubeBatch) -> Tensor:
    """A reward term with a mistake: 0 / 0 for the first answer."""
    values_B = torch.ones(len(tubes.parsed_B))
    values_B[tubes.parsed_B.nonzero()[0, 0]] = torch.nan
    return values_B


def test_a_nan_reward_ends_the_step_before_anything_is_updated(
    engine: Any, rft_config: RFTConfig, sft_run: Path, tmp_path: Path
) -> None:
    """The error names the step and the term; weights, optimizer, scale and the engine are those of before."""
    rewards = RewardConfig(own={f"{__name__}:nan_for_one": 0.1})
    config = rft_config.model_copy(update={"checkpoint": str(sft_run / "checkpoint"), "rewards": rewards})
    trainer, prompts = trainer_of(config, engine, tmp_path)
    before = {name: tensor.clone() for name, tensor in trainer.learner.unwrapped.state_dict().items()}
    with pytest.raises(NonFiniteStep, match=r"^step 0: expected a finite gradient, its norm is nan; ") as caught:
        trainer.step(0, prompts)
    for name in (f"reward/{__name__}:nan_for_one", "reward/total", "loss/policy", "loss/pathwise"):
        assert f"{name}=nan" in str(caught.value)
    assert "reward/format=" not in str(caught.value) and "mismatch" not in str(caught.value)
    after = trainer.learner.unwrapped.state_dict()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    assert trainer.learner.optimizer.state_dict()["state"] == {} and trainer.running_std.values == {}
    with pytest.raises(Exception, match="asked for weights of version 1, the engine has version 0"):
        trainer.sampler.roll(1, prompts.of_step(1))
