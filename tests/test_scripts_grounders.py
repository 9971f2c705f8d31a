"""The comparison of grounders: its cells and their stages, what the truth scores as each writes it, and the order."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from runs import run
from test_data_written_answers import CLIP, FRAMES, SECONDS, SHOWN

from configs.base import ConfigError
from data.sources.jsonl import write_samples
from data.types import FrameSpan, GroundingSample
from data.written_answers import SPANS, AnswerStyle
from evaluation.metrics import score
from evaluation.predictions import Prediction, write_predictions
from scripts.grounder_cells import all_stages, base_stages, load_grounders
from scripts.grounders_ceiling import true_prediction
from scripts.grounders_figure import draw_grounders
from scripts.grounders_report import differences, entry, gains, read_runs
from scripts.grounders_text import markdown, order, published_mean

CONFIGS = Path("configs/grounders")
SAMPLES = [replace(CLIP, sample_id=name, source="synthetic") for name in ("a", "b")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sft": {"model.grounder": "bridge"}}, "text.sft: model.grounder='bridge' is what"),
        ({"sft": {"max_step": 3}}, "max_steps"),
        ({"rft": {"rollout.num_generations": 1}}, "num_generations"),
    ],
)
def test_a_grounder_that_cannot_run_is_refused_before_any_runs(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    """A change that changes nothing, a misspelt key, a value out of bounds: file and grounder are named."""
    for path in CONFIGS.glob("*.yaml"):
        (tmp_path / path.name).write_text(path.read_text())
    table = yaml.safe_load((CONFIGS / "grounders.yaml").read_text())
    table["grounders"]["text"] |= change
    (tmp_path / "grounders.yaml").write_text(yaml.safe_dump(table))
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")) as error:
        load_grounders(tmp_path)
    assert f"{tmp_path}/grounders.yaml: text." in str(error.value)


def test_every_stage_is_known_by_a_key_of_its_own(tmp_path: Path) -> None:
    """Two stages with one key would be done once; a cell's stages are noted in its own folder, seed by seed."""
    stages = all_stages(CONFIGS, tmp_path, load_grounders(CONFIGS), [0, 1])
    keys = [stage.key for stage in base_stages(CONFIGS, tmp_path)] + [stage.key for _, stage in stages]
    assert len(set(keys)) == len(keys) == 7 + 2 * 3 * 4
    folders = [str(record.relative_to(tmp_path)) for record, _ in stages[::4]]
    names = ("bridge", "interleaved", "text")
    assert folders == [f"cells/{name}/seed{seed}/stages.json" for seed in (0, 1) for name in names]


@pytest.mark.parametrize(
    ("style", "span", "tiou", "boxes_iou"),
    [
        # Frames 108 to 119 are the truth. Boxes at every second one and a line between them are exact; the last one's is held.
        (SPANS, FrameSpan(108, 120), 1.0, [1] * 11 + [19 / 21]),
        (FRAMES, FrameSpan(108, 120), 1.0, [1] * 11 + [19 / 21]),
        # Seconds 1 and 2 are frames 108 to 123, with boxes at 108 and 116; the object then goes on by a pixel a frame.
        (SECONDS, FrameSpan(108, 120), 12 / 16, [1] * 9 + [19 / 21, 18 / 22, 17 / 23]),
        # 109 to 119 are 1.125 to 2.5 s and written as 1.1: still frame 109. Frame 109 has the box of 110, the first that is shown.
        (SPANS, FrameSpan(109, 120), 1.0, [19 / 21] + [1] * 9 + [19 / 21]),
    ],
)
def test_what_the_truth_scores_as_it_is_written(
    style: AnswerStyle, span: FrameSpan, tiou: float, boxes_iou: list[float]
) -> None:
    """A box of 20 x 20 that is off by d pixels has IoU (20 - d) / (20 + d)."""
    assert CLIP.boxes_xyxy_px is not None
    sample = replace(CLIP, span=span, boxes_xyxy_px=CLIP.boxes_xyxy_px[span.start - 108 :])
    scores = score([sample], [true_prediction(sample, SHOWN, style)])
    assert scores.tiou[0] == pytest.approx(tiou)
    assert scores.viou[0] == pytest.approx(tiou * sum(boxes_iou) / len(boxes_iou), abs=1e-5)
    assert scores.gt_viou[0] == pytest.approx(sum(boxes_iou) / len(boxes_iou), abs=1e-5)


def _answers(span: tuple[int, int]) -> list[Prediction]:
    """Both sentences with one interval, and the true box where the object is at its beginning."""
    return [Prediction(name, span=span, boxes={108: (10.0, 20.0, 30.0, 40.0)}, num_tokens=5) for name in ("a", "b")]


def _write_cell(folder: Path, step: str, run_name: str, right: tuple[int, int], wrong: tuple[int, int]) -> None:
    """What a cell leaves behind after a step, as far as the report looks at it."""
    (folder / run_name / "checkpoint").mkdir(parents=True)
    rows = [
        {"step": step, "time": time, "loss/total": 1.0}
        for step, time in ((1, 60.0), (2, 120.0), (3, 180.0), (4, 9999.0))
    ]
    (folder / run_name / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_answers(folder / f"eval_{step}", right, wrong)


def write_answers(folder: Path, right: tuple[int, int], wrong: tuple[int, int]) -> None:
    """An evaluation's folder, as far as a report looks at it."""
    folder.mkdir(parents=True)
    write_predictions(folder / "predictions.jsonl", _answers(right))
    write_predictions(folder / "predictions_wrong_query.jsonl", _answers(wrong))
    (folder / "metrics.json").write_text(json.dumps({"generated_tokens": 5.0, "seconds_per_sample": 0.25}))


def write_samples_of(samples: list[GroundingSample], out: Path) -> None:
    """As the held-out samples of a study in `out`."""
    (out / "videos").mkdir(parents=True)
    write_samples(out / "videos" / "heldout.jsonl", samples)


def test_the_report_is_of_the_cells_that_are_there(tmp_path: Path) -> None:
    """The truth is frames 108 to 119. bridge answers 108 to 119 with one seed and 108 to 113 with the other, text 108 to 113
    with the first seed alone: tIoU 1, .5 and .5. After GRPO text is right. Asked the wrong sentence, all say 108 to 110."""
    write_samples_of(SAMPLES, tmp_path)
    half, whole, wrong = (108, 114), (108, 120), (108, 111)
    _write_cell(tmp_path / "cells/bridge/seed0", "sft", "sft", whole, wrong)
    _write_cell(tmp_path / "cells/bridge/seed1", "sft", "sft", half, wrong)
    _write_cell(tmp_path / "cells/text/seed0", "sft", "sft", half, wrong)
    _write_cell(tmp_path / "cells/text/seed0", "grpo", "rft", whole, wrong)
    grounders = load_grounders(CONFIGS)
    runs = read_runs(grounders, tmp_path)
    entries = {name: entry(seeds) for name, seeds in runs["sft"].items()}
    assert list(entries) == ["bridge", "text"] and entries["bridge"]["seeds"] == [0, 1]
    assert entries["bridge"]["values"]["m_tIoU"] == pytest.approx(0.75)
    assert entries["bridge"]["by_seed"]["m_tIoU"] == pytest.approx([1.0, 0.5])
    assert entries["bridge"]["right_minus_wrong"]["m_tIoU"]["mean"] == pytest.approx(0.5)
    # Four steps of 60 s; that one of them lasted for hours was a kill.
    assert (entries["text"]["minutes"], entries["text"]["generated_tokens"]) == (4.0, 5.0)
    assert differences(runs["sft"])["bridge - text"]["m_tIoU"]["by_seed"] == pytest.approx([0.5])
    assert gains(runs)["text"]["m_tIoU"]["mean"] == pytest.approx(0.5) and list(gains(runs)) == ["text"]

    record = {
        "command": "python -m this", "hardware": "1 CPU core", "packages": {"torch": "2.13.0"}, "commits": ["abc"],
        "num_videos": 1, "grounders": {name: one.model_dump() for name, one in grounders.items()},
        "steps": {step: {name: entry(seeds) for name, seeds in of.items()} for step, of in runs.items()},
        "differences": {step: differences(of) for step, of in runs.items()}, "grpo_minus_sft": gains(runs),
        "ceiling": {"bridge": entries["bridge"]["values"]},
        "latency": {"frames": 20, "bridge_ratio": 14.75, "interleaved_ratio": 20.42},
        "configs": {"sft": {"annotation_error": {"max_error_sec": 0.25}}, "evaluate": {"batch_size": 32}},
    }  # fmt: skip
    text = markdown(json.loads(json.dumps(record)), "a.png")
    assert "| bridge, SFT (2) | 0.750 [0.750, 0.750] |" in text and "| text, SFT + GRPO (1) | 1.000" in text
    assert "| GRPO - SFT: text | +0.500 [+0.500, +0.500] |" in text and "`text` takes 14.8 times as long" in text
    assert "2 sentences about 1 held-out videos" in text and "bridge ~ text" in text
    assert "32 at a time" in text and "off by up to 0.25 s" in text
    draw_grounders(record, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_another_base_makes_all_cells_run_again(tmp_path: Path) -> None:
    """An edit of the base's last config changes the key of every stage of every cell."""
    for path in CONFIGS.glob("*.yaml"):
        (tmp_path / path.name).write_text(path.read_text())
    grounders = load_grounders(tmp_path)
    before = {stage.key for _, stage in all_stages(tmp_path, tmp_path, grounders, [0])}
    with (tmp_path / "base_tubes.yaml").open("a") as stream:
        stream.write("# edited")
    after = {stage.key for _, stage in all_stages(tmp_path, tmp_path, grounders, [0])}
    assert len(after) == len(before) == 12 and not before & after


@pytest.mark.parametrize(
    ("ci95", "by_seed", "expected"),
    [
        ([0.01, 0.03], [0.01, 0.03], "b > a"),
        ([-0.01, 0.03], [0.01, 0.03], "b ~ a"),  # the interval holds 0
        ([0.01, 0.03], [0.05, -0.01], "b ~ a"),  # the seeds disagree
        ([0.01, 0.03], [0.02], "b ~ a"),  # one seed agrees with itself
        ([-0.03, -0.01], [-0.01, -0.03], "b ~ a"),  # the seeds that both have say otherwise
    ],
)
def test_an_order_is_certain_where_sentences_and_seeds_agree(
    ci95: list[float], by_seed: list[float], expected: str
) -> None:
    """b has .42 and a .40; the table has their difference as a - b."""
    entries = {"a": {"values": {"m_vIoU": 0.40}}, "b": {"values": {"m_vIoU": 0.42}}}
    mean = sum(by_seed) / len(by_seed)
    turned = {"mean": -mean, "ci95": [-ci95[1], -ci95[0]], "by_seed": [-value for value in by_seed]}
    assert order(entries, {"a - b": {"m_vIoU": turned}}) == expected


def test_published_means_over_both_kinds_of_sentences() -> None:
    """SpaceVLLM 27.4 and 25.4, STVG-o1 33.5 and 27.9; Bridge-STG reports the mean."""
    means = [published_mean(system) for system in ("Bridge-STG", "STVG-o1", "SpaceVLLM")]
    assert means == pytest.approx([34.3, 30.7, 26.4])


@pytest.mark.slow
def test_a_comparison_whose_record_lost_a_stage_does_that_one_again(tmp_path: Path) -> None:
    """Two steps of everything, with GRPO and vLLM: first one grounder, then all. A lost evaluation is done again, and nothing else."""
    configs, out, results = tmp_path / "configs", tmp_path / "out", tmp_path / "docs" / "grounders"
    _write_tiny_configs(configs)
    arguments = ("--configs", str(configs), "--out", str(out), "--results", str(results), "--seeds", "0")
    run("scripts.compare_grounders", *arguments, "--grounders", "bridge")
    run("scripts.compare_grounders", *arguments)
    record = json.loads(results.with_suffix(".json").read_text())
    assert {step: list(of) for step, of in record["steps"].items()} == {
        "sft": ["bridge", "text"],
        "grpo": ["bridge", "text"],
    }
    cell = out / "cells" / "text" / "seed0" / "stages.json"
    done = json.loads(cell.read_text())
    lost = next(key for key in done if "eval_grpo" in key)
    cell.write_text(json.dumps({key: seconds for key, seconds in done.items() if key != lost}))
    again = run("scripts.compare_grounders", *arguments)
    assert again.count("finished before") == 8 + 4 + 3
    assert json.loads(results.with_suffix(".json").read_text())["steps"] == record["steps"]


def _write_tiny_configs(folder: Path) -> None:
    """The configs of the comparison with a handful of videos, and two grounders."""
    folder.mkdir()
    for path in CONFIGS.glob("*.yaml"):
        config = yaml.safe_load(path.read_text())
        if "include" in config:
            config["include"] = str(folder / Path(config["include"]).name)
        if "max_steps" in config:
            config |= {"max_steps": 2, "checkpoints": {}}
            config["run"]["log_every"] = 1
        if "per_device_train_batch_size" in config:
            config["per_device_train_batch_size"] = 2
        if "validation" in config:
            config["validation"] = {}
        if path.stem in ("base_states", "base_videos", "sft"):
            config["data"]["source"]["num_videos"] = {"base": 3, "train": 3, "rl": 3, "validation": 1, "heldout": 3}
        if path.stem == "rft":
            config["rollout"] |= {"prompts_per_step": 2, "num_generations": 2}
            config["prompts_per_micro_batch"] = 2
        if path.stem == "grounders":
            config["grounders"] = {name: config["grounders"][name] for name in ("bridge", "text")}
        (folder / path.name).write_text(yaml.safe_dump(config))
