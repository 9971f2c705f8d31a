"""Score a file of predictions: no model, no video.

    python -m evaluation.score --predictions outputs/demo/eval_grpo/predictions.jsonl \
        --annotations outputs/demo/videos/heldout.jsonl --protocol canon --out outputs/scores
    python -m evaluation.score --predictions P --annotations VIDSTG --source vidstg --split test \
        --protocol stcat --benchmark vidstg_test tracks=VIDOR

What --annotations may be: evaluation/annotation_files.py. Each task is scored by its own metrics; --protocol is that of stvg. Prints Markdown; writes metrics.json and report.md.
"""

import argparse
import gc
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from configs.checkpoints import write_atomically
from configs.command_line import check_out_folder, explained
from data.annotations import AnnotationError
from data.types import GroundingSample, Task
from evaluation.annotation_files import add_file_arguments, read_annotations
from evaluation.benchmarks import BENCHMARKS
from evaluation.comparison import compare_tasks, summarize_task
from evaluation.predictions import PredictionError, iter_predictions
from evaluation.protocols import Dataset, Protocol
from evaluation.report import markdown_report
from evaluation.task_scores import ScoreError, TaskScores, score_tasks


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point. What cannot be read or scored ends the process with status 2 and the reason."""
    parsed = _parser().parse_args(arguments)
    with explained(AnnotationError, PredictionError, ScoreError):
        if parsed.out is not None:
            check_out_folder(parsed.out)
        result = score_files(parsed)
    report = markdown_report(result, BENCHMARKS[parsed.benchmark] if parsed.benchmark else ())
    sys.stdout.write(report)
    if parsed.out is not None:
        parsed.out.mkdir(parents=True, exist_ok=True)
        write_atomically(parsed.out / "metrics.json", json.dumps(result, indent=2) + "\n")
        write_atomically(parsed.out / "report.md", report)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="evaluation.score", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_file_arguments(parser)
    parser.add_argument("--protocol", required=True, choices=get_args(Protocol), help="how stvg is scored")
    parser.add_argument(
        "--dataset",
        choices=get_args(Dataset),
        help="of --protocol stcat; else by each sample's source, which has to be known then",
    )
    parser.add_argument("--compare", type=Path, metavar="PREDICTIONS", help="paired differences to these")
    parser.add_argument("--benchmark", choices=sorted(BENCHMARKS), help="show published numbers beside ours")
    parser.add_argument("--bad-records", choices=("error", "skip"), default="error", help="annotations that do not fit")
    parser.add_argument("--resamples", type=int, default=2000, help="of the bootstrap")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    parser.add_argument("--out", type=Path, help="folder for metrics.json and report.md")
    return parser


def score_files(parsed: argparse.Namespace) -> dict[str, Any]:
    """The content of metrics.json: {"tasks": {task: {"all": {...}, "failures": {...}}}, "compare": ..., ...}.

    Raises AnnotationError, ConfigError, PredictionError and ScoreError.
    """
    split = read_annotations(parsed.annotations, parsed.source, parsed.split, parsed.settings)
    if split.rejected and parsed.bad_records == "error":
        raise split.rejected[0]
    if not split.samples:
        raise AnnotationError(parsed.annotations, "holds no samples")
    options = {"num_resamples": parsed.resamples, "seed": parsed.seed}
    ours = _scores(parsed.predictions, split.samples, parsed)
    result: dict[str, Any] = {
        "predictions": str(parsed.predictions),
        "annotations": str(parsed.annotations),
        "protocol": parsed.protocol,
        "rejected": [str(error) for error in split.rejected],
        "tasks": {task: summarize_task(scores, **options) for task, scores in ours.items()},
    }
    if parsed.compare is not None:
        theirs = _scores(parsed.compare, split.samples, parsed)
        tasks = {task: compare_tasks(ours[task], theirs[task], **options) for task in ours}
        result["compare"] = {"predictions": str(parsed.compare), "tasks": tasks}
    return result


def _scores(path: Path, samples: Sequence[GroundingSample], parsed: argparse.Namespace) -> dict[Task, TaskScores]:
    if not path.is_file():
        raise ScoreError(f"{path}: no such predictions file")
    return score_tasks(samples, iter_predictions(path), protocol=parsed.protocol, dataset=parsed.dataset)


if __name__ == "__main__":
    # Millions of boxes are made and none of them is in a cycle: looking for cycles takes a fifth of the time.
    gc.disable()
    main()
