"""The figure of an ablation: each cell's difference to the default with its interval, m_tIoU and m_vIoU side by side."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes

PANELS = ("m_tIoU", "m_vIoU")


def draw_differences(entries: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """One row for each cell that has a difference, the lowest m_vIoU at the bottom.

    entries: as in the record, each with its `effects`.
    """
    drawn = [(name, entry) for name, entry in entries.items() if "minus_default" in entry]
    drawn.sort(key=lambda row: row[1]["minus_default"]["m_vIoU"]["mean"])
    names = [name for name, _ in drawn]
    figure, axes = pyplot.subplots(1, len(PANELS), figsize=(10, 1.2 + 0.3 * len(names)), sharey=True, squeeze=False)
    for axis, column in zip(axes.flat, PANELS, strict=True):
        _draw_panel(axis, column, [entry for _, entry in drawn])
    axes[0, 0].set_yticks(range(len(names)), names, fontsize=8)
    legend = (
        "bars: 95 % bootstrap intervals over sentences; black: seeds, where there are several; red: called an effect"
    )
    figure.supxlabel(legend, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _draw_panel(axis: Axes, column: str, entries: list[Mapping[str, Any]]) -> None:
    axis.axvline(0, color="0.6", linewidth=0.8)
    for row, entry in enumerate(entries):
        difference = entry["minus_default"][column]
        colour = "C0" if entry["effects"][column] == "none seen" else "C3"
        axis.plot(difference["ci95"], [row, row], color=colour, linewidth=1.5)
        axis.plot(difference["mean"], row, "o", color=colour, markersize=5)
        if len(difference["by_seed"]) > 1:
            axis.plot(difference["by_seed"], [row] * len(difference["by_seed"]), ".", color="black", markersize=3)
    axis.set_title(f"{column}, difference to the default", fontsize=10)
    axis.tick_params(labelsize=8)
    axis.grid(axis="x", alpha=0.25)
