"""Every entry point as a user runs it: two steps of SFT, evaluation, two steps of GRPO on Ray with vLLM, draw."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tiny import Tiny

from configs.model import BridgeConfig
from configs.run import ROOT

SFT_OVERRIDES = ["optim.warmup_steps=0", "optim.learning_rate=1e-3", "optim.grounder_learning_rate=1e-4"]


def run(module: str, *arguments: str, env: dict[str, str] | None = None) -> str:
    command = [sys.executable, "-m", module, *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400, env=env)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    return result.stdout + result.stderr


def metrics_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def data(tiny: Tiny) -> dict:
    return tiny.data.model_dump(mode="json")


@pytest.fixture(scope="module")
def sft(data: dict, backbone: Path, bridge_config: BridgeConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of two supervised steps, multi-task batches."""
    folder = tmp_path_factory.mktemp("sft")
    config = {
        "run": {"out": str(folder / "run"), "wandb": "disabled"},
        "data": data,
        "model": {
            "backbone": str(backbone),
            "dtype": "float32",
            "freeze_vision": False,
            "bridge": bridge_config.model_dump(mode="json"),
        },
        "max_steps": 2,
        "per_device_train_batch_size": 8,
    }
    (folder / "sft.yaml").write_text(yaml.safe_dump(config))
    run("sft.train", "--config", str(folder / "sft.yaml"), *SFT_OVERRIDES)
    return folder / "run"


def test_sft_writes_what_it_promises(sft: Path, backbone: Path) -> None:
    """Resolved config with the override, versions, metrics of every step, and a checkpoint that has moved."""
    assert yaml.safe_load((sft / "config.yaml").read_text())["optim"]["learning_rate"] == 1e-3
    assert "transformers" in json.loads((sft / "environment.json").read_text())["packages"]
    rows = metrics_of(sft)
    assert [row["step"] for row in rows] == [1, 2]
    names = {"loss/text", "loss/box_l1", "loss/box_giou", "loss/presence", "loss/alignment", "loss/contrast"}
    assert names <= set(rows[0]) and all(max(row[name] for row in rows) > 0 for name in names)
    before, after = (load_file(f / "model.safetensors") for f in (backbone, sft / "checkpoint" / "mllm"))
    assert before.keys() == after.keys()
    assert sum(not torch.equal(before[name], after[name]) for name in before) > 0.9 * len(before)


def test_sft_on_two_ranks_with_zero2(sft: Path, backbone: Path, tmp_path: Path) -> None:
    """torchrun, DeepSpeed ZeRO-2 on gloo: one process and two land in the same place, with both learning rates."""
    overrides = ["deepspeed=configs/deepspeed/zero2.json", f"run.out={tmp_path}/run", "per_device_train_batch_size=4"]
    overrides += SFT_OVERRIDES
    config = str(sft.parent / "sft.yaml")
    launch = ["--standalone", "--local-addr", "127.0.0.1", "--nproc_per_node", "2", "-m", "sft.train"]
    environment = os.environ | {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    run("torch.distributed.run", *launch, "--config", config, *overrides, env=environment)
    assert [row["step"] for row in metrics_of(tmp_path / "run")] == [1, 2]
    start = load_file(backbone / "model.safetensors")
    one, two = (load_file(f / "checkpoint" / "mllm" / "model.safetensors") for f in (sft, tmp_path / "run"))
    moved = sum(float((one[name] - start[name]).abs().sum()) for name in start)
    apart = sum(float((one[name] - two[name]).abs().sum()) for name in start)
    assert moved > 0 and apart < 0.2 * moved
    # Adam's first steps move a weight by about the learning rate: 1e-3 for the MLLM, 1e-4 for the grounder.
    one, two = (load_file(f / "checkpoint" / "grounder.safetensors") for f in (sft, tmp_path / "run"))
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 4.1e-4


def test_evaluation(sft: Path, data: dict, tmp_path: Path) -> None:
    """Predictions for every sample, with all controls in the report."""
    config = {
        "checkpoint": str(sft / "checkpoint"),
        "out": str(tmp_path / "eval"),
        "data": {"source": data["source"]},
        "dtype": "float32",
        "max_completion_length": 16,
        "num_resamples": 100,
    }
    (tmp_path / "evaluate.yaml").write_text(yaml.safe_dump(config))
    run("evaluation.run", "--config", str(tmp_path / "evaluate.yaml"))
    metrics = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    count = len((tmp_path / "eval" / "predictions.jsonl").read_text().splitlines())
    assert metrics["right_query"]["n"] == metrics["wrong_query"]["n"] == metrics["constant"]["n"] == count > 0
    assert len(metrics["failures"]) == count - round(metrics["right_query"]["parse_rate"] * count)
    report = (tmp_path / "eval" / "report.md").read_text()
    assert all(row in report for row in ("right query", "wrong query", "best constant", "right - wrong"))
    run("evaluation.draw", "--annotations", f"{data['source']['root']}/test.jsonl", "--predictions",
        str(tmp_path / "eval" / "predictions.jsonl"), "--out", str(tmp_path / "drawn"))  # fmt: skip
    assert len(list((tmp_path / "drawn").glob("*.mp4"))) == 1


def test_grpo(data: dict, sft: Path, tmp_path: Path) -> None:
    """Ray, a vLLM engine, two steps: versions advance, trainer and engine agree after each push, weights move."""
    config = {
        "run": {"out": str(tmp_path / "run"), "wandb": "disabled"},
        "checkpoint": str(sft / "checkpoint"),
        "data": data | {"tasks": {"stvg": 1.0}},
        "rollout": {
            "prompts_per_step": 4,
            "num_generations": 4,
            "max_completion_length": 16,
            "max_model_len": 1024,
            "kv_cache_gib": 0.25,
        },
        "objective": {"decoder_update": "supervised"},
        "optim": {"learning_rate": 1e-3, "grounder_learning_rate": 1e-3, "warmup_steps": 0},
        "prompts_per_micro_batch": 2,
        "freeze_vision": False,
        "dtype": "float32",
        "max_steps": 2,
    }
    (tmp_path / "rft.yaml").write_text(yaml.safe_dump(config))
    run("rft.train", "--config", str(tmp_path / "rft.yaml"))
    rows = metrics_of(tmp_path / "run")
    assert [row["step"] for row in rows] == [0, 1]
    # The second step samples from pushed weights.
    assert all(row["mismatch/max"] < 1e-4 for row in rows)
    assert {"reward/format", "reward/temporal", "reward/viou", "reward/viou_group_std", "seconds/push"} <= set(rows[0])
    assert rows[0]["loss/supervised"] > 0
    before, after = (load_file(f / "checkpoint" / "grounder.safetensors") for f in (sft, tmp_path / "run"))
    assert any(not torch.equal(before[name], after[name]) for name in before)
    before, after = (load_file(f / "checkpoint" / "mllm" / "model.safetensors") for f in (sft, tmp_path / "run"))
    assert any(not torch.equal(before[name], after[name]) for name in before)
