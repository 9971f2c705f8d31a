"""The ablation: its table of cells, what runs again after a kill, and what a difference counts for."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from runs import run

from configs.base import ConfigError
from configs.model import BridgeConfig
from evaluation.metrics import Scores
from scripts.ablate import base_stages, cell_stages, repeated
from scripts.ablation_cells import Cell, load_cells, trained_folder
from scripts.ablation_figure import draw_differences
from scripts.ablation_report import CellRun, difference_std, effects, seed_std, summarize_cells
from scripts.ablation_text import markdown, verdicts

CONFIGS = Path("configs/ablation")
SIZES = {"width", "num_heads", "ffn_width"}
PARTS = {f"model.bridge.{name}" for name in BridgeConfig.model_fields if name not in SIZES} | {
    "loss.contrast", "frames.num_negative", "exposure.probability", "data.prompt.prompt_order",
    "answering.margin_sec", "answering.presence_trim",
}  # fmt: skip


def test_the_table_has_a_cell_for_every_part() -> None:
    """Valid configs, each change a change (load_cells says so), and no part of the grounder left out."""
    changed = {key for cell in load_cells(CONFIGS).values() for key in cell.train | cell.evaluate}
    assert changed >= PARTS


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"default": {"asks": "a"}, "b": {"asks": "b", "train": {"model.bridge.num_query": 1}}}, "num_queries"),
        ({"default": {"asks": "a"}, "b": {"asks": "b", "train": {"model.bridge.num_queries": 8}}}, "num_queries=8 is what"),
        ({"default": {"asks": "a"}, "b": {"asks": "b", "evaluate": {"batch_size": 0}}}, "batch_size"),
        ({"default": {"asks": "a"}, "b": {"asks": "b"}}, "cells.b"),
        ({"default": {"asks": "a", "train": {"max_steps": 7}}}, "cells.default"),
        ({"b": {"asks": "b", "train": {"max_steps": 7}}}, "'default'"),
        ({"default": {"asks": "a"}, "../b": {"asks": "b", "train": {"max_steps": 7}}}, "../b"),
    ],
)  # fmt: skip
def test_a_cell_that_cannot_run_is_refused_before_any_runs(tmp_path: Path, cells: dict[str, Any], message: str) -> None:
    """A misspelt key, a change that changes nothing, a value out of bounds, a table without its default."""
    for name in ("cell", "evaluate"):
        (tmp_path / f"{name}.yaml").write_text((CONFIGS / f"{name}.yaml").read_text())
    (tmp_path / "cells.yaml").write_text(yaml.safe_dump({"cells": cells}))
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")) as error:
        load_cells(tmp_path)
    assert "cells.yaml" in str(error.value)


def test_off_reaches_the_command_as_a_word(tmp_path: Path) -> None:
    """YAML reads a bare `off` as false."""
    train, _ = cell_stages(CONFIGS, tmp_path, "b", Cell(asks="b", train={"model.bridge.temporal_alignment": "off"}), 0)
    assert 'model.bridge.temporal_alignment="off"' in train.arguments


def test_a_cell_without_training_asks_the_defaults_checkpoint_of_its_seed(tmp_path: Path) -> None:
    """One stage, which answers from cells/default/seed1."""
    (stage,) = cell_stages(CONFIGS, tmp_path, "b", Cell(asks="b", evaluate={"batch_size": 4}), 1)
    assert f"checkpoint={tmp_path}/cells/default/seed1/train/checkpoint" in stage.arguments
    assert f"out={tmp_path}/cells/b/seed1/eval" in stage.arguments and "batch_size=4" in stage.arguments


def test_every_stage_is_known_by_a_key_of_its_own(tmp_path: Path) -> None:
    """Two stages with one key would be done once: all cells with three seeds, and the base."""
    cells = load_cells(CONFIGS)
    stages = [
        s for name, cell in cells.items() for seed in range(3) for s in cell_stages(CONFIGS, tmp_path, name, cell, seed)
    ]
    keys = [stage.key for stage in [*base_stages(CONFIGS, tmp_path), *stages]]
    assert len(set(keys)) == len(keys) > 5 + 3 * len(cells)


def _run(viou: list[float], tiou: float = 0.5) -> CellRun:
    """Scores of as many sentences; the wrong sentence scores .1 lower in vIoU."""
    values, ones = np.array(viou), np.ones(len(viou))
    right = Scores(tiou * ones, values, values, ones)
    return CellRun(right, Scores(tiou * ones, values - 0.1, values, ones), parameters=1000, minutes=3.0)


DEFAULT_CELL, CHANGED = Cell(asks="all"), Cell(asks="less", train={"max_steps": 7})


def test_a_difference_of_several_seeds_is_of_the_seeds_that_both_have() -> None:
    """Default .4, .6 with seeds 0 and 1, the cell .3, .4: means .5 and .35, differences -.1 and -.2. Seed 2 is left out."""
    runs = {
        "default": {0: _run([0.4, 0.4]), 1: _run([0.6, 0.6])},
        "b": {0: _run([0.3, 0.3]), 1: _run([0.4, 0.4]), 2: _run([0.9, 0.9])},
    }
    entries = summarize_cells({"default": DEFAULT_CELL, "b": CHANGED}, runs)
    difference = entries["b"]["minus_default"]["m_vIoU"]
    assert difference["mean"] == pytest.approx(-0.15) and difference["by_seed"] == pytest.approx([-0.1, -0.2])
    assert entries["default"]["values"]["m_vIoU"] == pytest.approx(0.5) and "minus_default" not in entries["default"]
    assert entries["b"]["right_minus_wrong"]["m_vIoU"]["mean"] == pytest.approx(0.1)


def test_noise_is_pooled_over_cells_that_were_trained_several_times() -> None:
    """Scores .4, .6 and .3, .4 have variances .02 and .005, their mean .0125; the differences -.1 and -.2 have .005.

    A cell of one seed, and one without a training, say nothing.
    """
    runs = {
        "default": {0: _run([0.4]), 1: _run([0.6])},
        "b": {0: _run([0.3]), 1: _run([0.4])},
        "one": {0: _run([0.9])},
        "asked": {0: _run([0.1]), 1: _run([0.9])},
    }
    cells = {"default": DEFAULT_CELL, "b": CHANGED, "one": CHANGED, "asked": Cell(asks="", evaluate={"batch_size": 4})}
    entries = summarize_cells(cells, runs)
    of_scores, of_differences = seed_std(entries), difference_std(entries)
    assert of_scores is not None and of_differences is not None
    assert of_scores["m_vIoU"] == pytest.approx(0.0125**0.5) and of_differences["m_vIoU"] == pytest.approx(0.005**0.5)
    assert of_scores["m_tIoU"] == of_differences["m_tIoU"] == 0
    assert seed_std({"one": entries["one"]}) is None and difference_std({"one": entries["one"]}) is None


@pytest.mark.parametrize(
    ("mean", "ci95", "num_seeds", "trained", "effect"),
    [
        (-0.021, [-0.030, -0.010], 1, True, "lower"),  # 2 x .01
        (-0.019, [-0.030, -0.010], 1, True, "none seen"),
        (0.011, [0.005, 0.020], 4, True, "higher"),  # 2 x .01 / sqrt(4)
        (0.009, [0.005, 0.020], 4, True, "none seen"),
        (0.030, [-0.001, 0.060], 4, True, "none seen"),
        (0.001, [0.0005, 0.002], 1, False, "higher"),  # the same weights: no trainings to differ
    ],
)
def test_an_effect_is_outside_of_both_noises(
    mean: float, ci95: list[float], num_seeds: int, trained: bool, effect: str
) -> None:
    """Differences with a standard deviation of .01 between seeds."""
    difference = {"mean": mean, "ci95": ci95, "by_seed": [mean] * num_seeds}
    entry = {
        "train": {"max_steps": 7} if trained else {},
        "minus_default": {"m_tIoU": difference, "m_vIoU": difference},
    }
    assert effects(entry, {"m_tIoU": 0.01, "m_vIoU": 0.01}) == {"m_tIoU": effect, "m_vIoU": effect}


def test_other_seeds_look_at_the_default_the_largest_effects_and_what_costs_nothing() -> None:
    """Of -.1, +.2 and +.05, the two largest by size; the order of the table."""
    cells = {
        "default": DEFAULT_CELL,
        "a": CHANGED,
        "b": CHANGED,
        "c": CHANGED,
        "asked": Cell(asks="", evaluate={"seed": 4}),
    }
    runs = {
        name: {0: _run([0.5 + d])} for name, d in {"default": 0, "a": -0.1, "b": 0.05, "c": 0.2, "asked": 0}.items()
    }
    assert list(repeated(cells, summarize_cells(cells, runs), 2)) == ["default", "a", "c", "asked"]


def test_the_report_of_some_cells_names_the_missing_ones(tmp_path: Path) -> None:
    """Every row, its verdict, what is not there yet; the figure is drawn, and the record is JSON."""
    cells = {"default": DEFAULT_CELL, "b": CHANGED}
    entries = summarize_cells(cells, {"default": {0: _run([0.5, 0.5])}, "b": {0: _run([0.4, 0.4])}})
    for entry in entries.values():
        entry["effects"] = effects(entry, None)
    record = {
        "command": "python -m this", "hardware": "1 CPU core", "packages": {"torch": "2.13.0"}, "commits": ["abc"],
        "num_videos": 1, "seed_std": None, "difference_std": None, "missing": ["c", "d"], "cells": json.loads(json.dumps(entries)),
    }  # fmt: skip
    text = markdown(record, "a.png")
    assert "| b: less | +0.000 [+0.000, +0.000] | -0.100 [-0.100, -0.100] |" in text and "m_vIoU lower" in text
    assert "Not there yet: c, d." in text and "2 sentences about 1 held-out videos" in text
    assert verdicts({"b": entries["b"]})["The default stays, the change costs"] == ["b"]
    draw_differences(record["cells"], tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_a_trained_cell_answers_from_its_own_checkpoint(tmp_path: Path) -> None:
    """And an untrained one from the default's."""
    assert trained_folder(tmp_path, "b", CHANGED, 2) == tmp_path / "cells" / "b" / "seed2"
    asked = Cell(asks="", evaluate={"batch_size": 4})
    assert trained_folder(tmp_path, "b", asked, 2) == tmp_path / "cells" / "default" / "seed2"


@pytest.mark.slow
def test_a_killed_ablation_goes_on(tmp_path: Path) -> None:
    """Two steps of everything. Again: nothing is done twice. After one evaluation is lost: that one alone."""
    configs, out, results = tmp_path / "configs", tmp_path / "out", tmp_path / "docs" / "ablation"
    arguments = ("--configs", str(configs), "--out", str(out), "--results", str(results), "--seeds", "0", "1")
    _write_tiny_configs(configs)
    run("scripts.ablate", *arguments, "--largest", "0")
    record = json.loads(results.with_suffix(".json").read_text())
    seeds = {name: entry["seeds"] for name, entry in record["cells"].items()}
    assert seeds == {"default": [0, 1], "one_query": [0], "trim": [0, 1]} and record["missing"] == []
    done = json.loads((out / "stages.json").read_text())
    assert len(done) == 5 + (2 + 2 + 1) + (2 + 1)
    lost = next(key for key in done if "evaluation.run" in key and "one_query" in key)
    (out / "stages.json").write_text(json.dumps({key: seconds for key, seconds in done.items() if key != lost}))
    again = run("scripts.ablate", *arguments, "--largest", "0")
    assert again.count("finished before") == len(done) - 1
    assert json.loads(results.with_suffix(".json").read_text())["cells"] == record["cells"]


def _write_tiny_configs(folder: Path) -> None:
    """The configs of the ablation with a handful of videos, and three cells."""
    folder.mkdir()
    for path in CONFIGS.glob("*.yaml"):
        config = yaml.safe_load(path.read_text())
        if "max_steps" in config:
            config |= {"max_steps": 2, "per_device_train_batch_size": 2}
            config["data"]["source"]["num_videos"] = {"train": 3, "validation": 1, "heldout": 2}
            config["run"]["log_every"], config["checkpoints"] = 1, {}
            config.pop("validation", None)
        if path.stem == "cells":
            config["cells"] = {name: config["cells"][name] for name in ("default", "one_query", "trim")}
        (folder / path.name).write_text(yaml.safe_dump(config))
