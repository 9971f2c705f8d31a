"""Mean average precision of several predicted windows, as QVHighlights is scored (2107.09609: standalone_eval/eval.py).

For each query and IoU threshold: predictions in falling order of score; each takes the free true window with the
highest IoU, provided that it reaches the threshold (>=), or is a false positive. Average precision is interpolated: the
precision at a recall is the highest at that recall or beyond. mAP averages over queries, `average` over thresholds.

DiDeMo has no mAP: its windows are several people's answers for the same moment.

A range counts queries that have a true window of such a length, and of these only the true windows; all predictions.
"""

from collections.abc import Sequence

import numpy as np
import torch

from data.geometry import span_iou
from data.types import GroundingSample
from evaluation.predictions import Prediction
from evaluation.temporal import DIDEMO, Window, answered_window, true_windows

MAP_AT = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
RANGES_SEC = {"short": (0.0, 10.0), "middle": (10.0, 30.0), "long": (30.0, 150.0)}
"""Lower end exclusive, upper end inclusive."""
MAX_WINDOWS = 10
ScoredWindow = tuple[float, float, float]


def map_columns(samples: Sequence[GroundingSample], predictions: Sequence[Prediction]) -> dict[str, np.ndarray]:
    """mAP at 0.5, at 0.75, the average over 0.5 .. 0.95, and that of each range; NaN where a range has no window, and of
    DiDeMo's samples."""
    rows = [_query(sample, prediction) for sample, prediction in zip(samples, predictions, strict=True)]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]} if rows else {}


def has_ranking(sample: GroundingSample) -> bool:
    """Whether several windows are to be found."""
    return sample.source == "qvhighlights" or (len(sample.windows_sec) > 1 and sample.source != DIDEMO)


def _query(sample: GroundingSample, prediction: Prediction) -> dict[str, float]:
    if sample.source == DIDEMO:
        return dict.fromkeys(["mAP@0.5", "mAP@0.75", "mAP", *(f"mAP {name}" for name in RANGES_SEC)], float("nan"))
    answers, truth = _answers(sample, prediction), true_windows(sample)
    precisions = average_precisions(answers, truth)
    row = {"mAP@0.5": precisions[0], "mAP@0.75": precisions[MAP_AT.index(0.75)], "mAP": float(np.mean(precisions))}
    for name, (low, high) in RANGES_SEC.items():
        within = [window for window in truth if low < window[1] - window[0] <= high]
        row[f"mAP {name}"] = float(np.mean(average_precisions(answers, within))) if within else float("nan")
    return row


def _answers(sample: GroundingSample, prediction: Prediction) -> list[ScoredWindow]:
    """At most ten; the one window of an answer without scores counts as one."""
    if prediction.failure:
        return []
    if prediction.windows_sec:
        return list(prediction.windows_sec[:MAX_WINDOWS])
    window = answered_window(sample, prediction)
    return [] if window is None else [(*window, 1.0)]


def average_precisions(answers: Sequence[ScoredWindow], truth: Sequence[Window]) -> list[float]:
    """The interpolated average precision of one query at each threshold of MAP_AT. Times are in seconds."""
    ranked = sorted(answers, key=lambda window: -window[2])
    pred_A2 = torch.tensor([window[:2] for window in ranked], dtype=torch.float64).reshape(-1, 2)
    ious = span_iou(pred_A2[:, None], torch.tensor(truth, dtype=torch.float64)).numpy()
    return [_average_precision(_hits(ious, threshold), len(truth)) for threshold in MAP_AT]


def _hits(ious: np.ndarray, threshold: float) -> np.ndarray:
    """Which of the ranked answers, rows of `ious`, find a true window that was free. -> [answers] float."""
    free = np.ones(ious.shape[1], dtype=bool)
    hits = np.zeros(len(ious))
    for row, iou in enumerate(ious):
        candidates = np.flatnonzero(free & (iou >= threshold))
        if len(candidates):
            free[candidates[iou[candidates].argmax()]] = False
            hits[row] = 1.0
    return hits


def _average_precision(hits: np.ndarray, num_true: int) -> float:
    if len(hits) == 0:
        return 0.0
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((envelope * hits).sum() / num_true)
