"""Evaluate one checkpoint on one split: evaluation.predict, then metrics with controls and a Markdown table.

python -m evaluation.run --config configs/demo/evaluate.yaml checkpoint=outputs/demo/sft/checkpoint out=outputs/demo/eval
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs.checkpoints import write_atomically
from configs.command_line import config_from_command_line
from configs.evaluation import EvaluationConfig
from configs.run import quiet_environment, setup_logging
from evaluation.predict import Predicted, count_failures, end_with_status, predict

logger = logging.getLogger("evaluation.run")

COLUMNS = ("m_tIoU", "m_vIoU", "vIoU@0.3", "vIoU@0.5", "gt_vIoU", "parse_rate")


def main() -> None:
    """Entry point."""
    config = config_from_command_line(EvaluationConfig, __doc__)
    quiet_environment()
    setup_logging()
    predicted = predict(config)
    metrics = evaluate(config, predicted)
    logger.info("%s\n%s", config.checkpoint, markdown_table(metrics))
    end_with_status(predicted.right)


def evaluate(config: EvaluationConfig, predicted: Predicted) -> dict[str, Any]:
    """Score, and write metrics.json and report.md into `config.out`. -> the content of metrics.json."""
    import numpy as np

    from evaluation.metrics import best_constant, paired_difference, score, summarize

    samples, out = predicted.samples, Path(config.out)
    options = {"num_resamples": config.num_resamples, "seed": config.seed}
    scores = score(samples, predicted.right)
    metrics: dict[str, Any] = {"right_query": summarize(scores, **options)}
    for query_type in ("declarative", "interrogative"):
        mask = np.array([sample.query_type == query_type for sample in samples])
        if mask.any():
            metrics[query_type] = summarize(scores.subset(mask), **options)
    if predicted.wrong is not None:
        wrong_scores = score(samples, predicted.wrong)
        metrics["wrong_query"] = summarize(wrong_scores, **options)
        metrics["right_minus_wrong"] = paired_difference(scores, wrong_scores, **options)
    metrics["constant"] = summarize(best_constant(samples), **options)
    metrics["failures"] = {p.sample_id: p.failure for p in predicted.right if p.failure}
    metrics["num_failures"] = count_failures(predicted.right)
    write_atomically(out / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    write_atomically(out / "report.md", markdown_table(metrics) + "\n")
    return metrics


def markdown_table(metrics: Mapping[str, Any]) -> str:
    """Rows of metrics.json as a table; intervals are 95 % bootstrap."""
    rows = {
        "right query": "right_query",
        "- declarative": "declarative",
        "- interrogative": "interrogative",
        "wrong query": "wrong_query",
        "best constant": "constant",
    }
    lines = ["| | n | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 2) + "|"]
    for title, key in rows.items():
        if key in metrics:
            cells = [_cell(metrics[key], column) for column in COLUMNS]
            lines.append(f"| {title} | {metrics[key]['n']} | " + " | ".join(cells) + " |")
    if "right_minus_wrong" in metrics:
        cells = [_difference(metrics["right_minus_wrong"][column]) for column in COLUMNS]
        lines.append("| right - wrong | | " + " | ".join(cells) + " |")
    counts = ", ".join(f"{count} {reason}" for reason, count in metrics.get("num_failures", {}).items())
    return "\n".join([*lines, *(["", f"Without an answer, counted as 0: {counts}."] if counts else [])])


def _cell(row: Mapping[str, Any], column: str) -> str:
    low, high = row[f"{column}_ci95"]
    return f"{row[column]:.3f} [{low:.3f}, {high:.3f}]"


def _difference(entry: Mapping[str, Any]) -> str:
    low, high = entry["ci95"]
    return f"{entry['mean']:+.3f} [{low:+.3f}, {high:+.3f}]"


if __name__ == "__main__":
    main()
