"""The report of an ablation, from the cells that have finished: tables, a figure, and what follows.

    python -m scripts.ablation_report --configs configs/ablation --out outputs/ablation --results docs/results/bridge_ablation

A difference to the default is paired by sentence, and its bootstrap interval is over sentences. Of several seeds each
sentence's scores are averaged first; how far the seeds differ is shown beside it, and decides too (`effects`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors import safe_open

from configs.base import ConfigError
from configs.command_line import explained
from configs.run import setup_logging
from evaluation.metrics import Scores
from scripts.ablation_cells import DEFAULT, Cell, load_cells, trained_folder
from scripts.ablation_figure import draw_differences
from scripts.ablation_text import markdown
from scripts.demo_summary import COLUMNS, held_out_samples, run_record
from scripts.reports import study_parser, write_report
from scripts.seed_scores import right_and_wrong, seed_of, shared_seed_differences, summarize_seeds, train_minutes

JUDGED = ("m_tIoU", "m_vIoU")
"""What a verdict is about."""


@dataclass(frozen=True)
class CellRun:
    """One cell with one seed: scores of the held-out sentences, right and wrong, and what it took.

    parameters: of the grounder. minutes: of the training's steps.
    """

    right: Scores
    wrong: Scores
    parameters: int
    minutes: float


Runs = Mapping[str, Mapping[int, CellRun]]
"""Cell -> seed -> run."""
Entry = dict[str, Any]


def main() -> None:
    """Entry point."""
    arguments = study_parser(__doc__, configs="configs/ablation", out="outputs/ablation").parse_args()
    setup_logging()
    with explained():
        cells = load_cells(arguments.configs)
        publish(cells, arguments.out, arguments.results, module="scripts.ablation_report")


def publish(cells: Mapping[str, Cell], out: Path, results: Path, *, module: str) -> None:
    """{results}.json, {results}.md and {results}.png."""
    configs = sorted(out.glob(f"cells/{DEFAULT}/*/train/config.yaml"))
    if not configs:
        raise ConfigError(f"{out}: no training of the cell {DEFAULT!r}; run scripts.ablate first, or give its --out")
    entries = summarize_cells(cells, read_runs(cells, out))
    noise = difference_std(entries)
    for entry in entries.values():
        entry["effects"] = effects(entry, noise)
    record = run_record(module, [out, *sorted(out.glob("cells/*/*"))]) | {
        "num_videos": len({sample.video_path for sample in held_out_samples(out)}),
        "seed_std": seed_std(entries),
        "difference_std": noise,
        "missing": [name for name in cells if name not in entries],
        "default_config": yaml.safe_load(configs[0].read_text()),
        "cells": entries,
    }
    write_report(results, record, markdown, lambda record, path: draw_differences(record["cells"], path))


def read_runs(cells: Mapping[str, Cell], out: Path) -> Runs:
    """The runs that have been evaluated, cells in the order of the table."""
    samples = held_out_samples(out)
    runs: dict[str, dict[int, CellRun]] = {}
    for name, cell in cells.items():
        for path in sorted(out.glob(f"cells/{name}/seed*/eval/metrics.json")):
            seed = seed_of(path.parent.parent)
            right, wrong = right_and_wrong(samples, path.parent)
            trained = trained_folder(out, name, cell, seed) / "train"
            run = CellRun(right, wrong, _grounder_parameters(trained), train_minutes(trained))
            runs.setdefault(name, {})[seed] = run
    return runs


def _grounder_parameters(trained: Path) -> int:
    with safe_open(trained / "checkpoint" / "grounder.safetensors", framework="numpy") as file:
        return sum(int(np.prod(file.get_slice(name).get_shape())) for name in file.keys())  # noqa: SIM118


def summarize_cells(cells: Mapping[str, Cell], runs: Runs) -> dict[str, Entry]:
    """Of each cell that has runs: its changes, values, right - wrong, and the paired difference to the default."""
    entries = {name: _entry(cells[name], of_seed) for name, of_seed in runs.items()}
    for name, of_seed in runs.items():
        default = runs.get(DEFAULT, {})
        if name != DEFAULT and of_seed.keys() & default.keys():
            entries[name]["minus_default"] = shared_seed_differences(of_seed, default)
    return entries


def _entry(cell: Cell, runs: Mapping[int, CellRun]) -> Entry:
    return cell.model_dump() | {
        "seeds": list(runs),
        "parameters": next(iter(runs.values())).parameters,
        "minutes": round(float(np.mean([run.minutes for run in runs.values()])), 2),
        **summarize_seeds(runs),
    }


def seed_std(entries: Mapping[str, Entry]) -> dict[str, float] | None:
    """Standard deviation of a training's score between seeds, pooled over the cells that have several; None without any."""
    return _pooled_std([entry["by_seed"] for name, entry in entries.items() if name == DEFAULT or entry["train"]])


def difference_std(entries: Mapping[str, Entry]) -> dict[str, float] | None:
    """The same of the difference between a cell and the default of one seed, which share samples and frames.

    Cells on the default's own checkpoint are left out: no second training differs there.
    """
    compared = [entry["minus_default"] for entry in entries.values() if entry["train"] and "minus_default" in entry]
    return _pooled_std([{column: row[column]["by_seed"] for column in COLUMNS} for row in compared])


def _pooled_std(by_seed: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, float] | None:
    """Root of the mean variance, of those that have several seeds."""
    several = [columns for columns in by_seed if len(columns[JUDGED[0]]) > 1]
    if not several:
        return None
    return {c: float(np.sqrt(np.mean([np.var(columns[c], ddof=1) for columns in several]))) for c in COLUMNS}


def effects(entry: Entry, noise: Mapping[str, float] | None) -> dict[str, str]:
    """For each judged column `lower`, `higher` or `none seen`; {} for the default.

    Seen is what lies outside of both noises: its interval over sentences excludes 0, and its mean over k seeds is more
    than 2 / sqrt(k) times `difference_std`, which cells on the default's checkpoint do not have.
    """
    found = {}
    for column in JUDGED if "minus_default" in entry else ():
        difference = entry["minus_default"][column]
        low, high = difference["ci95"]
        std = noise[column] if noise is not None and entry["train"] else 0.0
        is_seen = low * high > 0 and abs(difference["mean"]) > 2 * std / len(difference["by_seed"]) ** 0.5
        found[column] = ("higher" if difference["mean"] > 0 else "lower") if is_seen else "none seen"
    return found


if __name__ == "__main__":
    main()
