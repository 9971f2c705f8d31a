"""Answers beside the truth, as tensors: what rewards and metrics are computed from.

Shapes: B samples, T frames with a predicted box, F frames of the true span (column f is frame start + f).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from data.answers import Answer, Choice, InBox, ParseFailure, SpanSec
from data.encoding import EncodedPrompt
from data.frame_sampling import frames_in_span
from data.geometry import box_iou, interpolate_tube, normalize_boxes_by_size, span_iou, span_sec_to_frames, viou_of_ious
from data.ragged_boxes import NO_BOX, RaggedBoxes, flat_boxes
from data.tube_indices import WrittenTubes
from data.types import BoxPx, FrameSpan, GroundingSample, Task


@dataclass(frozen=True)
class TubeBatch:
    """Spans in absolute frames, half-open; boxes xyxy in [0, 1]. A failed answer has an empty span at 0.

    parsed_B bool; pred_span_B2, gt_span_B2; pred_boxes_BF4: the predicted tube at the true frames; gt_boxes_BF4;
    gt_has_box_BF bool. tasks: of each row. right_choice_B bool: a letter, and the true one. written: the boxes of answers that
    are tubes written as text, None for others.

    A rec sample is a tube of one frame, and its answer has that frame. A qa sample has no interval: (0, 0).
    """

    parsed_B: Tensor
    pred_span_B2: Tensor
    gt_span_B2: Tensor
    pred_boxes_BF4: Tensor
    gt_boxes_BF4: Tensor
    gt_has_box_BF: Tensor
    tasks: tuple[Task, ...]
    right_choice_B: Tensor
    written: WrittenTubes | None = None

    def tiou(self) -> Tensor:
        """Temporal IoU, [B]."""
        return span_iou(self.pred_span_B2, self.gt_span_B2)

    def viou(self) -> Tensor:
        """vIoU over all annotated frames, [B]; differentiable in the predicted boxes."""
        return viou_of_ious(self.iou_BF, self.pred_span_B2, self.gt_has_box_BF, self.gt_span_B2)

    @cached_property
    def iou_BF(self) -> Tensor:
        """IoU of both tubes at the true frames, [B, F]; differentiable in the predicted boxes. Several rewards read it."""
        return box_iou(self.pred_boxes_BF4, self.gt_boxes_BF4)


def span_frames(sample: GroundingSample, answer: Answer | ParseFailure) -> FrameSpan | None:
    """The answered interval in frames of the video; None for a failure, an interval outside of the clip, and other answers."""
    if not isinstance(answer, SpanSec):
        return None
    start, end = (int(value) for value in answered_spans([sample], [answer])[0])
    return FrameSpan(start, end) if start < end else None


def answer_frames(
    sample: GroundingSample, prompt: EncodedPrompt, answer: Answer | ParseFailure, *, margin_sec: float = 0.0
) -> np.ndarray:
    """Positions of the sampled frames that the decoder looks at for an answer.

    Those of the answered interval and of the margin around it, or the nearest one where it falls between two; of a rec
    answer all; none for a failure and for questions that are not about boxes.
    """
    if isinstance(answer, InBox):
        return np.arange(len(prompt.clip.frame_idx_T))
    span = span_frames(sample, answer)
    if span is None or sample.task != "stvg":
        return np.empty(0, dtype=np.int64)
    return frames_in_span(prompt.clip.frame_idx_T, with_margin(sample, span, margin_sec))


def with_margin(sample: GroundingSample, span: FrameSpan, margin_sec: float) -> FrameSpan:
    """The span longer by the margin on both sides, rounded to frames and cut to the clip."""
    margin = round(margin_sec * sample.fps)
    return FrameSpan(max(span.start - margin, sample.clip.start), min(span.end + margin, sample.clip.end))


def answered_spans(samples: Sequence[GroundingSample], answers: Sequence[Answer | ParseFailure]) -> Tensor:
    """Answered intervals in absolute frames, cut to the clips; (0, 0) for a failure or a letter. -> [B, 2]."""
    spans_sec = chain.from_iterable(map(_answered_sec, answers))
    span_sec_B2 = np.fromiter(spans_sec, np.float32, 2 * len(answers)).reshape(-1, 2)
    distinct, row_B = distinct_samples(samples)
    return span_sec_to_frames(
        torch.from_numpy(span_sec_B2),
        fps_B=torch.tensor([sample.fps for sample in distinct])[row_B],
        clip_B2=torch.tensor([(sample.clip.start, sample.clip.end) for sample in distinct], dtype=torch.float32)[row_B],
    )


def _answered_sec(answer: Answer | ParseFailure) -> tuple[float, float]:
    if isinstance(answer, SpanSec):
        return answer.start_sec, answer.end_sec
    # A box is at the one frame of its clip.
    return (0.0, math.inf) if isinstance(answer, InBox) else (math.nan, math.nan)


def distinct_samples(samples: Sequence[GroundingSample]) -> tuple[list[GroundingSample], Tensor]:
    """Each sample once, and which of them every row is [B]: the rows of a group share one object, and its truth."""
    by_id = {id(sample): sample for sample in samples}
    position = {key: number for number, key in enumerate(by_id)}
    return list(by_id.values()), torch.tensor([position[id(sample)] for sample in samples], dtype=torch.long)


def tube_batch(
    samples: Sequence[GroundingSample],
    answers: Sequence[Answer | ParseFailure],
    boxes_xyxy_BT4: Tensor,
    frame_idx_BT: Tensor,
    valid_BT: Tensor,
    *,
    written: WrittenTubes | None = None,
) -> TubeBatch:
    """Interpolate predicted boxes to the true frames and put the truth beside them, on the boxes' device.

    boxes_xyxy_BT4 in [0, 1] at absolute frames frame_idx_BT (ascending); valid_BT marks those that count. The device is
    not waited for.
    """
    device = boxes_xyxy_BT4.device
    distinct, row_B = distinct_samples(samples)

    def moved(values_B: Tensor) -> Tensor:
        return values_B.to(device, non_blocking=True)

    gt_boxes_BF4, gt_has_box_BF = (moved(tensor[row_B]) for tensor in dense_tube(distinct))
    gt_span_B2 = moved(true_spans(distinct)[row_B])
    gt_frames_BF = gt_span_B2[:, :1] + torch.arange(gt_boxes_BF4.shape[1], device=device)
    return TubeBatch(
        parsed_B=moved(
            torch.from_numpy(np.array([not isinstance(answer, ParseFailure) for answer in answers], dtype=bool))
        ),
        pred_span_B2=moved(answered_spans(samples, answers)),
        gt_span_B2=gt_span_B2,
        pred_boxes_BF4=interpolate_tube(boxes_xyxy_BT4, frame_idx_BT.float(), valid_BT, gt_frames_BF),
        gt_boxes_BF4=gt_boxes_BF4,
        gt_has_box_BF=gt_has_box_BF,
        tasks=tuple(sample.task for sample in samples),
        right_choice_B=moved(torch.from_numpy(np.fromiter(map(_is_right_choice, samples, answers), dtype=bool))),
        written=None if written is None else written.to(device),
    )


def _is_right_choice(sample: GroundingSample, answer: Answer | ParseFailure) -> bool:
    return isinstance(answer, Choice) and answer.letter == sample.choice


def true_spans(samples: Sequence[GroundingSample]) -> Tensor:
    """[B, 2] absolute frames; (0, 0) for qa. Raises ValueError for other samples without a span."""
    if unlabelled := [sample.sample_id for sample in samples if sample.span is None and sample.task != "qa"]:
        raise ValueError(f"samples without a true span cannot be scored: {unlabelled[:5]}")
    return torch.tensor([(s.span.start, s.span.end) if s.span else (0, 0) for s in samples], dtype=torch.float32)


def true_boxes(samples: Sequence[GroundingSample]) -> tuple[RaggedBoxes, np.ndarray]:
    """True boxes in pixels at every frame of the true spans, and which of them are annotated ([N] bool)."""
    rows = [sample.boxes_xyxy_px or (None,) * len(sample.span or ()) for sample in samples]
    counts_B = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    starts_B = np.array([sample.span.start if sample.span else 0 for sample in samples], dtype=np.int64)
    row_N, total = np.repeat(np.arange(len(rows)), counts_B), int(counts_B.sum())
    column_N = np.arange(total) - (np.cumsum(counts_B) - counts_B)[row_N]
    boxes_N4 = flat_boxes(chain.from_iterable(map(_without_gaps, rows)), total)
    has_box_N = np.ones(total, dtype=bool)
    for row in (row for row, boxes in enumerate(rows) if None in boxes):
        has_box_N[row_N == row] = [box is not None for box in rows[row]]
    return RaggedBoxes(row_N, starts_B[row_N] + column_N, boxes_N4, len(rows)), has_box_N


def _without_gaps(boxes: Sequence[BoxPx | None]) -> Sequence[BoxPx]:
    """Zeros where there is no box; nearly all annotations have one at every frame."""
    return [box or NO_BOX for box in boxes] if None in boxes else boxes  # type: ignore[return-value]


def dense_tube(samples: Sequence[GroundingSample]) -> tuple[Tensor, Tensor]:
    """True boxes at every frame of the true spans: boxes_xyxy_BF4 in [0, 1], has_box_BF; column f is frame start + f."""
    boxes, has_box_N = true_boxes(samples)
    # The size of a video may be unknown where nothing has a box.
    boxes_N4 = normalized(boxes, samples).nan_to_num(nan=0.0)
    return boxes.pad(boxes_N4), boxes.pad(torch.from_numpy(has_box_N))


def normalized(boxes: RaggedBoxes, samples: Sequence[GroundingSample]) -> Tensor:
    """Pixels of each sample's video -> [0, 1], clipped to the image. -> [N, 4] float32."""
    sizes_B2 = torch.tensor([(sample.width, sample.height) for sample in samples], dtype=torch.float32)
    return normalize_boxes_by_size(torch.from_numpy(boxes.boxes_N4).float(), sizes_B2[torch.from_numpy(boxes.row_N)])
