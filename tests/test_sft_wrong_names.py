"""A name in a config that means nothing is said at once, before torch is imported."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from runs import write_config

from configs.checkpoints import CheckpointError
from configs.lora import LoraConfig
from configs.run import ROOT
from configs.sft import SFTConfig
from configs.sources import SyntheticSource
from sft.train import check_and_read

WITHOUT_TORCH = """
import runpy, sys
try:
    runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
finally:
    assert "torch" not in sys.modules and "ray" not in sys.modules
"""


def tree_of(source: SyntheticSource, folder: Path) -> dict[str, Any]:
    return {
        "run": {"out": str(folder / "run"), "wandb": "disabled"},
        "data": {"source": source.model_dump(mode="json")},
        "validation": {"every_steps": 1, "split": "test"},
    }


def said_before_torch(module: str, *arguments: str) -> str:
    """What the module says when it ends with status 2."""
    command = [sys.executable, "-c", WITHOUT_TORCH, module, *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2 and "Traceback" not in result.stderr, result.stderr
    return result.stderr


@pytest.mark.parametrize("module", ["sft.train", "sft.ray_train"])
@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("model.grounder=brige", "model.grounder: expected one of bridge, interleaved, text; got 'brige'"),
        ("data.train_split=trian", "trian.jsonl: not rendered yet"),
        ("validation.split=vali", "vali.jsonl: not rendered yet"),
        ("checkpoint=typo", "checkpoint=typo: expected a checkpoint folder with mllm/ and config.json in it"),
        ("deepspeed=zero9.json", "deepspeed: no such file: zero9.json"),
        ("model.attention=flash_atention", "model.attention: Input should be 'sdpa', 'eager'"),
    ],
)
def test_a_wrong_name_is_an_error_before_torch(
    module: str, override: str, expected: str, source: SyntheticSource, tmp_path: Path
) -> None:
    path = write_config(tmp_path, "sft.yaml", tree_of(source, tmp_path))
    assert expected in said_before_torch(module, "--config", str(path), override)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("override", ["deepspeed=configs/deepspeed/zero2.json", "model.attention=flex"])
def test_a_wrong_split_does_not_wait_for_what_imports_torch(
    override: str, source: SyntheticSource, tmp_path: Path
) -> None:
    path = write_config(tmp_path, "sft.yaml", tree_of(source, tmp_path))
    said = said_before_torch("sft.train", "--config", str(path), override, "data.train_split=trian")
    assert "trian.jsonl: not rendered yet" in said


def test_a_run_that_goes_on_reads_its_own_checkpoint(source: SyntheticSource, tmp_path: Path) -> None:
    """The one that it began with may be gone by then; with LoRA its weights are read again."""
    (tmp_path / "run" / "checkpoints" / "step-00000001").mkdir(parents=True)
    config = SFTConfig.model_validate(tree_of(source, tmp_path) | {"checkpoint": "gone"})
    assert check_and_read(config).train
    with pytest.raises(CheckpointError, match=r"^checkpoint=gone: expected a checkpoint folder"):
        check_and_read(config.model_copy(update={"model": config.model.model_copy(update={"lora": LoraConfig()})}))
