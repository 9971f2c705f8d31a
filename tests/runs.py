"""Small runs of the entry points, in processes of their own, as a user starts them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import yaml

from configs.model import BridgeConfig
from configs.run import ROOT, read_metrics

# Enough for the answers to have their form, so that some of GRPO's are worth more than others.
SFT_STEPS, RFT_STEPS = 48, 6


def run(module: str, *arguments: str, env: dict[str, str] | None = None) -> str:
    """Run a module to its end; its output."""
    command = [sys.executable, "-m", module, *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400, env=env)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    return result.stdout + result.stderr


def write_config(folder: Path, name: str, config: dict[str, Any]) -> Path:
    """The config as YAML."""
    path = folder / name
    path.write_text(yaml.safe_dump(config))
    return path


def sft_config(data: dict[str, Any], backbone: Path, bridge: BridgeConfig, out: Path) -> dict[str, Any]:
    """A few supervised steps on multi-task batches, with a validation and checkpoints."""
    return {
        "run": {"out": str(out), "wandb": "disabled"},
        "data": data | {"tasks": {"stvg": 0.7, "temporal": 0.1, "rec": 0.1, "qa": 0.1}},
        "model": {
            "backbone": str(backbone),
            "dtype": "float32",
            "freeze_vision": False,
            "bridge": bridge.model_dump(mode="json"),
        },
        "optim": {"warmup_steps": 0, "learning_rate": 2e-3, "grounder_learning_rate": 2e-4},
        "checkpoints": {"every_steps": 10},
        "validation": {"every_steps": 10, "split": "test", "max_samples": 8},
        "max_steps": SFT_STEPS,
        "per_device_train_batch_size": 8,
    }


def rft_run_config(data: dict[str, Any], checkpoint: Path, out: Path) -> dict[str, Any]:
    """A few GRPO steps on Ray with vLLM, with a validation and checkpoints."""
    return {
        "run": {"out": str(out), "wandb": "disabled"},
        "checkpoint": str(checkpoint),
        "data": data | {"tasks": {"stvg": 1.0}},
        "rollout": {
            "prompts_per_step": 4,
            "num_generations": 4,
            "max_completion_length": 16,
            "max_model_len": 1024,
            "kv_cache_gib": 0.25,
        },
        "objective": {"decoder_update": "supervised"},
        "optim": {"learning_rate": 1e-4, "grounder_learning_rate": 1e-3, "warmup_steps": 0},
        "checkpoints": {"every_steps": 2},
        "validation": {"every_steps": 2, "split": "test", "max_samples": 4},
        "prompts_per_micro_batch": 2,
        "ray": {"max_failures": 1},
        "freeze_vision": False,
        "dtype": "float32",
        "max_steps": RFT_STEPS,
    }


def finished_steps(out: Path) -> int:
    """Steps that metrics.jsonl tells of."""
    return max((row["step"] for row in read_metrics(out / "metrics.jsonl")), default=0)


def start(module: str, config: Path, log: Path) -> psutil.Popen:
    """The module in a process group of its own."""
    with log.open("ab") as stream:
        return psutil.Popen(
            [sys.executable, "-m", module, "--config", str(config)],
            cwd=ROOT, stdout=stream, stderr=stream, start_new_session=True,
        )  # fmt: skip


def wait_for(condition: Callable[[], bool], process: psutil.Popen, *, timeout_sec: float = 240.0) -> None:
    """Until the condition holds or the process has ended."""
    deadline = time.monotonic() + timeout_sec
    while process.poll() is None and not condition():
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.02)


def kill(process: psutil.Popen) -> None:
    """SIGKILL to the process; what it had started gets 20 s to notice, and is then killed too."""
    children = process.children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    for child in alive:
        child.kill()
    psutil.wait_procs(alive, timeout=10)


def rows_of(out: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what a clock says."""
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "time" and not k.startswith(("seconds/", "share/"))} for row in rows]
