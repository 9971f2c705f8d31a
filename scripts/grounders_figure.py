"""The figure of a comparison of grounders: scores after SFT and after GRPO, and what a video takes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes

from scripts.grounder_cells import TITLES

SCORES = ("m_tIoU", "m_vIoU", "gt_vIoU")
COLOURS = {"sft": "C0", "grpo": "C1"}


def draw_grounders(record: Mapping[str, Any], path: Path) -> None:
    """One panel for each score, a pair of points for each grounder; and one for tokens and seconds of an answer.

    record: as it is in the .json.
    """
    figure, axes = pyplot.subplots(1, len(SCORES) + 1, figsize=(13, 3.6), squeeze=False)
    for axis, column in zip(axes.flat, SCORES, strict=False):
        _draw_score(axis, record, column)
    axes[0, 0].legend(fontsize=8)
    _draw_cost(axes[0, -1], record)
    figure.supxlabel("bars: 95 % bootstrap intervals over sentences; dots: seeds", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _draw_score(axis: Axes, record: Mapping[str, Any], column: str) -> None:
    names = list(record["grounders"])
    for shift, (step, entries) in zip((-0.12, 0.12), record["steps"].items(), strict=True):
        for name, entry in entries.items():
            place, colour = names.index(name) + shift, COLOURS[step]
            axis.plot([place, place], entry["values"][f"{column}_ci95"], color=colour, linewidth=1.5)
            axis.plot(
                place,
                entry["values"][column],
                "o",
                color=colour,
                label=TITLES[step] if name == next(iter(entries)) else None,
            )
            axis.plot([place] * len(entry["seeds"]), entry["by_seed"][column], ".", color="black", markersize=3)
    axis.set_xticks(range(len(names)), names, fontsize=8)
    axis.set_title(column, fontsize=10)
    axis.tick_params(axis="y", labelsize=8)
    axis.grid(axis="y", alpha=0.25)


def _draw_cost(axis: Axes, record: Mapping[str, Any]) -> None:
    for step, entries in record["steps"].items():
        for name, entry in entries.items():
            place = (entry["generated_tokens"], 1000 * entry["seconds_per_sample"])
            axis.plot(*place, "o", color=COLOURS[step])
            axis.annotate(name, place, fontsize=8, xytext=(5, -3), textcoords="offset points")
    axis.set_xlim(0, 1.3 * axis.get_xlim()[1])
    axis.set_ylim(bottom=0)
    axis.set_title("an answer: milliseconds by tokens", fontsize=10)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25)
