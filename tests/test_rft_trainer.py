"""Steps of a real trainer with a real vLLM engine: what a bad push or a NaN does, what it is scaled by, which prompts it draws."""

import re
from pathlib import Path
from statistics import pstdev
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from configs.checkpoints import CheckpointStore
from configs.rewards import RewardConfig
from configs.rft import PHASES, ObjectiveConfig, RFTConfig, ValidationConfig
from data.tubes import TubeBatch
from evaluation.vllm_engine import RolloutError
from rewards.composer import RewardBreakdown, RewardComposer
from rft.rollout import EngineClient
from rft.sampling import StepPrompts, occurrences_before
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


class LosingClient(EngineClient):
    """Loses what is pushed after the first time: the engine gets the first weights again, under the new version."""

    def push(self, weights: dict[str, Tensor], *, version: int) -> None:
        """What the first push held."""
        if version == 0:
            self.first = {name: tensor.clone() for name, tensor in weights.items()}
        super().push(self.first, version=version)


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
    found = re.fullmatch(r".* by (\d\.\de[-+]\d\d) on average, limit 0.0001", str(caught.value))
    assert found is not None and float(found[1]) > 0.02


@pytest.mark.parametrize("learning_rate", [1e-4, 1e-5])
def test_a_lost_push_fails_the_step_after_it(
    learning_rate: float, engine: Any, rft_config: RFTConfig, sft_run: Path, tmp_path: Path
) -> None:
    """One update, and the engine answers with the weights from before it."""
    optim = rft_config.optim.model_copy(update={"learning_rate": learning_rate})
    config = rft_config.model_copy(update={"checkpoint": str(sft_run / "checkpoint"), "optim": optim})
    trainer, prompts = trainer_of(config, LosingClient(engine._engine, timeout_sec=300.0), tmp_path)
    trainer.step(0, prompts)
    with pytest.raises(RolloutError, match=r"^step 1: log-probs of trainer and vLLM differ by .* limit 0.0001$"):
        trainer.step(1, prompts)


@pytest.mark.parametrize(
    ("dtype", "asked", "limit"), [("float32", None, 1e-4), ("bfloat16", None, 0.02), ("float32", 0.5, 0.5)]
)
def test_the_limit_follows_the_precision(dtype: str, asked: float | None, limit: float, rft_config: RFTConfig) -> None:
    rollout = rft_config.rollout.model_copy(update={"max_logprob_mismatch": asked})
    assert rft_config.model_copy(update={"dtype": dtype, "rollout": rollout}).logprob_mismatch_limit == limit


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


class Remembering(RewardComposer):
    """Keeps the rewards that it gave."""

    def __call__(self, tubes: TubeBatch) -> RewardBreakdown:
        """Of a micro-batch."""
        self.given = [*getattr(self, "given", []), super().__call__(tubes)]
        return self.given[-1]


def test_a_step_is_scaled_by_the_rewards_before_it(
    engine: Any, rft_config: RFTConfig, sft_run: Path, tmp_path: Path
) -> None:
    """Step 0 divides by the initial .5, step 1 by .9 * .5 + .1 * the standard deviation of all rewards of step 0."""
    config = rft_config.model_copy(
        update={"checkpoint": str(sft_run / "checkpoint"), "prompts_per_micro_batch": 1, "max_steps": 3}
    )
    trainer, prompts = trainer_of(config, engine, tmp_path)
    trainer.rewards = Remembering(config.rewards)
    assert trainer.step(0, prompts)["policy/scale"] == 0.5
    rewards = torch.cat([given.total_B.detach() for given in trainer.rewards.given]).tolist()
    assert len(rewards) == 8 and pstdev(rewards) > 0.01
    assert trainer.step(1, prompts)["policy/scale"] == pytest.approx(0.9 * 0.5 + 0.1 * pstdev(rewards), rel=1e-6)


def test_validation_forwards_a_micro_batch_of_videos(
    engine: Any, rft_config: RFTConfig, sft_run: Path, tmp_path: Path
) -> None:
    """Five samples in cuts of 2 and 1 and all at once: the same rewards."""
    validation = ValidationConfig(every_steps=1, split="test", max_samples=5)
    config = rft_config.model_copy(update={"checkpoint": str(sft_run / "checkpoint"), "validation": validation})
    trainer, _ = trainer_of(config, engine, tmp_path)
    videos: list[int] = []
    trainer.learner.unwrapped.register_forward_pre_hook(
        lambda module, args, kwargs: videos.append(len(kwargs["grid_thw"])), with_kwargs=True
    )
    found = []
    for prompts_per_step, prompts_per_micro_batch, expected in ((3, 2, [2, 1, 2]), (8, 1, [1] * 5), (8, 8, [5])):
        rollout = config.rollout.model_copy(update={"prompts_per_step": prompts_per_step})
        cut = {"rollout": rollout, "prompts_per_micro_batch": prompts_per_micro_batch}
        trainer.config = config.model_copy(update=cut)
        found.append(trainer.validate(version=0))
        assert videos == expected
        videos.clear()
    assert found[0] == pytest.approx(found[2], abs=1e-6) and found[1] == pytest.approx(found[2], abs=1e-6)
    assert found[0]["validation/format"] > 0


def test_a_sample_that_comes_twice_is_answered_anew(engine: Any, rft_config: RFTConfig, tmp_path: Path) -> None:
    """An epoch ends within the step. The first time it has the completions that it has alone."""
    trainer, _ = trainer_of(rft_config, engine, tmp_path)
    total = len(StepPrompts(rft_config, trainer.learner).samples)
    config = rft_config.model_copy(
        update={"rollout": rft_config.rollout.model_copy(update={"prompts_per_step": total + 1}), "max_steps": 1}
    )
    prompts = StepPrompts(config, trainer.learner)
    *first, again = prompts.of_step(0)
    once = next(place for place, sample in enumerate(first) if sample is again)
    assert prompts.times_before(0) == [0] * total + [1]
    both, (alone,) = trainer.sampler.roll(0, [again, again], [0, 1]), trainer.sampler.roll(0, [first[once]])
    ids = [[rollout.completion_ids for rollout in one.group] for one in (*both, alone)]
    assert ids[0] == ids[2] and ids[0] != ids[1]


def test_occurrences_before_by_hand() -> None:
    assert occurrences_before(np.array([7, 3, 7, 7, 3])).tolist() == [0, 0, 1, 2, 1]


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
