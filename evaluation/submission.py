"""Predictions in the format that a benchmark's own server or script takes.

    python -m evaluation.submission --predictions P --annotations HCSTVG --source hcstvg_v2 --split test --out results.json

stvg, HC-STVG's result file (tzhhhh123/HC-STVG: eval_hcvg.py), one JSON object:
    {"3_5MxjqHfkWFI.mkv": {"st_frame": 111, "ed_frame": 130, "bbox": {"111": [20.0, 10.0, 40.0, 30.0], ..., "130": [...]}}}
Its annotations count frames from 1, and so do results: our half-open [110, 130) is 111 .. 130, `ed_frame` inclusive.
There is a box (left, top, right, bottom) at every frame. A sample without an answer is left out, which scores 0. An answer
without any box, or past the clip, is an error; so is one in seconds to a sample of unknown frame rate, as those of HC-STVG
v2's test split are until `data.prepare --videos` has looked at the files.

temporal, QVHighlights' submission (jayleicn/moment_detr: standalone_eval), JSON lines:
    {"qid": 2579, "query": "...", "vid": "NUsG9BgSes0_210.0_360.0", "pred_relevant_windows": [[0.0, 70.0, 0.9], ...]}
Every query has to be there: one without an answer gets an empty window, which scores 0.
"""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from configs.checkpoints import write_atomically
from configs.command_line import check_out_file, explained
from configs.run import setup_logging
from data.annotations import AnnotationError
from data.types import GroundingSample
from evaluation.annotation_files import add_file_arguments, read_annotations
from evaluation.metrics import answered_span
from evaluation.predictions import Prediction, PredictionError, ScoreError, iter_predictions
from evaluation.temporal import answered_window
from evaluation.tube_pairs import predicted_boxes

NO_WINDOW = (0.0, 0.0, 0.0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point. What cannot be read or written ends the process with status 2 and the reason."""
    parser = argparse.ArgumentParser(
        prog="evaluation.submission", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_file_arguments(parser)
    parser.add_argument("--out", required=True, type=Path, help="the file")
    parsed = parser.parse_args(arguments)
    setup_logging()
    with explained(AnnotationError, PredictionError, ScoreError):
        check_out_file(parsed.out)
        write_atomically(parsed.out, _submission(parsed))


def _submission(parsed: argparse.Namespace) -> str:
    split = read_annotations(parsed.annotations, parsed.source, parsed.split, parsed.settings)
    if split.rejected:
        raise split.rejected[0]
    if not parsed.predictions.is_file():
        raise ScoreError(f"{parsed.predictions}: no such predictions file")
    tasks = {sample.task for sample in split.samples}
    predictions = iter_predictions(parsed.predictions)
    if tasks == {"stvg"}:
        return json.dumps(hcstvg_results(split.samples, predictions)) + "\n"
    if tasks == {"temporal"}:
        rows = qvhighlights_rows(split.samples, predictions)
        return "".join(json.dumps(row) + "\n" for row in rows)
    raise ScoreError(f"{parsed.annotations}: expected samples of stvg alone or of temporal alone, got {sorted(tasks)}")


def hcstvg_results(samples: Sequence[GroundingSample], predictions: Iterable[Prediction]) -> dict[str, Any]:
    """{video name: result}; the sample id of HC-STVG is the name of its video. Raises ScoreError."""
    by_id = _by_id(samples)
    spans = ((prediction, _span_of(_sample_of(by_id, prediction), prediction)) for prediction in predictions)
    return {prediction.sample_id: _result(prediction, span) for prediction, span in spans if span[0] < span[1]}


def _span_of(sample: GroundingSample, prediction: Prediction) -> tuple[int, int]:
    """The answered interval in frames of the video, inside of the clip; (0, 0) for a failure. Raises ScoreError."""
    span, clip = answered_span(sample, prediction), (sample.clip.start, sample.clip.end)
    if span[0] < span[1] and prediction.span is None and not sample.is_probed:
        raise ScoreError(
            f"prediction {prediction.sample_id!r}: {prediction.text!r} is in seconds and the annotation has no frame rate; "
            "expected a span in frames, or annotations of data.prepare --videos"
        )
    if span[0] < span[1] and not clip[0] <= span[0] < span[1] <= clip[1]:
        raise ScoreError(
            f"prediction {prediction.sample_id!r}: expected a span inside of the clip {list(clip)}, got {list(span)}"
        )
    return span


def _result(prediction: Prediction, span: tuple[int, int]) -> dict[str, Any]:
    """Frames from 1, both ends inclusive. Raises ScoreError without a box."""
    boxes = predicted_boxes(replace(prediction, span=span))
    if not boxes:
        raise ScoreError(
            f"prediction {prediction.sample_id!r}: expected a box at one frame of its span {list(span)} at least, got "
            f"boxes at {sorted(prediction.boxes)[:5]}"
        )
    return {
        "st_frame": span[0] + 1,
        "ed_frame": span[1],
        "bbox": {str(frame + 1): list(box) for frame, box in boxes.items()},
    }


def qvhighlights_rows(samples: Sequence[GroundingSample], predictions: Iterable[Prediction]) -> list[dict[str, Any]]:
    """One row for each sample, in order. Raises ScoreError."""
    by_id = _by_id(samples)
    windows = {p.sample_id: _windows(_sample_of(by_id, p), p) for p in predictions}
    return [
        {
            "qid": _qid(sample),
            "query": sample.query,
            "vid": Path(sample.video_path).stem,
            "pred_relevant_windows": [list(window) for window in windows.get(sample.sample_id, [NO_WINDOW])],
        }
        for sample in samples
    ]


def _windows(sample: GroundingSample, prediction: Prediction) -> list[tuple[float, float, float]]:
    """Several in falling order of score, or the one that was answered."""
    if prediction.windows_sec and not prediction.failure:
        return sorted(prediction.windows_sec, key=lambda window: -window[2])
    window = answered_window(sample, prediction)
    return [NO_WINDOW if window is None else (*window, 1.0)]


def _qid(sample: GroundingSample) -> int:
    number = sample.sample_id.rpartition("-")[2]
    if not number.isdecimal():
        raise ScoreError(f"sample {sample.sample_id!r}: expected an id that ends with QVHighlights' qid, ...-2579")
    return int(number)


def _by_id(samples: Sequence[GroundingSample]) -> dict[str, GroundingSample]:
    return {sample.sample_id: sample for sample in samples}


def _sample_of(by_id: Mapping[str, GroundingSample], prediction: Prediction) -> GroundingSample:
    if prediction.sample_id not in by_id:
        raise ScoreError(f"prediction {prediction.sample_id!r} is for a sample that the annotations do not have")
    return by_id[prediction.sample_id]


if __name__ == "__main__":
    main()
