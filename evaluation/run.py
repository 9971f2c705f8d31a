"""Evaluate one checkpoint on one split: evaluation.predict, then metrics with controls and a Markdown table.

python -m evaluation.run --config configs/demo/evaluate.yaml checkpoint=outputs/demo/sft/checkpoint out=outputs/demo/eval
"""

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.checkpoints import write_atomically
from configs.command_line import config_from_command_line
from configs.evaluation import EvaluationConfig
from configs.run import quiet_environment, setup_logging
from evaluation.predict import (
    PREDICTIONS,
    Predicted,
    count_failures,
    end_with_status,
    errors_explained,
    predict,
    seconds_per_sample,
)
from evaluation.predictions import Prediction
from evaluation.report import REJECTED, listing, markdown_report

logger = logging.getLogger("evaluation.run")

COLUMNS = ("m_tIoU", "m_vIoU", "vIoU@0.3", "vIoU@0.5", "gt_vIoU", "parse_rate")


def main() -> None:
    """Entry point."""
    config = config_from_command_line(EvaluationConfig, __doc__)
    quiet_environment()
    setup_logging()
    with errors_explained():
        predicted = predict(config)
    metrics = evaluate(config, predicted)
    logger.info("%s\n%s", config.checkpoint, report(metrics))
    end_with_status(predicted.right)


def evaluate(config: EvaluationConfig, predicted: Predicted) -> dict[str, Any]:
    """Score, and write metrics.json and report.md into `config.out`. -> the content of metrics.json."""
    options = {"num_resamples": config.num_resamples, "seed": config.seed}
    tubes, others = _split(predicted, is_stvg=True), _split(predicted, is_stvg=False)
    metrics = tube_metrics(tubes, **options) if tubes.samples else {}
    if others.samples:
        metrics["other_tasks"] = _other_tasks(others, **options)
    metrics["failures"] = {p.sample_id: p.failure for p in predicted.right if p.failure}
    metrics["num_failures"] = count_failures(predicted.right)
    if trims := count_trims(predicted.right):
        metrics["presence_trim"] = trims
    metrics["rejected"] = [str(error) for error in predicted.rejected]
    out = Path(config.out)
    metrics |= cost(predicted.right, seconds_per_sample(out / PREDICTIONS))
    write_atomically(out / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    write_atomically(out / "report.md", report(metrics) + "\n")
    return metrics


def cost(predictions: Sequence[Prediction], seconds: float | None) -> dict[str, Any]:
    """What an answer took: tokens, on the mean of those that were asked for, and seconds, both where they are known."""
    counts = [prediction.num_tokens for prediction in predictions if prediction.num_tokens is not None]
    known = {"generated_tokens": sum(counts) / len(counts)} if counts else {}
    return known if seconds is None else known | {"seconds_per_sample": round(seconds, 4)}


def count_trims(predictions: Sequence[Prediction]) -> dict[str, int]:
    """What became of the text's intervals, where the presence of the target was asked (model/presence_trim.py)."""
    counts = Counter(prediction.trim for prediction in predictions)
    return {trim: counts[trim] for trim in ("kept", "moved", "absent")} if counts.keys() - {"off"} else {}


def _split(predicted: Predicted, *, is_stvg: bool) -> Predicted:
    def part(predictions: list[Prediction]) -> list[Prediction]:
        return [p for s, p in zip(predicted.samples, predictions, strict=True) if (s.task == "stvg") == is_stvg]

    samples = [sample for sample in predicted.samples if (sample.task == "stvg") == is_stvg]
    wrong = None if predicted.wrong is None else part(predicted.wrong)
    return Predicted(samples, part(predicted.right), wrong, predicted.rejected)


def tube_metrics(predicted: Predicted, **options: int) -> dict[str, Any]:
    """Of stvg samples by the canonical protocol: right and wrong query, their difference, the best constant."""
    import numpy as np

    from evaluation.metrics import best_constant, paired_difference, score, summarize

    samples = predicted.samples
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
    return metrics


def _other_tasks(predicted: Predicted, **options: int) -> dict[str, Any]:
    """Of temporal, rec and qa samples, as evaluation.score has them."""
    from evaluation.comparison import compare_tasks, summarize_task
    from evaluation.task_scores import score_tasks

    right = score_tasks(predicted.samples, predicted.right, protocol="canon")
    result: dict[str, Any] = {
        "predictions": "the other tasks",
        "protocol": "canon",
        "rejected": [str(error) for error in predicted.rejected],
        "tasks": {task: summarize_task(scores, **options) for task, scores in right.items()},
    }
    if predicted.wrong is not None:
        wrong = score_tasks(predicted.samples, predicted.wrong, protocol="canon")
        compared = {task: compare_tasks(right[task], wrong[task], **options) for task in right}
        result["compare"] = {"predictions": "the answers to wrong queries", "tasks": compared}
    return result


def report(metrics: Mapping[str, Any]) -> str:
    """metrics.json as Markdown."""
    parts = [markdown_table(metrics)] if "right_query" in metrics else []
    counts = ", ".join(f"{count} {reason}" for reason, count in metrics["num_failures"].items())
    parts += [f"Without an answer, counted as 0: {counts}."] if counts else []
    if "generated_tokens" in metrics and "seconds_per_sample" in metrics:
        parts.append("{generated_tokens:.1f} tokens and {seconds_per_sample:.3f} s for each answer.".format(**metrics))
    if "presence_trim" in metrics:
        kept, moved, absent = (metrics["presence_trim"][trim] for trim in ("kept", "moved", "absent"))
        parts.append(
            f"Intervals by the presence of the target: {moved} moved, {kept} as the text has them, "
            f"{absent} too since the target was seen in no frame."
        )
    if metrics.get("rejected") and "other_tasks" not in metrics:
        parts.append(listing(REJECTED, metrics["rejected"]))
    if "other_tasks" in metrics:
        parts.append(markdown_report(metrics["other_tasks"]).rstrip())
    return "\n\n".join(parts)


def markdown_table(metrics: Mapping[str, Any]) -> str:
    """The stvg rows of metrics.json as a table; intervals are 95 % bootstrap."""
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
    return "\n".join(lines)


def _cell(row: Mapping[str, Any], column: str) -> str:
    low, high = row[f"{column}_ci95"]
    return f"{row[column]:.3f} [{low:.3f}, {high:.3f}]"


def _difference(entry: Mapping[str, Any]) -> str:
    low, high = entry["ci95"]
    return f"{entry['mean']:+.3f} [{low:+.3f}, {high:+.3f}]"


if __name__ == "__main__":
    main()
