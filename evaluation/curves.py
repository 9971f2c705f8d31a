"""Training curves of one or several run folders, as one picture.

python -m evaluation.curves --runs outputs/demo/sft outputs/demo/rft --out outputs/demo/curves.png
"""

import argparse
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes

from configs.run import read_metrics, setup_logging

logger = logging.getLogger("evaluation.curves")


@dataclass(frozen=True)
class Panel:
    """One set of axes. keys: metrics by legend entry; band: suffix of the metric drawn as a band around its line."""

    title: str
    stage: str
    keys: dict[str, str]
    band: str = ""
    log_scale: bool = False


LOSSES = ("text", "box_l1", "box_giou", "presence", "alignment", "contrast", "cells")
TERMS = ("total", "format", "temporal", "viou")
PANELS = (
    Panel("SFT: losses", "sft", {name: f"loss/{name}" for name in LOSSES}, log_scale=True),
    Panel("SFT: total", "sft", {"training": "loss/total", "validation": "validation/loss"}, log_scale=True),
    Panel("SFT: gradient norm", "sft", {"before clipping": "optim/grad_norm"}),
    Panel("GRPO: reward terms ± std within groups", "rft", {name: f"reward/{name}" for name in TERMS}, band="_group_std"),
    Panel("GRPO: std within groups", "rft", {name: f"reward/{name}_group_std" for name in TERMS}),
    Panel("GRPO: greedy reward, validation", "rft", {"validation": "validation/reward"}),
    Panel("GRPO: entropy per token", "rft", {"entropy": "policy/entropy"}),
    Panel("GRPO: |log-prob of vLLM - of the trainer|", "rft", {"mean": "mismatch/mean", "max": "mismatch/max"},
          log_scale=True),
    Panel("GRPO: completion length, tokens", "rft", {"mean": "completion/mean_length"}),
)  # fmt: skip


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", required=True, type=Path, nargs="+", help="run folders, each with a metrics.jsonl")
    parser.add_argument("--out", required=True, type=Path)
    arguments = parser.parse_args()
    setup_logging()
    draw_curves([row for run in arguments.runs for row in read_metrics(run / "metrics.jsonl")], arguments.out)
    logger.info("%s", arguments.out)


def draw_curves(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Every panel of which something was logged. Raises ValueError when that is none."""
    panels = [panel for panel in PANELS if any(key in row for row in _of(panel, rows) for key in panel.keys.values())]
    if not panels:
        raise ValueError(f"nothing to draw among {len(rows)} rows of metrics")
    columns = min(3, len(panels))
    height = -(-len(panels) // columns)
    figure, axes = pyplot.subplots(height, columns, figsize=(5 * columns, 3.2 * height), squeeze=False)
    for axis, panel in zip(axes.flat, panels, strict=False):
        _draw_panel(axis, panel, _of(panel, rows))
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _of(panel: Panel, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row["stage"] == panel.stage]


def _draw_panel(axis: Axes, panel: Panel, rows: Sequence[dict[str, Any]]) -> None:
    for label, key in panel.keys.items():
        points = [(row["step"], row[key], row.get(key + panel.band, 0.0)) for row in rows if key in row]
        if not points:
            continue
        steps, values, spreads = (list(column) for column in zip(*points, strict=True))
        (line,) = axis.plot(steps, values, label=label, linewidth=1.4, marker="o" if len(points) < 12 else "", ms=3)
        if panel.band:
            low = [value - spread for value, spread in zip(values, spreads, strict=True)]
            high = [value + spread for value, spread in zip(values, spreads, strict=True)]
            axis.fill_between(steps, low, high, color=line.get_color(), alpha=0.12, linewidth=0)
    axis.set_title(panel.title, fontsize=10)
    axis.set_xlabel("step", fontsize=8)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25)
    if panel.log_scale:
        axis.set_yscale("log")
    if len(panel.keys) > 1:
        axis.legend(fontsize=7, ncols=2)


if __name__ == "__main__":
    main()
