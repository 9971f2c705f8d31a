"""Temporal grounding: R@1 at IoU thresholds and mIoU, in seconds (TALL, 1705.02101; spec of Charades-STA's users).

The IoU is that with the true window that fits best where there are several, as in QVHighlights' R1. DiDeMo's are the
answers of several people to one question, so there it is the mean over the three that fit best (LisaAnne/
LocalizingMoments: utils/eval.py, `eval_predictions`; R@1 of that mean is ours). R@1 counts IoU >= m: both sides are often whole seconds, so hits of exactly 0.5 are common. Windows are taken as they are written;
an end past the video is not cut.

Shapes: B samples, W true windows of the sample that has most.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from data.answers import SpanSec, parse_answer
from data.geometry import span_iou
from data.types import GroundingSample
from evaluation.predictions import Prediction, ScoreError

Window = tuple[float, float]
RECALL_AT = (0.3, 0.5, 0.7)
DIDEMO, DIDEMO_ANNOTATORS = "didemo", 3


def true_windows(sample: GroundingSample) -> tuple[Window, ...]:
    """All annotated intervals in seconds of the clip."""
    return sample.windows_sec or (sample.span_sec,)


def answered_window(sample: GroundingSample, prediction: Prediction) -> Window | None:
    """The one interval that is answered, in seconds: as written, else the first of several, else from frames or text.

    Raises ScoreError for an answer in frames alone where nobody knows how many there are in a second.
    """
    if prediction.failure:
        return None
    if prediction.span_sec is not None:
        return prediction.span_sec
    if prediction.windows_sec:
        return prediction.windows_sec[0][:2]
    if prediction.span is not None:
        if not sample.is_probed:
            raise ScoreError(
                f"prediction {prediction.sample_id!r}: span {list(prediction.span)} is in frames and the annotation has no "
                "frame rate; expected span_sec, windows_sec or text in seconds, or annotations of data.prepare --videos"
            )
        start, end = ((frame - sample.clip.start) / sample.fps for frame in prediction.span)
        return start, end
    answer = parse_answer(sample, prediction.text)
    return (answer.start_sec, answer.end_sec) if isinstance(answer, SpanSec) else None


def best_iou(answers: Sequence[Window | None], truths: Sequence[Sequence[Window]], *, num_best: int = 1) -> np.ndarray:
    """Mean IoU with the `num_best` best true windows, or all where there are fewer; 0 without an answer. -> [B] float64."""
    pred_B2 = torch.tensor([answer or (0.0, 0.0) for answer in answers], dtype=torch.float64)
    gt_BW2 = pad_sequence([torch.tensor(windows, dtype=torch.float64) for windows in truths], batch_first=True)
    best_BK = span_iou(pred_B2[:, None], gt_BW2).sort(dim=1, descending=True).values[:, :num_best]
    return best_BK.sum(dim=1).numpy() / [min(num_best, len(windows)) for windows in truths]


def temporal_columns(samples: Sequence[GroundingSample], predictions: Sequence[Prediction]) -> dict[str, np.ndarray]:
    """mIoU, R@1 at each threshold and parse rate, one value for each sample."""
    pairs = list(zip(samples, predictions, strict=True))
    answers = [answered_window(sample, prediction) for sample, prediction in pairs]
    truths = [true_windows(sample) for sample in samples]
    is_didemo_B = np.array([sample.source == DIDEMO for sample in samples])
    iou_B = np.where(is_didemo_B, best_iou(answers, truths, num_best=DIDEMO_ANNOTATORS), best_iou(answers, truths))
    recall = {f"R1@{threshold}": (iou_B >= threshold).astype(float) for threshold in RECALL_AT}
    parsed_B = np.array([answer is not None for answer in answers], dtype=float)
    return {"mIoU": iou_B, **recall, "parse_rate": parsed_B}
