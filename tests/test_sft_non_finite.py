"""Supervised training ends where a loss is not finite, before anything is saved."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from runs import sft_config, write_config
from tiny import Tiny
from transformers import TrainerControl, TrainerState, TrainingArguments

from configs.model import BridgeConfig
from configs.run import ROOT
from sft.errors import NonFiniteLoss
from sft.trainer import MetricsCallback


def test_a_run_whose_weights_explode_ends_with_the_step_and_its_terms(
    tiny: Tiny, backbone: Path, bridge_config: BridgeConfig, tmp_path: Path
) -> None:
    config = sft_config(tiny.data.model_dump(mode="json"), backbone, bridge_config, tmp_path / "run")
    config["optim"] = {"warmup_steps": 0, "learning_rate": 1e30, "grounder_learning_rate": 1e30}
    config["run"]["log_every"] = 1
    config["checkpoints"] = {"every_steps": 1}
    config["max_steps"] = 20
    path = write_config(tmp_path, "sft.yaml", config)
    command = [sys.executable, "-m", "sft.train", "--config", str(path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert result.returncode != 0
    assert "step 1: expected finite losses, got" in result.stderr and "loss/total=nan" in result.stderr
    saved = [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()]
    assert saved == ["step-00000001"]  # whose loss was still finite


def test_only_what_is_not_finite_is_named(tmp_path: Path) -> None:
    """Of two micro-batches one has a NaN; the validation is looked at too."""
    metrics = MetricsCallback(None)
    told = (TrainingArguments(output_dir=str(tmp_path)), TrainerState(global_step=7), TrainerControl())
    metrics.record({"text": torch.tensor(1.0), "box_l1": torch.tensor(2.0)})
    metrics.on_pre_optimizer_step(*told)
    metrics.record({"text": torch.tensor(1.0), "box_l1": torch.tensor(float("nan"))})
    with pytest.raises(NonFiniteLoss, match=r"step 7: expected finite losses, got loss/box_l1=nan$"):
        metrics.on_pre_optimizer_step(*told)
    with pytest.raises(NonFiniteLoss, match="step 7: expected a finite validation loss, got inf"):
        metrics.on_evaluate(*told, metrics={"eval_loss": float("inf")})
