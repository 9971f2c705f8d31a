"""histograms.png: how long clips, spans and sentences are, every split as a line of its own colour."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data.preparation.report import Measures

PANELS = {
    "clip_sec": "Clip, seconds",
    "span_sec": "Span, seconds",
    "span_share": "Span / clip",
    "words": "Words in a sentence",
}
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9")
"""Told apart by colour-blind readers too (Okabe and Ito)."""
NUM_BINS = 40
SHOWN_SHARE = 0.995
"""Of the values, from the smallest on; a few very long ones would leave nothing to see."""


def draw_histograms(path: Path, splits: Mapping[str, Measures], *, title: str) -> None:
    """Write the picture; the same numbers give the same bytes."""
    # Imported here: the processes that look at videos import what this command imports.
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(10, 6.2), layout="constrained", dpi=130)
        panels = figure.subplots(2, 2)
        for axes, (name, label) in zip(panels.flat, PANELS.items(), strict=True):
            values = {split: measures.of(name) for split, measures in splits.items()}
            _draw_panel(axes, values, label, whole=name == "words")
        figure.suptitle(title, fontsize=12, x=0.01, ha="left", fontweight="bold")
        figure.savefig(path, format="png", metadata={"Software": None})


def _draw_panel(axes: Any, values: Mapping[str, np.ndarray], label: str, *, whole: bool) -> None:
    """Percent of each split's samples by bin, with the median named."""
    everything = np.concatenate([np.empty(0), *values.values()])
    axes.set_xlabel(label)
    axes.set_ylabel("% of samples")
    if not len(everything):
        axes.text(0.5, 0.5, "none", transform=axes.transAxes, ha="center", color="grey")
        return
    edges = _edges(everything, whole=whole)
    for (split, values_N), colour in zip(values.items(), _colours(len(values)), strict=True):
        _draw_split(axes, split, values_N, edges, colour)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    # Above the axes: inside, it would lie on the curves of one panel or another.
    axes.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)


def _draw_split(axes: Any, split: str, values_N: np.ndarray, edges: np.ndarray, colour: str) -> None:
    if not len(values_N):
        return
    counts, _ = np.histogram(values_N, edges)
    share = 100 * counts / len(values_N)
    beyond = int((values_N > edges[-1]).sum())
    more = f", {beyond:,} beyond" if beyond else ""
    name = f"{split}: median {np.median(values_N):.3g}, n = {len(values_N):,}{more}"
    axes.stairs(share, edges, fill=True, color=colour, alpha=0.25)
    axes.stairs(share, edges, color=colour, linewidth=1.3, label=name)


def _edges(values: np.ndarray, *, whole: bool) -> np.ndarray:
    """From 0 on; whole numbers from 1 on, a bin around each as far as there are not too many."""
    top = float(np.quantile(values, SHOWN_SHARE))
    if whole:
        width = max(1, int(np.ceil(top / NUM_BINS)))
        return np.arange(1, top + width + 1, width) - 0.5
    return np.linspace(0, max(top, 1e-3), NUM_BINS + 1)


def _colours(count: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(count)]
