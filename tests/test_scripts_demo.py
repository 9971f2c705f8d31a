"""What the demo reports: tables from summaries, and the signal of a GRPO run from its metrics."""

import json
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from runs import run, write_config
from tiny import GROUNDED

from configs.run import ROOT
from scripts import demo, demo_seeds
from scripts.demo import Stage, ending, finished, run_once, stages
from scripts.demo_seeds import markdown, signal
from scripts.demo_summary import publish, run_record

COLUMNS = ("m_tIoU", "m_vIoU", "gt_vIoU", "parse_rate")


def test_signal_is_the_mean_of_both_ends() -> None:
    """Steps 1 to 6 with rewards .1 to .6: the first two average .15, the last two .55. A validation row is no step."""
    rows = [{"step": i, "reward/total": i / 10, "policy/entropy": 1.0} for i in range(1, 7)]
    rows.insert(0, {"step": 0, "validation/reward": 0.9})
    assert signal(rows, window=2) == {"reward/total": pytest.approx([0.15, 0.55]), "policy/entropy": [1.0, 1.0]}


def test_a_stage_runs_once_for_a_config(tmp_path: Path) -> None:
    """Again under the same command and config: nothing. After an edit of the config: again."""
    config, record, made = tmp_path / "a.yaml", tmp_path / "stages.json", tmp_path / "made.zip"
    for text, runs in (("a: 1", True), ("a: 1", False), ("a: 2", True)):
        config.write_text(text)
        run_once(Stage("pack", ("zipfile",), ("-c", str(made), str(config))), record)
        assert made.exists() == runs
        made.unlink(missing_ok=True)
    assert len(finished(record)) == 2


def test_a_failed_stage_ends_with_its_name_and_status(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """`python -m zipfile` without arguments ends with 2; nothing is noted as finished."""
    with pytest.raises(SystemExit) as ended:
        run_once(Stage("pack", ("zipfile",), ()), tmp_path / "stages.json")
    assert ended.value.code == 1 and finished(tmp_path / "stages.json") == {}
    assert caplog.records[-1].getMessage() == "stage 'pack' failed, exit status 2"


@pytest.mark.parametrize(("status", "expected"), [(3, "exit status 3"), (-9, "killed by SIGKILL")])
def test_how_a_stage_ended(status: int, expected: str) -> None:
    assert ending(status) == expected


@pytest.mark.parametrize("module", [demo, demo_seeds])
@pytest.mark.parametrize(
    ("configs", "out", "expected"),
    [("typo", "out", "typo/sft.yaml: no such config file"), ("configs/demo", "file/out", "expected a folder")],
)
def test_a_wrong_folder_is_said_before_anything_is_made(
    module: ModuleType, configs: str, out: str, expected: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    (tmp_path / "file").write_text("")
    words = ["--configs", configs, "--out", str(tmp_path / out), "--results", str(tmp_path / "results")]
    monkeypatch.setattr("sys.argv", ["demo", *words])
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 2 and expected in caplog.records[-1].getMessage()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_edit_of_an_included_config_is_a_change(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("a: 1")
    (tmp_path / "a.yaml").write_text(f"include: {tmp_path}/b.yaml")
    stage = Stage("any", ("any",), ("--config", str(tmp_path / "a.yaml")))
    before = stage.key
    (tmp_path / "b.yaml").write_text("a: 2")
    assert stage.key != before


def commands(grounder: str) -> dict[str, list[str]]:
    """Of all stages, by their titles."""
    made = stages(ROOT / "configs" / "demo", Path("out"), data=Path("out"), seed=0, grounder=grounder)
    return {stage.title: stage.command for stage in made}


@pytest.mark.parametrize(
    ("grounder", "expected"),
    [
        ("bridge", {}),
        ("interleaved", {"SFT on single frames": {"model.grounder=interleaved"}}),
        (
            "text",
            {
                "tiny backbone": {"--answer-formats", "tube"},
                "SFT on single frames": {"model.grounder=text"},
                "GRPO": {"rollout.max_model_len=1024", "objective.decoder_update=frozen"},
            },
        ),
    ],
)
def test_what_another_grounder_changes(grounder: str, expected: dict[str, set[str]]) -> None:
    """Words that are added to the commands of `bridge`, whose finished stages are known by them."""
    ours, default = commands(grounder), commands("bridge")
    assert all(set(default[title]) <= set(words) for title, words in ours.items())
    added = {title: set(words) - set(default[title]) for title, words in ours.items()}
    assert {title: words for title, words in added.items() if words} == expected


SMALL = {
    "sft_frames": {"per_device_train_batch_size": 2},
    "sft": {"per_device_train_batch_size": 2},
    "rft": {"prompts_per_micro_batch": 2},
    "evaluate": {},
}
NUM_VIDEOS = {
    "sft_frames": {"train": 4, "validation": 2},
    "sft": {"train": 4, "rl": 4, "validation": 2, "heldout": 3},
}


def small_demo(folder: Path) -> Path:
    """configs/demo with a few videos and a few samples a step."""
    for name, changes in SMALL.items():
        tree = yaml.safe_load((ROOT / "configs" / "demo" / f"{name}.yaml").read_text()) | changes
        if name in NUM_VIDEOS:
            tree["data"]["source"]["num_videos"] = NUM_VIDEOS[name]
        if name == "rft":
            tree["rollout"] |= {"prompts_per_step": 2, "num_generations": 2}
        write_config(folder, f"{name}.yaml", tree)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("grounder", GROUNDED)
def test_the_whole_demo_of_each_grounder(grounder: str, tmp_path: Path) -> None:
    """Two steps of each training; GRPO on Ray with vLLM; the export, loaded by itself, answers as its checkpoint."""
    (configs := tmp_path / "configs").mkdir()
    out = tmp_path / "out"
    steps = ("--sft-steps", "2", "--rft-steps", "2")
    said = run("scripts.demo", "--configs", str(small_demo(configs)), "--out", str(out), "--grounder", grounder, *steps)
    assert "scripts.check_export: same answer" in said
    summary = json.loads((out / "summary.json").read_text())
    assert summary["num_videos"] == 3 and summary["grpo"]["n"] == summary["sft"]["n"] > 0
    assert json.loads((out / "export" / "config.json").read_text())["grounder"] == grounder
    assert len(list((out / "annotated").glob("*.mp4"))) == 3
    assert all((out / name).stat().st_size > 1000 for name in ("contact_sheet.png", "curves.png"))


def test_what_is_published_names_every_commit(tmp_path: Path) -> None:
    """Both runs' commits, the changed one marked; JSON, Markdown and pictures side by side."""
    for name, state in (
        ("sft", {"git_commit": "b", "git_dirty": True}),
        ("rft", {"git_commit": "a", "git_dirty": False}),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "environment.json").write_text(json.dumps(state))
    for picture in ("contact_sheet.png", "curves.png"):
        (tmp_path / picture).write_bytes(b"png")
    record = run_record("scripts.demo", [tmp_path])
    assert record["commits"] == ["a", "b with changes"] and record["command"].startswith("python -m scripts.demo")
    publish(tmp_path, tmp_path / "docs" / "demo", record, "text")
    assert json.loads((tmp_path / "docs" / "demo.json").read_text()) == record
    written = {path.name for path in (tmp_path / "docs").iterdir()}
    assert written == {"demo.json", "demo.md", "demo_contact_sheet.png", "demo_curves.png"}


def _row(value: float) -> dict[str, object]:
    return {"n": 449} | dict.fromkeys(COLUMNS, value) | {f"{c}_ci95": [value - 0.01, value + 0.01] for c in COLUMNS}


def _difference(value: float) -> dict[str, object]:
    return {column: {"mean": value, "ci95": [value - 0.01, value + 0.01]} for column in COLUMNS}


def test_every_number_of_the_report_comes_from_the_record() -> None:
    """Rows of both seeds, each difference with its sign and interval, and the temperature of equal entropy."""
    rows = {name: _row(0.5) for name in ("constant", "sft", "sft_wrong_query", "grpo", "grpo_wrong_query")}
    signals = ("temporal", "viou", "format")
    shown = {f"reward/{name}{end}": [0.25, 0.75] for name in signals for end in ("", "_group_std")}
    update = {
        "minus_sft": _difference(0.04),
        "right_minus_wrong": _difference(0.07),
        "signal": shown | {"policy/entropy": [0.5, 0.3], "mismatch/mean": [0, 0]},
    }
    seed = {
        "update": "pathwise",
        "summary": rows | {"sft_right_minus_wrong": _difference(0.125), "grpo_right_minus_wrong": _difference(0.1),
                           "grpo_minus_sft": _difference(0.03), "num_videos": 300, "minutes": 15.25},
        "updates": {"frozen": update, "pathwise": update},
        "matched_entropy": {
            "refined": {"temperature": 0.6}, "refined_minus_reference": _difference(-0.02)
        },
    }  # fmt: skip
    record = {
        "command": "python -m this", "hardware": "2 CPU cores", "packages": {"torch": "2.13.0", "av": "18"},
        "commits": ["abc with changes"], "seeds": {"0": seed, "1": seed, "2": {"update": "pathwise", "summary": seed["summary"]}},
    }  # fmt: skip
    lines = markdown(record).splitlines()
    assert sum("0.500 [0.490, 0.510]" in line for line in lines) == 3 * 5
    for title, cell in (
        ("1: SFT: right - wrong sentence", "+0.125 [+0.115, +0.135]"),
        ("0: GRPO (frozen) - SFT", "+0.040 [+0.030, +0.050]"),
        ("2 seeds: GRPO (frozen) - SFT", "+0.040 (+0.040 to +0.040)"),
        ("2: GRPO (pathwise) - SFT", "+0.030 [+0.020, +0.040]"),
        ("3 seeds: GRPO (pathwise) - SFT", "+0.037 (+0.030 to +0.040)"),
        ("0: GRPO (pathwise): right - wrong sentence", "+0.070 [+0.060, +0.080]"),
        ("1: GRPO sampled at temperature 0.6 - SFT sampled at the same entropy", "-0.020 [-0.030, -0.010]"),
    ):
        assert [line for line in lines if line.startswith(f"| {title} |") and line.count(cell) == 4], title
    assert "449 sentences about 300 held-out videos" in markdown(record)
    assert "2 CPU cores, torch 2.13.0, commit abc with changes." in lines
    assert sum("0.25 → 0.75" in line for line in lines) == 4
