"""Scores of predictions by the canonical protocol, with bootstrap intervals and controls.

Canonical: all annotated frames count, boxes are interpolated between sampled frames and held to the ends of the
predicted span, thresholds are strict (>), and a failed answer scores 0 and stays in the denominator. The published
evaluators differ in details (TubeDETR scores 5 frames a second, STCAT is off by one on HC-STVG).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import bootstrap

from data.answers import Answer, ParseFailure, SpanSec, parse_answer
from data.geometry import box_iou, gt_tube_iou, normalize_boxes, span_iou
from data.tubes import TubeBatch, tube_batch
from data.types import BoxPx, GroundingSample
from evaluation.predictions import Prediction

THRESHOLDS = (0.3, 0.5)
CHUNK = 256  # samples scored at a time: dense tubes are as long as the longest


@dataclass(frozen=True)
class Scores:
    """One value per sample, in order."""

    tiou: np.ndarray
    viou: np.ndarray
    gt_viou: np.ndarray
    parsed: np.ndarray

    def columns(self) -> dict[str, np.ndarray]:
        """What the table's means are taken of."""
        above = {f"vIoU@{r}": (self.viou > r).astype(float) for r in THRESHOLDS}
        return {"m_tIoU": self.tiou, "m_vIoU": self.viou, **above, "gt_vIoU": self.gt_viou, "parse_rate": self.parsed}

    def subset(self, mask: np.ndarray) -> "Scores":
        """The samples of a mask."""
        return Scores(self.tiou[mask], self.viou[mask], self.gt_viou[mask], self.parsed[mask])


def score(samples: Sequence[GroundingSample], predictions: Sequence[Prediction]) -> Scores:
    """Score predictions against the samples of the same id. Raises ValueError where the ids differ."""
    ours, theirs = [s.sample_id for s in samples], [p.sample_id for p in predictions]
    if ours != theirs:
        raise ValueError(f"predictions do not belong to the samples: {theirs[:3]}... for {ours[:3]}...")
    parts = [
        _score(samples[start : start + CHUNK], predictions[start : start + CHUNK])
        for start in range(0, len(samples), CHUNK)
    ]
    return Scores(*(np.concatenate(column) for column in zip(*map(_columns, parts), strict=True)))


def _columns(scores: Scores) -> tuple[np.ndarray, ...]:
    return scores.tiou, scores.viou, scores.gt_viou, scores.parsed


def _score(samples: Sequence[GroundingSample], predictions: Sequence[Prediction]) -> Scores:
    answers = [parse_answer(sample, prediction.text) for sample, prediction in zip(samples, predictions, strict=True)]
    tubes = _tubes(samples, answers, [prediction.boxes for prediction in predictions])
    conditioned = _tubes(samples, answers, [prediction.boxes_in_true_span for prediction in predictions])
    return Scores(
        tiou=tubes.tiou().numpy(),
        viou=tubes.viou().numpy(),
        gt_viou=gt_tube_iou(conditioned.pred_boxes_BF4, tubes.gt_boxes_BF4, tubes.gt_has_box_BF).numpy(),
        parsed=tubes.parsed_B.numpy().astype(float),
    )


def _tubes(
    samples: Sequence[GroundingSample],
    answers: Sequence[Answer | ParseFailure],
    boxes_px: Sequence[Mapping[int, BoxPx]],
) -> TubeBatch:
    width = max(1, max(len(boxes) for boxes in boxes_px))
    boxes_BT4, frames_BT = torch.zeros(len(samples), width, 4), torch.full((len(samples), width), 2**23)
    valid_BT = torch.zeros(len(samples), width, dtype=torch.bool)
    for b, (sample, boxes) in enumerate(zip(samples, boxes_px, strict=True)):
        count = len(boxes)
        if count:
            px_T4 = torch.tensor([boxes[frame] for frame in sorted(boxes)])
            boxes_BT4[b, :count] = normalize_boxes(px_T4, width=sample.width, height=sample.height)
            frames_BT[b, :count] = torch.tensor(sorted(boxes))
            valid_BT[b, :count] = True
    return tube_batch(samples, answers, boxes_BT4, frames_BT, valid_BT)


def best_constant(samples: Sequence[GroundingSample], *, steps: int = 40) -> Scores:
    """The control that looks at nothing: the best fixed share of the clip, with one fixed box.

    Both are chosen on these very samples. The interval by m_tIoU, so that up to the grid of 1 / steps no constant
    interval scores higher; the box is the true box with the highest mean IoU to (at most `limit` of) the others.
    """
    grid = np.linspace(0.0, 1.0, steps + 1)
    candidates = torch.tensor([(a, b) for a in grid for b in grid if a < b], dtype=torch.float32)
    spans = torch.tensor([sample.span_sec for sample in samples])
    durations = torch.tensor([sample.duration_sec for sample in samples])
    mean_tiou_C = span_iou(candidates[:, None], (spans / durations[:, None])[None]).mean(dim=1)
    start, end = candidates[mean_tiou_C.argmax()].tolist()
    answers: list[Answer | ParseFailure] = [SpanSec(start * s.duration_sec, end * s.duration_sec) for s in samples]
    box_4 = _best_box(samples)
    boxes_BT4, frames_BT = box_4.expand(len(samples), 1, 4), torch.zeros(len(samples), 1)
    tubes = tube_batch(samples, answers, boxes_BT4, frames_BT, torch.ones(len(samples), 1, dtype=torch.bool))
    conditioned = gt_tube_iou(tubes.pred_boxes_BF4, tubes.gt_boxes_BF4, tubes.gt_has_box_BF)
    return Scores(tubes.tiou().numpy(), tubes.viou().numpy(), conditioned.numpy(), np.ones(len(samples)))


def _best_box(samples: Sequence[GroundingSample], *, limit: int = 2000) -> torch.Tensor:
    all_N4 = torch.cat(
        [
            normalize_boxes(
                torch.tensor([box for box in sample.boxes_xyxy_px or () if box is not None]).reshape(-1, 4),
                width=sample.width,
                height=sample.height,
            )
            for sample in samples
        ]
    )
    some_N4 = all_N4[:: max(1, len(all_N4) // limit)]
    return some_N4[box_iou(some_N4[:, None], some_N4[None]).mean(dim=1).argmax()]


def summarize(scores: Scores, *, num_resamples: int, seed: int) -> dict[str, float | list[float]]:
    """Means, and the 95 % percentile bootstrap interval of each as `<name>_ci95`."""
    summary: dict[str, float | list[float]] = {"n": len(scores.tiou)}
    for name, values in scores.columns().items():
        summary[name] = float(values.mean())
        summary[f"{name}_ci95"] = interval(values, num_resamples=num_resamples, seed=seed)
    return summary


def paired_difference(ours: Scores, theirs: Scores, *, num_resamples: int, seed: int) -> dict[str, dict[str, object]]:
    """Mean of ours - theirs on the same samples, with its 95 % interval."""
    differences = {name: values - theirs.columns()[name] for name, values in ours.columns().items()}
    return {
        name: {"mean": float(values.mean()), "ci95": interval(values, num_resamples=num_resamples, seed=seed)}
        for name, values in differences.items()
    }


def interval(values: np.ndarray, *, num_resamples: int, seed: int) -> list[float]:
    """95 % percentile bootstrap interval of the mean; degenerate for fewer than two values or a constant."""
    if len(values) < 2 or np.ptp(values) == 0:
        return [float(values.mean())] * 2
    result = bootstrap(
        (values,), np.mean, n_resamples=num_resamples, method="percentile", rng=np.random.default_rng(seed), batch=200
    )
    return [float(result.confidence_interval.low), float(result.confidence_interval.high)]
