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
    """One row for each cell that has a difference, the lowest m_vIoU at the bottom; dots: single seeds."""
    drawn = {name: entry["minus_default"] for name, entry in entries.items() if "minus_default" in entry}
    names = sorted(drawn, key=lambda name: drawn[name]["m_vIoU"]["mean"])
    figure, axes = pyplot.subplots(1, len(PANELS), figsize=(10, 1.2 + 0.3 * len(names)), sharey=True, squeeze=False)
    for axis, column in zip(axes.flat, PANELS, strict=True):
        _draw_panel(axis, column, [drawn[name][column] for name in names])
    axes[0, 0].set_yticks(range(len(names)), names, fontsize=8)
    figure.supxlabel("bars: 95 % bootstrap intervals over sentences; dots: seeds, where there are several", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _draw_panel(axis: Axes, column: str, differences: list[Mapping[str, Any]]) -> None:
    axis.axvline(0, color="0.6", linewidth=0.8)
    for row, difference in enumerate(differences):
        low, high = difference["ci95"]
        colour = "C0" if low <= 0 <= high else "C3"
        axis.plot([low, high], [row, row], color=colour, linewidth=1.5)
        axis.plot(difference["mean"], row, "o", color=colour, markersize=5)
        if len(difference["by_seed"]) > 1:
            axis.plot(difference["by_seed"], [row] * len(difference["by_seed"]), ".", color="black", markersize=3)
    axis.set_title(f"{column}, difference to the default", fontsize=10)
    axis.tick_params(labelsize=8)
    axis.grid(axis="x", alpha=0.25)
