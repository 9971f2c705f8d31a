"""The study of GRPO: its arms and their stages, equal time, and what the report says of arms that are there."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_scripts_grounders import SAMPLES, write_answers, write_samples_of

from configs.base import ConfigError
from configs.checkpoints import CheckpointConfig, CheckpointStore
from scripts.grpo_arms import START, Arms, arm_stages, best_checkpoint, load_arms, start_stage, steps_in_time
from scripts.grpo_figure import draw_arms
from scripts.grpo_report import compared, read_runs, summarize_arms
from scripts.grpo_text import SIGNALS, markdown

CONFIGS = Path("configs/grpo_study")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grpo": {}}, "grpo"),
        ({"grpo": {"frozen": {"objective.decoder_update": "pathwise"}}}, "text.grpo.frozen: objective.decoder_update"),
        ({"supervised": {"frozen": {"max_steps": 3}}}, "frozen is in both"),
        ({"supervised": {"start": {"max_steps": 3}}}, "start is what all arms go on from"),
        ({"supervised": {"sft": {"annotation_error.max_error": 0}}}, "max_error_sec"),
        ({"supervised": {"sft": {}}}, "text.supervised.sft: data.prompt is"),
        ({"start": {"model.grounder": "text", "checkpoints.keep_best": False}}, "text: expected checkpoints.keep_best"),
        ({"start": {"model.grounder": "text", "checkpoints.every_steps": 120}}, "(got 120)"),
    ],
)
def test_an_arm_that_cannot_run_is_refused_before_any_runs(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    for path in CONFIGS.glob("*.yaml"):
        (tmp_path / path.name).write_text(path.read_text())
    table = yaml.safe_load((CONFIGS / "arms.yaml").read_text())
    table["grounders"]["text"] |= change
    (tmp_path / "arms.yaml").write_text(yaml.safe_dump(table))
    with pytest.raises(ConfigError, match=re.escape(message)) as error:
        load_arms(tmp_path)
    assert ".yaml" in str(error.value)


def _write_metrics(folder: Path, seconds: list[float]) -> None:
    """A run that logged a step each ten, at these times."""
    folder.mkdir(parents=True, exist_ok=True)
    told = dict.fromkeys(SIGNALS, 0.25) | {"loss/total": 1.0, "reward/total": 0.5}
    rows = [{"step": 10 * (i + 1), "time": time, **told} for i, time in enumerate(seconds)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_supervised_arms_get_the_time_of_grpo(tmp_path: Path) -> None:
    """GRPO's 30 steps took 6 s each. The checkpoint's training took 1.5 s a step: so 120 supervised steps take as long.

    What was found for a run stays; another run of that arm is looked at anew.
    """
    _write_metrics(tmp_path / START, [0, 15, 30])
    first = tmp_path / "pathwise"
    _write_metrics(first, [100, 160, 220])
    assert steps_in_time(tmp_path, first="pathwise", run="one") == 120
    _write_metrics(first, [0, 30, 60])
    assert steps_in_time(tmp_path, first="pathwise", run="one") == 120
    assert steps_in_time(tmp_path, first="pathwise", run="another") == 60


def _write_start(folder: Path) -> None:
    """A training of 30 steps whose validation loss was lowest at step 20."""
    _write_metrics(folder / START, [0, 15, 30])
    (folder / START / "config.yaml").write_text((CONFIGS / "sft_start.yaml").read_text().split("include")[0] + CONFIG)
    store = CheckpointStore(folder / START, CheckpointConfig(keep_last=1))
    for step, loss in ((10, 3.0), (20, 2.5), (30, 2.75)):
        store.publish(step, store.staging(step), value=-loss)
    with (folder / START / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 20, "time": 15, "validation/loss": 2.5}) + "\n")


CONFIG = "run: {out: x}\ndata: {source: {type: synthetic, root: x}}\n"


def test_all_arms_start_from_the_checkpoint_with_the_lowest_validation_loss(tmp_path: Path) -> None:
    """Each has a folder and a key of its own, and supervised ones come after GRPO."""
    arms = load_arms(CONFIGS)["bridge"]
    folder = tmp_path / "grpo" / "bridge" / "seed1"
    _write_start(folder)
    _write_metrics(folder / "pathwise", [100, 160])
    assert f"run.out={folder}/start" in start_stage(CONFIGS, tmp_path, "bridge", arms, 1).arguments
    stages = list(arm_stages(CONFIGS, tmp_path, "bridge", arms, 1))
    trained = [stage for stage in stages if stage.module != ("evaluation.run",)]
    assert [stage.module[0] for stage in trained] == ["rft.train"] * 3 + ["sft.train"] * 2
    start = f"checkpoint={folder}/start/checkpoints/step-00000020"
    assert all(start in stage.arguments for stage in [stages[0], *trained])
    assert len({stage.key for stage in stages}) == len(stages) == 1 + 2 * 5
    assert "max_steps=80" in trained[-1].arguments  # 20 steps of 6 s, in steps of 1.5 s


def test_a_training_without_validation_has_no_checkpoint_to_go_on_from(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)
    with pytest.raises(ConfigError, match=r"expected validation\.every_steps"):
        best_checkpoint(tmp_path)


ARMS = Arms(grpo={"pathwise": {}, "frozen": {"max_steps": 3}}, supervised={"sft": {}})


def test_the_differences_that_are_asked_about() -> None:
    assert list(compared(ARMS)) == [
        ("pathwise", "checkpoint"), ("frozen", "checkpoint"), ("sft", "checkpoint"),
        ("pathwise", "sft"), ("frozen", "sft"), ("pathwise", "frozen"),
    ]  # fmt: skip


def test_the_report_is_of_the_arms_that_are_there(tmp_path: Path) -> None:
    """The truth is frames 108 to 119: the checkpoint answers half of it (tIoU .5), GRPO all of it, SFT three quarters."""
    write_samples_of(SAMPLES, tmp_path)
    folder = tmp_path / "grpo" / "bridge" / "seed0"
    for arm, span in (("checkpoint", (108, 114)), ("pathwise", (108, 120)), ("sft", (108, 117))):
        write_answers(folder / f"eval_{arm}", span, wrong=(108, 111))
        if arm != "checkpoint":
            _write_metrics(folder / arm, [0, 60])
    _write_start(folder)
    runs = read_runs({"text": ARMS, "bridge": ARMS}, tmp_path)
    assert list(runs) == ["bridge"]
    summary = summarize_arms(ARMS, runs["bridge"])
    assert list(summary["arms"]) == ["checkpoint", "pathwise", "sft"]
    differences = {title: row["m_tIoU"]["mean"] for title, row in summary["differences"].items()}
    assert differences == pytest.approx(
        {"pathwise - checkpoint": 0.5, "sft - checkpoint": 0.25, "pathwise - sft": 0.25}
    )
    assert (summary["arms"]["sft"]["minutes"], summary["arms"]["sft"]["steps"]) == ([2.0], [20])  # of 6 s
    assert (summary["arms"]["checkpoint"]["minutes"], summary["arms"]["checkpoint"]["steps"]) == (
        [0.5],
        [20],
    )  # of 1.5 s
    assert summary["arms"]["pathwise"]["signal"]["reward/total"] == [0.5, 0.5]
    record = {
        "command": "python -m this", "hardware": "1 CPU core", "packages": {"torch": "2.13.0"}, "commits": ["abc"],
        "num_videos": 1, "arms": {"bridge": ARMS.model_dump()}, "grounders": {"bridge": json.loads(json.dumps(summary))},
    }  # fmt: skip
    text = markdown(record, "a.png")
    assert "| pathwise - checkpoint | +0.500 [+0.500, +0.500] |" in text and "| nothing |" in text
    assert "| pathwise | 0.25 → 0.25 |" in text and "by step; seed 0: 20 2.500." in text
    assert "| sft (1) | 0.750 [0.750, 0.750] |" in text and "2 sentences about 1 held-out videos" in text
    draw_arms(record, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
