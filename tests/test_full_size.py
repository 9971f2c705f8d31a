"""A released checkpoint through the whole supervised path, by the entry points: load, a LoRA step, save, merge, export.

The 2B is the slow one: 4.3 GB of random weights in the released layout, bfloat16, in shards.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from released_checkpoint import write_2b
from runs import write_config
from safetensors import safe_open
from tiny import Tiny

from configs.lora import LoraConfig
from configs.model import ModelConfig
from configs.run import ROOT
from model.lora import ADAPTER_FILE

LAYER = "model.language_model.layers.1.self_attn.q_proj"
GIB = 2**30


def run_measured(*command: str) -> float:
    """Run a module to its end; the most memory that it had, in GiB."""
    process = subprocess.Popen([sys.executable, "-m", *command], cwd=ROOT)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return usage.ru_maxrss / 2**20


def sft_config(tiny: Tiny, backbone: Path, out: Path) -> dict:
    """One step on one answer about one video of two frames, with adapters on the queries' projection alone."""
    data = tiny.data.model_dump(mode="json")
    return {
        "run": {"out": str(out), "wandb": "disabled"},
        "data": data | {"tasks": {"stvg": 1.0}, "video": {"num_frames": 2, "max_pixels": 2 * 64 * 64}},
        "model": {
            "backbone": str(backbone),
            "bridge": {"num_queries": 2, "width": 32, "num_layers": 1, "num_heads": 2, "ffn_width": 32},
            "lora": {"r": 2, "lora_alpha": 4.0, "target_modules": ["q_proj"]},
            "frozen_dtype": "bfloat16",
        },
        "optim": {"warmup_steps": 0, "learning_rate": 1e-2},
        "max_steps": 1,
        "per_device_train_batch_size": 1,
    }


def tensors(folder: Path) -> dict[str, Path]:
    """Name of each stored tensor and its file."""
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as stored:
            found |= dict.fromkeys(stored.keys(), file)
    return found


def read(files: dict[str, Path], name: str) -> torch.Tensor:
    with safe_open(files[name], framework="pt") as stored:
        return stored.get_tensor(name)


@pytest.mark.parametrize(
    ("is_small", "shard_bytes", "most_gib"),
    [
        (True, 100_000, None),
        # Weights of 4.3 GB, which are mapped and then copied; 1.3 GiB are Python's libraries.
        pytest.param(False, GIB, 7.0, marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
    ],
)
def test_a_released_checkpoint_is_trained_merged_and_exported(
    tiny: Tiny, tmp_path: Path, is_small: bool, shard_bytes: int, most_gib: float | None
) -> None:
    """Names, shapes and bfloat16 stay those of the release; what was adapted is W + 2 B A, the rest is untouched."""
    backbone, out, export = (tmp_path / name for name in ("backbone", "run", "export"))
    shapes = write_2b(backbone, tiny.samples, is_small=is_small, shard_bytes=shard_bytes)
    assert len(list(backbone.glob("model-*.safetensors"))) > 3
    config = write_config(tmp_path, "sft.yaml", sft_config(tiny, backbone, out))
    trained_gib = run_measured("sft.train", "--config", str(config))
    run_measured("scripts.export", "--checkpoint", str(out / "checkpoint"), "--out", str(export))
    shutil.rmtree(out / "checkpoint" / "mllm")  # disk
    released, exported = tensors(backbone), tensors(export / "mllm")
    assert set(exported) == set(released) == set(shapes)
    for name, shape in shapes.items():
        before, after = read(released, name), read(exported, name)
        assert after.shape == shape and after.dtype == torch.bfloat16
        assert torch.equal(before, after) == (".q_proj." not in name), name
    adapter = tensors(out / "checkpoint")
    down, up = (read(adapter, f"mllm.{LAYER}.lora_{side}.default.weight") for side in "AB")
    assert down.dtype == up.dtype == torch.float32 and (out / "checkpoint" / ADAPTER_FILE).is_file()
    merged = (read(released, f"{LAYER}.weight").float() + 2 * up @ down).to(torch.bfloat16)
    assert torch.equal(read(exported, f"{LAYER}.weight"), merged)
    assert most_gib is None or 4.0 < trained_gib < most_gib


@pytest.mark.parametrize("changes", [{"dtype": "bfloat16"}, {"dtype": "float32", "lora": LoraConfig()}])
def test_only_frozen_weights_may_be_in_half_precision(changes: dict) -> None:
    with pytest.raises(ValidationError, match="frozen_dtype=bfloat16: needs lora and dtype=bfloat16"):
        ModelConfig(frozen_dtype="bfloat16", **changes)
