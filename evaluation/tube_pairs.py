"""Predicted tubes beside true ones, ready to be scored: predicted boxes are interpolated to the true frames.

Between the frames that have one, boxes are interpolated linearly; the first and the last are held to the ends of the
predicted span. A box outside of that span is ignored. All protocols (evaluation/protocols.py) score what comes out of here.

Shapes: B samples, N boxes of all samples together, F frames of the true span (column f is frame start + f). Spans and
clips are half-open frames.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from data.geometry import interpolate_tube
from data.ragged_boxes import FAR, RaggedBoxes, ragged_boxes
from data.tubes import normalized, true_boxes, true_spans
from data.types import BoxPx, FrameSpan, GroundingSample
from evaluation.predictions import Prediction

Span = FrameSpan | tuple[int, int]


@dataclass(frozen=True)
class TubePairs:
    """Predicted tubes beside true ones; xyxy boxes in any one unit.

    gt_boxes_BF4, gt_has_box_BF bool; pred_boxes_BF4: the predicted tube at the same frames; conditioned_boxes_BF4: the
    same of the tube that gt_vIoU is about; pred_has_box_B, is_hcstvg_B bool; fps_B of the video. `stcat` wants F one
    larger than the longest true span. A failed answer has the span (0, 0).
    """

    gt_span_B2: Tensor
    gt_boxes_BF4: Tensor
    gt_has_box_BF: Tensor
    pred_span_B2: Tensor
    pred_boxes_BF4: Tensor
    pred_has_box_B: Tensor
    conditioned_boxes_BF4: Tensor
    clip_B2: Tensor
    fps_B: Tensor
    is_hcstvg_B: Tensor


def tube_pairs(
    *,
    gt_span_B2: Tensor,
    gt_boxes_BF4: Tensor,
    gt_has_box_BF: Tensor,
    pred_span_B2: Tensor,
    pred_boxes: tuple[RaggedBoxes, Tensor],
    conditioned_boxes: tuple[RaggedBoxes, Tensor],
    clip_B2: Tensor,
    fps_B: Tensor,
    is_hcstvg_B: Tensor,
) -> TubePairs:
    """Interpolate predicted boxes, given with their coordinates [N, 4], to the true frames.

    Boxes outside of the predicted span are ignored. A sample without conditioned boxes is judged by its predicted
    ones there: inside of the predicted span.
    """
    frames_BF = gt_span_B2[:, :1] + torch.arange(gt_boxes_BF4.shape[1])
    inside = _inside_spans(pred_boxes[0], pred_span_B2)
    known = pred_boxes[0].keep(inside)
    pred_boxes_BF4, pred_has_box_B = _interpolated(known, pred_boxes[1][torch.from_numpy(inside)], frames_BF)
    in_pred_BF = (frames_BF >= pred_span_B2[:, :1]) & (frames_BF < pred_span_B2[:, 1:])
    conditioned_BF4, has_conditioned_B = _interpolated(*conditioned_boxes, frames_BF)
    return TubePairs(
        gt_span_B2=gt_span_B2,
        gt_boxes_BF4=gt_boxes_BF4,
        gt_has_box_BF=gt_has_box_BF,
        pred_span_B2=pred_span_B2,
        pred_boxes_BF4=pred_boxes_BF4,
        pred_has_box_B=pred_has_box_B,
        conditioned_boxes_BF4=torch.where(
            has_conditioned_B[:, None, None], conditioned_BF4, pred_boxes_BF4 * in_pred_BF[..., None]
        ),
        clip_B2=clip_B2,
        fps_B=fps_B,
        is_hcstvg_B=is_hcstvg_B,
    )


def predicted_boxes(prediction: Prediction) -> dict[int, BoxPx]:
    """The predicted box at every frame of the predicted span, as it is scored; of a rec sample, its one box.

    None at all where no box lies inside of the span.
    """
    if prediction.span is None:
        return dict(prediction.boxes)
    boxes = ragged_boxes([prediction.boxes])
    known = boxes.keep(_inside_spans(boxes, torch.tensor([prediction.span], dtype=torch.float64)))
    if not len(known.row_N):
        return {}
    frames = list(range(*prediction.span))
    tube_BF4, _ = _interpolated(known, torch.from_numpy(known.boxes_N4), torch.tensor([frames], dtype=torch.float64))
    return {frame: (a, b, c, d) for frame, (a, b, c, d) in zip(frames, tube_BF4[0].tolist(), strict=True)}


def _inside_spans(boxes: RaggedBoxes, span_B2: Tensor) -> np.ndarray:
    span_N2 = span_B2.numpy()[boxes.row_N]
    return (boxes.frame_N >= span_N2[:, 0]) & (boxes.frame_N < span_N2[:, 1])


def _interpolated(boxes: RaggedBoxes, boxes_N4: Tensor, frames_BF: Tensor) -> tuple[Tensor, Tensor]:
    """The tube at the frames, and whether a row has a box at all. -> [B, F, 4], [B] bool."""
    times_BT = boxes.pad(torch.from_numpy(boxes.frame_N).to(boxes_N4.dtype), fill=FAR)
    valid_BT = times_BT < FAR
    return interpolate_tube(boxes.pad(boxes_N4), times_BT, valid_BT, frames_BF), valid_BT.any(dim=1)


def pairs_of(
    samples: Sequence[GroundingSample],
    predictions: Sequence[Prediction],
    pred_span_B2: Tensor,
    *,
    clip_to_image: bool,
    is_hcstvg: Sequence[bool],
) -> TubePairs:
    """Predictions beside the truth of their samples.

    clip_to_image: boxes in [0, 1], clipped to the image, in float32, as rewards have them; otherwise pixels as they are
    written, in float64, and F one larger than the longest true span.
    """
    truth, has_box_N = true_boxes(samples)
    predicted = ragged_boxes([prediction.boxes for prediction in predictions])
    conditioned = ragged_boxes([prediction.boxes_in_true_span for prediction in predictions])

    def coordinates(boxes: RaggedBoxes) -> Tensor:
        return normalized(boxes, samples) if clip_to_image else torch.from_numpy(boxes.boxes_N4)

    gt_boxes_BF4, gt_has_box_BF = truth.pad(coordinates(truth)), truth.pad(torch.from_numpy(has_box_N))
    if not clip_to_image:
        gt_boxes_BF4, gt_has_box_BF = pad(gt_boxes_BF4, (0, 0, 0, 1)), pad(gt_has_box_BF, (0, 1))
    dtype = gt_boxes_BF4.dtype
    return tube_pairs(
        gt_span_B2=true_spans(samples).to(dtype),
        gt_boxes_BF4=gt_boxes_BF4,
        gt_has_box_BF=gt_has_box_BF,
        pred_span_B2=pred_span_B2.to(dtype),
        pred_boxes=(predicted, coordinates(predicted)),
        conditioned_boxes=(conditioned, coordinates(conditioned)),
        clip_B2=torch.tensor([(sample.clip.start, sample.clip.end) for sample in samples], dtype=dtype),
        fps_B=torch.tensor([sample.fps for sample in samples], dtype=torch.float64),
        is_hcstvg_B=torch.tensor(is_hcstvg),
    )


def pair_of_one(
    *,
    gt_span: Span,
    gt_boxes: Mapping[int, BoxPx],
    pred_span: Span | None,
    pred_boxes: Mapping[int, BoxPx],
    conditioned_boxes: Mapping[int, BoxPx],
    clip: Span,
    fps: float,
    is_hcstvg: bool,
    clip_to_size: tuple[int, int] | None = None,
) -> TubePairs:
    """One sample in pixels and float64, F one larger than the true span. Raises ValueError for what cannot be scored.

    clip_to_size: boxes are clipped to an image of this (width, height).
    """
    start, end = _as_pair("gt_span", gt_span)
    if not (isfinite(fps) and fps > 0):
        raise ValueError(f"fps: expected a positive number, got {fps}")
    truth = {frame: box for frame, box in _checked("gt_boxes", gt_boxes).items() if start <= frame < end}
    gt_boxes_BF4 = torch.zeros(1, end - start + 1, 4, dtype=torch.float64)
    gt_has_box_BF = torch.zeros(1, end - start + 1, dtype=torch.bool)
    for frame, box in truth.items():
        gt_boxes_BF4[0, frame - start] = torch.tensor(box, dtype=torch.float64)
        gt_has_box_BF[0, frame - start] = True
    return tube_pairs(
        gt_span_B2=torch.tensor([(start, end)], dtype=torch.float64),
        gt_boxes_BF4=_clipped(gt_boxes_BF4, clip_to_size),
        gt_has_box_BF=gt_has_box_BF,
        pred_span_B2=torch.tensor([(0, 0) if pred_span is None else _as_pair("pred_span", pred_span)]).double(),
        pred_boxes=_in_px(_checked("pred_boxes", pred_boxes), clip_to_size),
        conditioned_boxes=_in_px(_checked("pred_boxes_in_gt", conditioned_boxes), clip_to_size),
        clip_B2=torch.tensor([_as_pair("clip", clip)], dtype=torch.float64),
        fps_B=torch.tensor([fps], dtype=torch.float64),
        is_hcstvg_B=torch.tensor([is_hcstvg]),
    )


def _in_px(boxes: Mapping[int, BoxPx], clip_to_size: tuple[int, int] | None) -> tuple[RaggedBoxes, Tensor]:
    ragged = ragged_boxes([boxes])
    return ragged, _clipped(torch.from_numpy(ragged.boxes_N4), clip_to_size)


def _clipped(boxes_xyxy_px: Tensor, size: tuple[int, int] | None) -> Tensor:
    """[..., 4] -> [..., 4]."""
    if size is None:
        return boxes_xyxy_px
    return boxes_xyxy_px.clamp(min=0.0).minimum(boxes_xyxy_px.new_tensor([*size, *size]))


def _as_pair(name: str, span: Span) -> tuple[int, int]:
    start, end = (span.start, span.end) if isinstance(span, FrameSpan) else span
    if not (start == int(start) and end == int(end) and 0 <= start < end):
        raise ValueError(f"{name}: expected whole frames 0 <= start < end, got {span}")
    return int(start), int(end)


def _checked(name: str, boxes: Mapping[int, BoxPx]) -> Mapping[int, BoxPx]:
    for frame, box in boxes.items():
        if len(box) != 4 or not all(map(isfinite, box)):
            raise ValueError(f"{name}: expected four finite numbers at frame {frame}, got {box}")
    return boxes
