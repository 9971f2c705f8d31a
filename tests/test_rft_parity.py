"""Qwen2.5-VL on both sides of GRPO: a real vLLM engine has the trainer's log-probs, and where it has not, nothing is trained."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from tiny import Tiny
from tiny_qwen2_5_vl import make_tiny_qwen2_5_vl

from configs.checkpoints import CheckpointStore
from configs.model import BridgeConfig, ModelConfig
from configs.rft import RFTConfig
from data.dataset import PromptEncoder
from evaluation.vllm_engine import RolloutError
from launchers.ray_cluster import cluster
from model.build import build_model, save_checkpoint
from rft.engine_actor import start_engine
from rft.parity import check_parity
from rft.rollout import EngineClient
from rft.sampling import StepPrompts
from rft.trainer import GRPOTrainer

pytestmark = pytest.mark.slow  # an engine of its own: 40 s


@pytest.fixture(scope="module")
def config(tiny: Tiny, rft_config: RFTConfig, bridge_config: BridgeConfig, tmp_path_factory: Any) -> RFTConfig:
    """GRPO on a random Qwen2.5-VL with a grounder."""
    backbone, checkpoint = tmp_path_factory.mktemp("qwen2_5_vl"), tmp_path_factory.mktemp("checkpoint")
    make_tiny_qwen2_5_vl(tiny.samples, backbone)
    model_config = ModelConfig(backbone=str(backbone), dtype="float32", bridge=bridge_config, freeze_vision=False)
    save_checkpoint(*build_model(model_config, tiny.data), checkpoint)
    return rft_config.model_copy(update={"checkpoint": str(checkpoint)})


@pytest.fixture(scope="module")
def trainer(config: RFTConfig, tmp_path_factory: Any) -> Iterator[GRPOTrainer]:
    """At step 0, its weights pushed: under the names that the engine read."""
    with contextlib.nullcontext() if ray.is_initialized() else cluster(config.ray):
        actor = start_engine(str(Path(config.checkpoint) / "mllm"), config)
        client = EngineClient(actor, timeout_sec=300.0)
        store = CheckpointStore(str(tmp_path_factory.mktemp("run")), config.checkpoints)
        trainer = GRPOTrainer(config, client, None, store, None)
        client.wait_until_ready()
        trainer.push(version=0)
        yield trainer
        ray.kill(actor)


@pytest.mark.parametrize(("sample_fps", "patch_sec"), [(4.0, 0.5), (2.0, 1.0), (4 / 3, 1.5)])
def test_log_probs_equal_the_engines(
    trainer: GRPOTrainer, monkeypatch: pytest.MonkeyPatch, sample_fps: float, patch_sec: float
) -> None:
    """Two frames are a patch, and patches are 1, 2 and 3 positions apart: <= 1e-4."""
    video = trainer.config.data.video.model_copy(update={"sample_fps": sample_fps})
    data = trainer.config.data.model_copy(update={"video": video})
    monkeypatch.setattr(trainer.learner, "encoder", PromptEncoder(trainer.learner.processor, data))
    samples = StepPrompts(trainer.config, trainer.learner).of_step(0)
    assert {trainer.learner.encoder(sample).patch_sec for sample in samples} == {patch_sec}
    found = check_parity(trainer.sampler, samples, version=0)
    assert 0 < found["mismatch/max"] <= 1e-4


def test_transformers_own_positions_are_stopped(trainer: GRPOTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ours the error names the backbone, the difference and the limit; training asks before its first step."""
    inner = trainer.learner.unwrapped.mllm.model
    ours = inner.__dict__["get_rope_index"]
    monkeypatch.setattr(inner, "get_rope_index", type(inner).get_rope_index.__get__(inner))
    with pytest.raises(
        RolloutError, match=r"backbone qwen2_5_vl: log-probs of trainer and vLLM differ by .*, limit 0.0001:"
    ):
        trainer.train()
    assert trainer.learner.optimizer.state_dict()["state"] == {}
    monkeypatch.setattr(inner, "get_rope_index", ours)
    assert trainer.step(0, StepPrompts(trainer.config, trainer.learner))["mismatch/max"] <= 1e-4
