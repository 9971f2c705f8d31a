"""tIoU, vIoU and gt-conditioned vIoU as the published evaluators define them: one formula each, for a batch of tubes.

Which frames count is all that they disagree on; every one of them uses data.geometry.

    canon     all annotated frames; boxes are clipped to the image, where its size is known.
    tubedetr  5 frames a second of the clip, at most 200 (TubeDETR, 2203.16434: datasets/vidstg_eval.py). tIoU is of
              whole frames, so that vIoU may exceed it.
    stcat     all frames, but the true end is off by one (STCAT, 2209.13306: datasets/evaluation/*_eval.py; CG-STVG and
              TA-STVG agree). HC-STVG: the end is taken as inclusive and read as exclusive, so that a perfect tube of L
              frames scores (L - 1) / L. VidSTG: only where the truth ends with the clip; gt-conditioned vIoU has one
              frame more, a copy of the last box.
    hcstvg    the official HC-STVG script: tIoU counts frames that have both boxes.

Shapes: B samples, F frames of the true span (column f is frame start + f). Spans and clips are half-open frames.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from data.geometry import frames_in_both, gt_tube_iou, iou_sum, span_iou, span_overlap, tube_viou
from data.types import BoxPx
from evaluation.tube_pairs import Span, TubePairs, pair_of_one

Protocol = Literal["canon", "tubedetr", "stcat", "hcstvg"]
Dataset = Literal["vidstg", "hcstvg"]

TUBEDETR_FPS, TUBEDETR_MAX_FRAMES = 5.0, 200


@dataclass(frozen=True)
class TubeScores:
    """One value for each sample, [B]."""

    tiou: Tensor
    viou: Tensor
    gt_viou: Tensor


@dataclass(frozen=True)
class TubeScore:
    """The scores of one sample, in [0, 1]; `score["viou"]` is `score.viou`."""

    tiou: float
    viou: float
    gt_viou: float

    def __getitem__(self, name: str) -> float:
        return getattr(self, name)

    def keys(self) -> list[str]:
        """Names of the scores, so that `dict(score)` works."""
        return [field.name for field in fields(self)]


def score_tubes(protocol: Protocol, pairs: TubePairs) -> TubeScores:
    """Score a batch by one protocol."""
    return _PROTOCOLS[protocol](pairs)


def _canon(pairs: TubePairs) -> TubeScores:
    return TubeScores(
        tiou=span_iou(pairs.pred_span_B2, pairs.gt_span_B2),
        viou=_viou(pairs, pairs.gt_span_B2),
        gt_viou=gt_tube_iou(pairs.conditioned_boxes_BF4, pairs.gt_boxes_BF4, pairs.gt_has_box_BF),
    )


def _viou(pairs: TubePairs, gt_span_B2: Tensor) -> Tensor:
    return tube_viou(pairs.pred_boxes_BF4, pairs.pred_span_B2, pairs.gt_boxes_BF4, pairs.gt_has_box_BF, gt_span_B2)


def _hcstvg(pairs: TubePairs) -> TubeScores:
    in_both_BF = frames_in_both(pairs.pred_span_B2, pairs.gt_span_B2, num_columns=pairs.gt_boxes_BF4.shape[1])
    both_boxes_B = (in_both_BF & pairs.gt_has_box_BF & pairs.pred_has_box_B[:, None]).sum(dim=1)
    _, union_B = span_overlap(pairs.pred_span_B2, pairs.gt_span_B2)
    canon = _canon(pairs)
    return TubeScores(both_boxes_B / union_B.clamp(min=1.0), canon.viou, canon.gt_viou)


def _stcat(pairs: TubePairs) -> TubeScores:
    start_B, end_B = pairs.gt_span_B2.unbind(1)
    last_B = torch.where(pairs.is_hcstvg_B, end_B - 1, torch.minimum(end_B, pairs.clip_B2[:, 1] - 1))
    span_B2 = torch.stack([start_B, last_B], dim=1)
    boxes_BF4, has_box_BF = _with_last_box_copied(pairs, last_B == end_B)
    return TubeScores(
        tiou=span_iou(pairs.pred_span_B2, span_B2),
        viou=_viou(pairs, span_B2),
        gt_viou=gt_tube_iou(pairs.conditioned_boxes_BF4, boxes_BF4, has_box_BF),
    )


def _with_last_box_copied(pairs: TubePairs, copied_B: Tensor) -> tuple[Tensor, Tensor]:
    """The true boxes with one frame more where `copied_B`."""
    rows_B = torch.nonzero(copied_B)[:, 0]
    length_B = (pairs.gt_span_B2[:, 1] - pairs.gt_span_B2[:, 0]).long()[rows_B]
    boxes_BF4, has_box_BF = pairs.gt_boxes_BF4.clone(), pairs.gt_has_box_BF.clone()
    boxes_BF4[rows_B, length_B] = boxes_BF4[rows_B, length_B - 1]
    has_box_BF[rows_B, length_B] = has_box_BF[rows_B, length_B - 1]
    return boxes_BF4, has_box_BF


def _tubedetr(pairs: TubePairs) -> TubeScores:
    num_columns = pairs.gt_boxes_BF4.shape[1]
    is_sampled_BF, in_hull_B = _tubedetr_counts(pairs, num_columns)
    counted_BF = is_sampled_BF & pairs.gt_has_box_BF
    in_both_BF = frames_in_both(pairs.pred_span_B2, pairs.gt_span_B2, num_columns=num_columns)
    total_B = iou_sum(pairs.pred_boxes_BF4, pairs.gt_boxes_BF4, counted_BF & in_both_BF)
    return TubeScores(
        tiou=span_iou(pairs.pred_span_B2, pairs.gt_span_B2),
        viou=total_B / in_hull_B.clamp(min=1),
        gt_viou=gt_tube_iou(pairs.conditioned_boxes_BF4, pairs.gt_boxes_BF4, counted_BF),
    )


def _tubedetr_counts(pairs: TubePairs, num_columns: int) -> tuple[Tensor, Tensor]:
    """Which true frames are sampled, [B, F], and how many sampled frames lie between the outermost ends, [B]."""
    clips, spans = pairs.clip_B2.long().tolist(), pairs.gt_span_B2.long().tolist()
    hulls = torch.stack([pairs.gt_span_B2, pairs.pred_span_B2]).long()
    starts, ends = hulls[..., 0].amin(dim=0).tolist(), hulls[..., 1].amax(dim=0).tolist()
    is_sampled_BF = np.zeros((len(clips), num_columns), dtype=bool)
    in_hull = np.zeros(len(clips), dtype=np.int64)
    for b, (clip, span, fps) in enumerate(zip(clips, spans, pairs.fps_B.tolist(), strict=True)):
        frames = tubedetr_frames(clip[0], clip[1], fps)
        inside = frames[(frames >= span[0]) & (frames < span[1])]
        is_sampled_BF[b, inside - span[0]] = True
        in_hull[b] = np.count_nonzero((frames >= starts[b]) & (frames < ends[b]))
    return torch.from_numpy(is_sampled_BF), torch.from_numpy(in_hull)


@lru_cache(maxsize=1024)
def tubedetr_frames(clip_start: int, clip_end: int, fps: float) -> np.ndarray:
    """The frames that TubeDETR looks at (datasets/vidstg.py): the first, then one whenever another 1/5 s begins.

    The last frame of the clip is never one. Of more than 200, 200 at equal steps remain. At less than 5 fps TubeDETR
    asserts; here every frame is one.
    """
    rate = min(1.0, TUBEDETR_FPS / fps)
    tick = (np.arange(clip_start, clip_end - 1) * rate).astype(np.int64)
    frames = clip_start + np.flatnonzero(np.diff(tick, prepend=-1) > 0) if len(tick) else np.array([clip_start])
    if len(frames) > TUBEDETR_MAX_FRAMES:
        frames = frames[np.arange(TUBEDETR_MAX_FRAMES) * len(frames) // TUBEDETR_MAX_FRAMES]
    return frames


_PROTOCOLS: dict[str, Callable[[TubePairs], TubeScores]] = {
    "canon": _canon,
    "tubedetr": _tubedetr,
    "stcat": _stcat,
    "hcstvg": _hcstvg,
}


def score_tube(
    protocol: Protocol,
    *,
    gt_span: Span,
    gt_boxes: Mapping[int, BoxPx],
    pred_span: Span | None,
    pred_boxes: Mapping[int, BoxPx],
    clip: Span,
    fps: float,
    dataset: Dataset,
    pred_boxes_in_gt: Mapping[int, BoxPx] | None = None,
    size: tuple[int, int] | None = None,
) -> TubeScore:
    """Score one sample by one protocol, in float64.

    Spans and `clip` are half-open frames (start, end), a `pred_span` of None is an answer that failed. Boxes are
    {frame: (left, top, right, bottom)} in pixels; a true frame without one counts in the union alone. Predicted boxes
    outside of the predicted span are ignored. gt_viou is of `pred_boxes_in_gt`, boxes that were asked for at the true
    frames, where it is given; otherwise of the predicted tube, which has no box outside of the predicted span.
    size: (width, height) of the video in pixels. Where it is given, `canon` clips all boxes to the image, as
    `evaluation.score` and the rewards do; the published evaluators, and so the other protocols, clip none.
    Raises ValueError.
    """
    _check_choice("protocol", protocol, get_args(Protocol))
    _check_choice("dataset", dataset, get_args(Dataset))
    pairs = pair_of_one(
        gt_span=gt_span,
        gt_boxes=gt_boxes,
        pred_span=pred_span,
        pred_boxes=pred_boxes,
        conditioned_boxes=pred_boxes_in_gt or {},
        clip=clip,
        fps=fps,
        is_hcstvg=dataset == "hcstvg",
        clip_to_size=size if protocol == "canon" else None,
    )
    scores = score_tubes(protocol, pairs)
    return TubeScore(float(scores.tiou[0]), float(scores.viou[0]), float(scores.gt_viou[0]))


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name}: expected one of {list(choices)}, got {value!r}")
