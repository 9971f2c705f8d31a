"""Scoring as many predictions as VidSTG has test sentences: time and memory of the whole command, start and files included.

python -m benchmarks.scoring --samples 10303 --frames 300

Prints one line of JSON: `cpu_seconds`, `wall_seconds` and `peak_gib` of `python -m evaluation.score`, and `imports`: the same
of a process that only imports it (most of that is torch). Every predicted tube has a box at each of
`frames` frames; `--conditioned` adds as many at the true frames.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10303, help="number of predictions")
    parser.add_argument("--frames", type=int, default=300, help="annotated frames of each sample")
    parser.add_argument("--protocol", default="canon", help="of evaluation.score")
    parser.add_argument("--conditioned", action="store_true", help="with boxes for the gt-conditioned metric")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        annotations, predictions = Path(folder) / "annotations.jsonl", Path(folder) / "predictions.jsonl"
        write_files(annotations, predictions, arguments)
        files = ["--annotations", str(annotations), "--predictions", str(predictions)]
        command = ["-m", "evaluation.score", "--protocol", arguments.protocol, *files, "--out", folder]
        start = measure(["-c", "import evaluation.score"])
        whole = measure(command)
        megabytes = sum(path.stat().st_size for path in (annotations, predictions)) / 1e6
    result = {
        "benchmark": "scoring",
        **vars(arguments),
        "megabytes": round(megabytes),
        "imports": start,
        **whole,
    }
    sys.stdout.write(json.dumps(result) + "\n")


def measure(arguments: list[str]) -> dict[str, float]:
    """CPU and wall seconds and the peak memory of a Python process. Raises CalledProcessError."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise subprocess.CalledProcessError(os.waitstatus_to_exitcode(status), arguments)
    return {
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "wall_seconds": round(time.perf_counter() - started, 2),
        "peak_gib": round(usage.ru_maxrss / 2**20, 2),
    }


def write_files(annotations: Path, predictions: Path, arguments: argparse.Namespace) -> None:
    """Random tubes: the prediction is late by up to a third, its boxes are off by a few pixels."""
    rng = np.random.default_rng(0)
    frames = arguments.frames
    with annotations.open("w") as truth, predictions.open("w") as answers:
        for number in range(arguments.samples):
            start, late = int(rng.integers(0, 600)), int(rng.integers(0, frames // 3 + 1))
            corner = rng.uniform(0, 300, 2) + np.arange(frames + late)[:, None] * 0.1
            boxes = np.round(np.concatenate([corner, corner + 80], axis=1), 1)
            shifted = np.round(boxes + rng.normal(0, 5, boxes.shape), 1)
            truth.write(json.dumps(sample_record(number, start, boxes[:frames].tolist())) + "\n")
            answer = prediction_record(number, start + late, shifted[late:].tolist())
            if arguments.conditioned:
                answer["boxes_in_true_span"] = {
                    str(start + 300 + i): box for i, box in enumerate(shifted[:frames].tolist())
                }
            answers.write(json.dumps(answer) + "\n")


def sample_record(number: int, start: int, boxes: list[list[float]]) -> dict[str, Any]:
    """A line of data/sources/jsonl.py: the clip is the span and 300 frames on both sides."""
    span = [start + 300, start + 300 + len(boxes)]
    return {
        "sample_id": f"s{number}",
        "query": "the child in red watches the ball",
        "query_type": "declarative" if number % 9 < 4 else "interrogative",
        "video_path": f"{number}.mp4",
        "fps": 29.97,
        "width": 640,
        "height": 480,
        "clip": [start, span[1] + 300],
        "span": span,
        "boxes_xyxy_px": boxes,
    }


def prediction_record(number: int, start: int, boxes: list[list[float]]) -> dict[str, Any]:
    """A line of evaluation/predictions.py."""
    first = start + 300
    return {
        "sample_id": f"s{number}",
        "span": [first, first + len(boxes)],
        "boxes": {str(first + i): box for i, box in enumerate(boxes)},
    }


if __name__ == "__main__":
    main()
