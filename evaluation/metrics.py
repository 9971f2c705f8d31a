"""Scores of predictions by the canonical protocol, with bootstrap intervals and controls.

Canonical: all annotated frames count, boxes are interpolated between sampled frames and held to the ends of the
predicted span and clipped to the image, boxes outside of that span are ignored, thresholds are strict (>), and a failed
answer scores 0 and stays in the denominator. The published
evaluators differ in details (TubeDETR scores 5 frames a second, STCAT is off by one on HC-STVG).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from data.answers import Answer, ParseFailure, SpanSec, parse_answer
from data.geometry import box_iou, gt_tube_iou, normalize_boxes, span_iou, span_overlap
from data.tubes import span_frames, tube_batch
from data.types import GroundingSample
from evaluation.bootstrap import interval, paired_differences, summarize_columns
from evaluation.chunks import chunks
from evaluation.predictions import Prediction, ScoreError
from evaluation.protocols import Dataset, Protocol, score_tubes
from evaluation.tube_pairs import pairs_of

__all__ = ["Scores", "best_constant", "interval", "paired_difference", "score", "score_chunk", "summarize"]

OUTSIDE_CLIP = "outside the clip"
THRESHOLDS = (0.3, 0.5)
DATASETS: dict[str, Dataset] = {"vidstg": "vidstg", "hcstvg_v1": "hcstvg", "hcstvg_v2": "hcstvg"}
"""Source of a sample -> the data set whose rules `stcat` takes."""


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
        score_chunk("canon", *zip(*chunk, strict=True))[0] for chunk in chunks(zip(samples, predictions, strict=True))
    ]
    return Scores(*(np.concatenate(column) for column in zip(*map(_columns, parts), strict=True)))


def _columns(scores: Scores) -> tuple[np.ndarray, ...]:
    return scores.tiou, scores.viou, scores.gt_viou, scores.parsed


def score_chunk(
    protocol: Protocol,
    samples: Sequence[GroundingSample],
    predictions: Sequence[Prediction],
    *,
    dataset: Dataset | None = None,
) -> tuple[Scores, np.ndarray]:
    """Scores of some samples by one protocol, and their coverage: the share of true frames with a predicted box.

    dataset: of all of them; None goes by their source. Raises ScoreError where `stcat` has to know it and cannot.
    """
    failures = [failure_of(sample, prediction) for sample, prediction in zip(samples, predictions, strict=True)]
    pairs = pairs_of(
        samples,
        predictions,
        _spans(samples, predictions),
        clip_to_image=protocol == "canon",
        is_hcstvg=[protocol == "stcat" and (dataset or _dataset_of(sample)) == "hcstvg" for sample in samples],
    )
    scores = score_tubes(protocol, pairs)
    covered_B, _ = span_overlap(pairs.pred_span_B2, pairs.gt_span_B2)
    length_B = pairs.gt_span_B2[:, 1] - pairs.gt_span_B2[:, 0]
    parsed = np.array([failure in ("", OUTSIDE_CLIP) for failure in failures], dtype=float)
    coverage_B = covered_B / length_B * pairs.pred_has_box_B
    return Scores(scores.tiou.numpy(), scores.viou.numpy(), scores.gt_viou.numpy(), parsed), coverage_B.numpy()


def _dataset_of(sample: GroundingSample) -> Dataset:
    if sample.source not in DATASETS:
        raise ScoreError(
            f"sample {sample.sample_id!r}: protocol stcat differs by data set and source {sample.source!r} is none of "
            f"{list(DATASETS)}; expected --dataset"
        )
    return DATASETS[sample.source]


def failure_of(sample: GroundingSample, prediction: Prediction) -> str:
    """Why a prediction has no interval to be scored; "" when it has one. Without a `span`, its text is read."""
    if prediction.failure:
        return prediction.failure
    if prediction.span is not None:
        return "" if prediction.span[0] < prediction.span[1] else "reversed"
    answer = parse_answer(sample, prediction.text)
    if isinstance(answer, ParseFailure):
        return answer.reason
    return "" if span_frames(sample, answer) is not None else OUTSIDE_CLIP


def _spans(samples: Sequence[GroundingSample], predictions: Sequence[Prediction]) -> torch.Tensor:
    """Answered intervals in frames, (0, 0) for a failure. -> [B, 2]."""
    return torch.tensor([answered_span(*pair) for pair in zip(samples, predictions, strict=True)], dtype=torch.float32)


def answered_span(sample: GroundingSample, prediction: Prediction) -> tuple[int, int]:
    """The answered interval in absolute frames, half-open; (0, 0) for a failure."""
    if failure_of(sample, prediction):
        return 0, 0
    if prediction.span is not None:
        return prediction.span
    span = span_frames(sample, parse_answer(sample, prediction.text))
    return (0, 0) if span is None else (span.start, span.end)


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
    return summarize_columns(scores.columns(), num_resamples=num_resamples, seed=seed)


def paired_difference(ours: Scores, theirs: Scores, *, num_resamples: int, seed: int) -> dict[str, dict[str, object]]:
    """Mean of ours - theirs on the same samples, with its 95 % interval."""
    return paired_differences(ours.columns(), theirs.columns(), num_resamples=num_resamples, seed=seed)
