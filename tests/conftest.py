"""Small real things, made once a session: rendered videos, a tiny Qwen3-VL, a checkpoint, its export, a vLLM engine."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
from configs.run import quiet_environment
from launchers.ray_cluster import LOOPBACK_ONLY

quiet_environment()
os.environ |= LOOPBACK_ONLY

import hypothesis
import pytest
import torch
from runs import rft_run_config, run, sft_config, write_config
from tiny import GROUNDED, Tiny

from configs.data import DataConfig
from configs.model import BridgeConfig, InterleavedConfig, ModelConfig
from configs.rft import RFTConfig, RolloutConfig
from configs.run import RunConfig
from configs.sources import SyntheticSource
from configs.video import VideoConfig
from data.dataset import PromptEncoder
from data.sources import synthetic
from model.build import build_model, load_checkpoint, save_checkpoint
from model.grounding_model import GroundingModel
from model.tiny_backbone import make_tiny_backbone

# The same examples in every run: a failure is a change's, not a draw's.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> SyntheticSource:
    """12 training and 6 test videos of 4 s, 4 frames a second."""
    config = SyntheticSource(
        root=str(tmp_path_factory.mktemp("videos")),
        num_videos={"train": 12, "test": 6},
        num_objects=(1, 2),
        size_px=64,
        fps=4.0,
        duration_sec=4.0,
        min_interval_sec=1.0,
        max_interval_sec=3.0,
    )
    synthetic.render(config, num_processes=1)
    return config


@pytest.fixture(scope="session")
def backbone(source: SyntheticSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen3-VL checkpoint folder."""
    folder = tmp_path_factory.mktemp("backbone")
    make_tiny_backbone(synthetic.load(source, "train").samples, folder)
    return folder


@pytest.fixture(scope="session")
def bridge_config() -> BridgeConfig:
    """A small `bridge` grounder."""
    return BridgeConfig(num_queries=4, width=64, num_layers=2, num_heads=4, ffn_width=128)


@pytest.fixture(scope="session")
def tiny_of(
    source: SyntheticSource, backbone: Path, bridge_config: BridgeConfig, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Tiny]:
    """For each grounder a random checkpoint, saved and loaded."""
    data = DataConfig(
        source=source, video=VideoConfig(sample_fps=4.0), tasks=dict.fromkeys(["stvg", "temporal", "rec", "qa"], 1.0)
    )
    config = ModelConfig(
        backbone=str(backbone), dtype="float32", bridge=bridge_config, interleaved=InterleavedConfig(mlp_width=64),
        freeze_vision=False,
    )  # fmt: skip
    return {
        name: _tiny(config.model_copy(update={"grounder": name}), data, tmp_path_factory.mktemp(f"checkpoint_{name}"))
        for name in GROUNDED
    }


def _tiny(config: ModelConfig, data: DataConfig, folder: Path) -> Tiny:
    torch.manual_seed(0)
    model, processor = build_model(config, data)
    if config.grounder == "bridge":
        # Not at their zero start, so that boxes depend on inputs.
        for head in model.grounder.decoder.box_heads:
            torch.nn.init.normal_(head[-1].weight, std=0.5)
    save_checkpoint(model, processor, folder)
    loaded, processor = load_checkpoint(folder, dtype="float32")
    samples = synthetic.load(data.source, "train").samples
    encoder = PromptEncoder(processor, data, answer_format=loaded.grounder.answer_format)
    return Tiny(folder, data, samples, loaded, processor, encoder)


@pytest.fixture(scope="session")
def tiny(tiny_of: dict[str, Tiny]) -> Tiny:
    """That of the default grounder."""
    return tiny_of["bridge"]


@pytest.fixture()
def model(tiny: Tiny) -> GroundingModel:
    """A copy of the model that a test may change."""
    return load_checkpoint(tiny.folder, dtype="float32")[0]


@pytest.fixture(scope="session")
def exported(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The checkpoint's export."""
    from scripts.export import export

    folder = tmp_path_factory.mktemp("export") / "bridge"
    export(tiny.folder, folder)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def rft_config(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> RFTConfig:
    """GRPO on the tiny checkpoint."""
    return RFTConfig(
        run=RunConfig(out=str(tmp_path_factory.mktemp("rft")), wandb="disabled"),
        checkpoint=str(tiny.folder),
        data=tiny.data.model_copy(update={"tasks": {"stvg": 1.0}}),
        rollout=RolloutConfig(
            prompts_per_step=2, num_generations=4, max_completion_length=16, max_model_len=1024, kv_cache_gib=0.25
        ),
        dtype="float32",
        freeze_vision=False,
        max_steps=2,
    )


@pytest.fixture(scope="session")
def engine(exported: Path, rft_config: RFTConfig) -> Iterator[Any]:
    """A real vLLM engine, in an actor on a real one-node Ray cluster, serving the MLLM part of the export."""
    import ray

    from launchers.ray_cluster import cluster
    from rft.engine_actor import start_engine
    from rft.rollout import EngineClient

    with cluster(rft_config.ray):
        actor = start_engine(str(exported / "mllm"), rft_config)
        client = EngineClient(actor, timeout_sec=300.0)
        client.wait_until_ready()
        yield client
        ray.kill(actor)


@pytest.fixture(scope="session")
def sft_run(tiny: Tiny, backbone: Path, bridge_config: BridgeConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted supervised run."""
    folder = tmp_path_factory.mktemp("sft")
    config = sft_config(tiny.data.model_dump(mode="json"), backbone, bridge_config, folder / "run")
    run("sft.train", "--config", str(write_config(folder, "sft.yaml", config)))
    return folder / "run"


@pytest.fixture(scope="session")
def rft_run(tiny: Tiny, sft_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted GRPO run."""
    folder = tmp_path_factory.mktemp("rft_run")
    config = rft_run_config(tiny.data.model_dump(mode="json"), sft_run / "checkpoint", folder / "run")
    run("rft.train", "--config", str(write_config(folder, "rft.yaml", config)))
    return folder / "run"
