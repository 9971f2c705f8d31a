"""A name in a config that means nothing is said at once, before torch is imported."""

import subprocess
import sys
from pathlib import Path

import pytest
from runs import write_config

from configs.run import ROOT
from configs.sources import SyntheticSource

WITHOUT_TORCH = """
import runpy, sys
try:
    runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
finally:
    assert "torch" not in sys.modules and "ray" not in sys.modules
"""


@pytest.mark.parametrize("module", ["sft.train", "sft.ray_train"])
@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("model.grounder=brige", "model.grounder: expected one of bridge, interleaved, text; got 'brige'"),
        ("data.train_split=trian", "trian.jsonl: not rendered yet"),
        ("validation.split=vali", "vali.jsonl: not rendered yet"),
        ("deepspeed=zero9.json", "deepspeed: no such file: zero9.json"),
        ("model.attention=flash_atention", "model.attention: Input should be 'sdpa', 'eager'"),
    ],
)
def test_a_wrong_name_is_an_error_before_torch(
    module: str, override: str, expected: str, source: SyntheticSource, tmp_path: Path
) -> None:
    tree = {
        "run": {"out": str(tmp_path / "run"), "wandb": "disabled"},
        "data": {"source": source.model_dump(mode="json")},
        "validation": {"every_steps": 1, "split": "test"},
    }
    path = write_config(tmp_path, "sft.yaml", tree)
    command = [sys.executable, "-c", WITHOUT_TORCH, module, "--config", str(path), override]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2, result.stderr
    assert expected in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "run").exists()
