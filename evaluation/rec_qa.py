"""Referring expressions (one box in one image) and multiple-choice questions.

Acc@0.5 counts IoU > 0.5 (VLM-R1: src/eval/test_rec_r1.py); others count >= 0.5, which is the second column. An answer
without a box or a letter is wrong and stays in the denominator.
"""

from collections.abc import Sequence

import numpy as np
import torch

from data.answers import Choice, parse_answer
from data.geometry import box_iou
from data.ragged_boxes import NO_BOX
from data.types import BoxPx, GroundingSample
from evaluation.predictions import Prediction

REC_IOU = 0.5


def answered_box(sample: GroundingSample, prediction: Prediction) -> BoxPx | None:
    """The box at the sample's one frame, in pixels."""
    return None if prediction.failure else prediction.boxes.get(sample.clip.start)


def rec_columns(samples: Sequence[GroundingSample], predictions: Sequence[Prediction]) -> dict[str, np.ndarray]:
    """Accuracy, mean IoU and parse rate, one value for each sample."""
    answers = [answered_box(sample, prediction) for sample, prediction in zip(samples, predictions, strict=True)]
    truth = [_true_box(sample) for sample in samples]
    answers_B4 = torch.tensor([box or NO_BOX for box in answers], dtype=torch.float64)
    iou_B = box_iou(answers_B4, torch.tensor(truth, dtype=torch.float64)).numpy()
    return {
        "Acc@0.5": (iou_B > REC_IOU).astype(float),
        "Acc@0.5 (>=)": (iou_B >= REC_IOU).astype(float),
        "mIoU": iou_B,
        "parse_rate": np.array([answer is not None for answer in answers], dtype=float),
    }


def _true_box(sample: GroundingSample) -> BoxPx:
    boxes = sample.boxes_xyxy_px or (None,)
    if boxes[0] is None:
        raise ValueError(f"sample {sample.sample_id!r} (rec) has no true box and cannot be scored")
    return boxes[0]


def answered_letter(sample: GroundingSample, prediction: Prediction) -> str | None:
    """The letter of the option, "A", "B", ..."""
    if prediction.failure:
        return None
    if prediction.choice is not None:
        return prediction.choice
    answer = parse_answer(sample, prediction.text)
    return answer.letter if isinstance(answer, Choice) else None


def qa_columns(samples: Sequence[GroundingSample], predictions: Sequence[Prediction]) -> dict[str, np.ndarray]:
    """Accuracy and parse rate, one value for each sample."""
    answers = [answered_letter(sample, prediction) for sample, prediction in zip(samples, predictions, strict=True)]
    right = [answer == sample.choice for answer, sample in zip(answers, samples, strict=True)]
    parsed = [answer is not None for answer in answers]
    return {"accuracy": np.array(right, dtype=float), "parse_rate": np.array(parsed, dtype=float)}
