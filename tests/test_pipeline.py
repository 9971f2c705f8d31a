"""Every entry point as a user runs it: two steps of SFT, evaluation, two steps of GRPO on Ray with vLLM, draw."""

import json
from pathlib import Path

import torch
import yaml
from runs import RFT_STEPS, SFT_STEPS, rows_of, run
from safetensors.torch import load_file
from tiny import Tiny


def test_sft_writes_what_it_promises(sft_run: Path, backbone: Path) -> None:
    """Resolved config with the override, versions, metrics of every step, and a checkpoint that has moved."""
    assert yaml.safe_load((sft_run / "config.yaml").read_text())["optim"]["learning_rate"] == 2e-3
    assert "transformers" in json.loads((sft_run / "environment.json").read_text())["packages"]
    rows = [row for row in rows_of(sft_run) if "loss/text" in row]
    assert [row["step"] for row in rows] == list(range(1, SFT_STEPS + 1))
    names = {"loss/text", "loss/box_l1", "loss/box_giou", "loss/presence", "loss/alignment", "loss/contrast"}
    assert names <= set(rows[0]) and all(max(row[name] for row in rows) > 0 for name in names)
    before, after = (load_file(f / "model.safetensors") for f in (backbone, sft_run / "checkpoint" / "mllm"))
    assert before.keys() == after.keys()
    assert sum(not torch.equal(before[name], after[name]) for name in before) > 0.9 * len(before)


def test_evaluation(sft_run: Path, tiny: Tiny, tmp_path: Path) -> None:
    """Predictions for every sample, with all controls in the report."""
    config = {
        "checkpoint": str(sft_run / "checkpoint"),
        "out": str(tmp_path / "eval"),
        "data": {"source": tiny.data.source.model_dump(mode="json")},
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
    run("evaluation.draw", "--annotations", f"{tiny.data.source.root}/test.jsonl", "--predictions",
        str(tmp_path / "eval" / "predictions.jsonl"), "--out", str(tmp_path / "drawn"))  # fmt: skip
    assert len(list((tmp_path / "drawn").glob("*.mp4"))) == 1


def test_grpo(sft_run: Path, rft_run: Path) -> None:
    """Ray, a vLLM engine: versions advance, trainer and engine agree after each push, weights move."""
    before_training, *rows = rows_of(rft_run)
    assert before_training["step"] == 0 and "validation/reward" in before_training
    assert [row["step"] for row in rows] == list(range(1, RFT_STEPS + 1))
    taught = [row["reward/total_group_std"] > 0 and row["loss/policy"] != 0 for row in rows]
    assert sum(taught) > RFT_STEPS // 2
    # All steps but the first sample from pushed weights.
    assert all(row["mismatch/max"] < 1e-4 for row in rows)
    assert {"reward/format", "reward/temporal", "reward/viou", "reward/viou_group_std"} <= set(rows[0])
    assert [("validation/reward" in row) for row in rows] == [False, True] * (RFT_STEPS // 2)
    assert rows[0]["loss/supervised"] > 0
    before, after = (load_file(f / "checkpoint" / "grounder.safetensors") for f in (sft_run, rft_run))
    assert any(not torch.equal(before[name], after[name]) for name in before)
    before, after = (load_file(f / "checkpoint" / "mllm" / "model.safetensors") for f in (sft_run, rft_run))
    assert any(not torch.equal(before[name], after[name]) for name in before)
