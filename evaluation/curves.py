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
import pandas

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase

from configs.base import ConfigError
from configs.command_line import check_out_file, explained
from configs.rft import PHASES
from configs.run import read_metrics, setup_logging

logger = logging.getLogger("evaluation.curves")

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Panel:
    """One set of axes. keys: metrics by legend entry; band: suffix of the metric drawn as a band around its line.

    is_stacked: areas on top of each other, running means, for shares of a whole.
    """

    title: str
    stage: str
    keys: dict[str, str]
    band: str = ""
    log_scale: bool = False
    is_stacked: bool = False


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
    Panel("GRPO: seconds of a step", "rft", {"sum": "seconds/step"}),
    Panel("GRPO: where the time of a step goes", "rft", {phase: f"share/{phase}" for phase in PHASES}, is_stacked=True),
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point. What cannot be read or written ends the process with status 2 and the reason."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", required=True, type=Path, nargs="+", help="run folders, each with a metrics.jsonl")
    parser.add_argument("--out", required=True, type=Path, help="picture to write, such as curves.png")
    parsed = parser.parse_args(arguments)
    setup_logging()
    with explained():
        check_picture(parsed.out)
        draw_curves([_metrics_of(run) for run in parsed.runs], parsed.out)
    logger.info("%s", parsed.out)


def check_picture(path: Path) -> None:
    """Raises ConfigError where no picture can be written there."""
    check_out_file(path)
    kinds = FigureCanvasBase.get_supported_filetypes()
    if path.suffix.removeprefix(".").lower() not in kinds:
        raise ConfigError(
            f"--out {path}: expected a file that ends in one of {', '.join(f'.{kind}' for kind in kinds)}"
        )


def _metrics_of(run: Path) -> Rows:
    if not (run / "metrics.jsonl").is_file():
        raise ConfigError(f"--runs {run}: expected a run folder with metrics.jsonl in it")
    return read_metrics(run / "metrics.jsonl")


def draw_curves(runs: Sequence[Rows], path: Path) -> None:
    """Every panel of which something was logged; runs of one stage follow each other. Raises ConfigError for nothing."""
    panels = [panel for panel in PANELS if any(_has(panel, rows) for rows in of_stage(panel, runs))]
    if not panels:
        raise ConfigError(f"--runs: nothing to draw among {sum(map(len, runs))} rows of metrics")
    columns = min(3, len(panels))
    height = -(-len(panels) // columns)
    figure, axes = pyplot.subplots(height, columns, figsize=(5 * columns, 3.2 * height), squeeze=False)
    for axis, panel in zip(axes.flat, panels, strict=False):
        draw_panel(axis, panel, of_stage(panel, runs))
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    figure.supxlabel("thin: as logged; bold: running mean", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def of_stage(panel: Panel, runs: Sequence[Rows]) -> list[Rows]:
    """Each run's rows of the panel's stage, steps counted on from run to run."""
    parts, offset = [], 0
    for run in runs:
        parts.append([{**row, "step": row["step"] + offset} for row in run if row["stage"] == panel.stage])
        offset = max((row["step"] for row in parts[-1]), default=offset)
    return parts


def _has(panel: Panel, rows: Rows) -> bool:
    return any(row.keys() & set(panel.keys.values()) for row in rows)


def draw_panel(axis: Axes, panel: Panel, runs: Sequence[Rows]) -> None:
    """One panel of the rows of its stage, run by run."""
    if panel.is_stacked:
        _draw_areas(axis, panel, runs)
    else:
        _draw_lines(axis, panel, runs)
    axis.set_title(panel.title, fontsize=10)
    axis.set_xlabel("step", fontsize=8)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25)


def _draw_lines(axis: Axes, panel: Panel, runs: Sequence[Rows]) -> None:
    for number, (label, key) in enumerate(panel.keys.items()):
        drawn = [rows for rows in runs if any(key in row for row in rows)]
        for rows in drawn:
            _draw_line(axis, panel, key, rows, colour=f"C{number}", label=label if rows is drawn[0] else None)
    if panel.log_scale:
        axis.set_yscale("log")
    if len(panel.keys) > 1:
        axis.legend(fontsize=7, ncols=2)


def _draw_line(axis: Axes, panel: Panel, key: str, rows: Rows, *, colour: str, label: str | None) -> None:
    """A running mean over a twelfth of the points, the points themselves behind it, and a band where there is one."""
    points: Any = pandas.DataFrame([row for row in rows if key in row]).set_index("step")
    values = points[key].where(points[key] > 0) if panel.log_scale else points[key]
    rolling = _rolling(len(points))
    smooth = values.rolling(**rolling).mean()
    axis.plot(values.index, values, color=colour, linewidth=0.6, alpha=0.35)
    axis.plot(
        smooth.index, smooth, color=colour, linewidth=1.5, label=label, marker="o" if len(points) < 12 else "", ms=3
    )
    if panel.band and key + panel.band in points:
        spread = points[key + panel.band].rolling(**rolling).mean()
        axis.fill_between(smooth.index, smooth - spread, smooth + spread, color=colour, alpha=0.12, linewidth=0)


def _draw_areas(axis: Axes, panel: Panel, runs: Sequence[Rows]) -> None:
    """What is never above 1 % is left white, at the top; the legend gives means over all steps."""
    rows = [row for rows in runs for row in rows if row.keys() & set(panel.keys.values())]
    points: Any = pandas.DataFrame(rows).set_index("step").reindex(columns=list(panel.keys.values())).fillna(0.0)
    shares = {label: points[key] for label, key in panel.keys.items() if points[key].max() > 0.01}
    smooth = [share.rolling(**_rolling(len(points))).mean() for share in shares.values()]
    labels = [f"{label} {share.mean():.0%}" for label, share in shares.items()]
    axis.stackplot(points.index, smooth, labels=labels, colors=pyplot.get_cmap("tab20").colors)  # type: ignore[attr-defined]
    axis.set_ylim(0, 1)
    axis.legend(fontsize=6, ncols=3, loc="lower left")


def _rolling(count: int) -> dict[str, Any]:
    """A centred window over a twelfth of the points."""
    return {"window": max(1, count // 12), "center": True, "min_periods": 1}


if __name__ == "__main__":
    main()
