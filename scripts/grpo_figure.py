"""The figure of a study of GRPO: each arm's difference to the checkpoint that it started from, with its interval."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes

PANELS = ("m_tIoU", "m_vIoU")


def draw_arms(record: Mapping[str, Any], path: Path) -> None:
    """One row for each arm of each grounder, a panel for each score; GRPO and supervised arms in two colours.

    record: as it is in the .json.
    """
    rows = [
        (f"{name}: {arm}", entry["differences"][f"{arm} - checkpoint"], arm in record["arms"][name]["grpo"])
        for name, entry in record["grounders"].items()
        for arm in entry["arms"]
        if arm != "checkpoint"
    ]
    figure, axes = pyplot.subplots(1, len(PANELS), figsize=(10, 1.2 + 0.35 * len(rows)), sharey=True, squeeze=False)
    for axis, column in zip(axes.flat, PANELS, strict=True):
        _draw_panel(axis, column, rows)
    axes[0, 0].set_yticks(range(len(rows)), [title for title, _, _ in rows], fontsize=8)
    axes[0, 0].invert_yaxis()
    figure.supxlabel(
        "orange: GRPO, blue: supervised; bars: 95 % bootstrap intervals over sentences; black: seeds", fontsize=8
    )
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _draw_panel(axis: Axes, column: str, rows: list[tuple[str, Mapping[str, Any], bool]]) -> None:
    axis.axvline(0, color="0.6", linewidth=0.8)
    for place, (_, difference, is_grpo) in enumerate(rows):
        shown, colour = difference[column], "C1" if is_grpo else "C0"
        axis.plot(shown["ci95"], [place, place], color=colour, linewidth=1.5)
        axis.plot(shown["mean"], place, "o", color=colour, markersize=5)
        axis.plot(shown["by_seed"], [place] * len(shown["by_seed"]), ".", color="black", markersize=3)
    axis.set_title(f"{column}, difference to the checkpoint", fontsize=10)
    axis.tick_params(labelsize=8)
    axis.grid(axis="x", alpha=0.25)
