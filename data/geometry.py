"""The only place that knows what a box or a span is: conversions, IoU, GIoU, tIoU, tube interpolation and vIoU.

Rewards, losses and metrics all call these functions, so they cannot disagree. Everything is batched, differentiable in
the boxes, and makes no host synchronisation.

Shapes: B samples, T sampled frames, F annotated frames; `...` is any leading shape. Boxes are in [0, 1] of width and
height unless a name says `_px`: cxcywh = (centre x, centre y, width, height), xyxy = (left, top, right, bottom).
Spans are half-open (start, end) in any one unit.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from data.types import BoxPx


def box_cxcywh_to_xyxy(boxes_cxcywh: Tensor) -> Tensor:
    """[..., 4] -> [..., 4]."""
    centre, size = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:]
    return torch.cat([centre - size / 2, centre + size / 2], dim=-1)


def box_xyxy_to_cxcywh(boxes_xyxy: Tensor) -> Tensor:
    """[..., 4] -> [..., 4]."""
    top_left, bottom_right = boxes_xyxy[..., :2], boxes_xyxy[..., 2:]
    return torch.cat([(top_left + bottom_right) / 2, bottom_right - top_left], dim=-1)


def normalize_boxes(boxes_xyxy_px: Tensor, *, width: int, height: int) -> Tensor:
    """[..., 4] pixels -> [0, 1], clipped to the image."""
    return normalize_boxes_by_size(boxes_xyxy_px, boxes_xyxy_px.new_tensor([width, height]))


def normalize_boxes_by_size(boxes_xyxy_px: Tensor, sizes_px: Tensor) -> Tensor:
    """`normalize_boxes` where each box has its own image; sizes are (width, height). [..., 4], [..., 2] -> [..., 4]."""
    return (boxes_xyxy_px / torch.cat([sizes_px, sizes_px], dim=-1)).clamp(0.0, 1.0)


def boxes_in_pixels(boxes_xyxy: Tensor, sizes_px: Tensor) -> Tensor:
    """[0, 1] -> pixels of images of (width, height), not clipped. [..., 4], [..., 2] -> [..., 4]."""
    return boxes_xyxy * torch.cat([sizes_px, sizes_px], dim=-1)


def box_between(boxes_px: Mapping[int, BoxPx], frames: Sequence[int], frame: int) -> BoxPx:
    """The box of any frame, on the line between its neighbours among `frames` (ascending), beyond them the last one.

    `interpolate_tube` of one box, in plain numbers.
    """
    left, top, right, bottom = (
        float(np.interp(frame, frames, [boxes_px[f][side] for f in frames])) for side in range(4)
    )  # fmt: skip
    return left, top, right, bottom


def box_area(boxes_xyxy: Tensor) -> Tensor:
    """[..., 4] -> [...]; a reversed box has area 0."""
    return _area(*boxes_xyxy.unbind(dim=-1))


def _area(left: Tensor, top: Tensor, right: Tensor, bottom: Tensor) -> Tensor:
    return (right - left).clamp(min=0) * (bottom - top).clamp(min=0)


def _intersection_and_union(a_xyxy: Tensor, b_xyxy: Tensor) -> tuple[Tensor, Tensor]:
    # One side at a time: results then lie one after the other in memory, twice as fast as pairs of sides.
    a_left, a_top, a_right, a_bottom = a_xyxy.unbind(dim=-1)
    b_left, b_top, b_right, b_bottom = b_xyxy.unbind(dim=-1)
    intersection = _area(
        torch.maximum(a_left, b_left),
        torch.maximum(a_top, b_top),
        torch.minimum(a_right, b_right),
        torch.minimum(a_bottom, b_bottom),
    )
    return intersection, box_area(a_xyxy) + box_area(b_xyxy) - intersection


def _hull_area(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    a_left, a_top, a_right, a_bottom = a_xyxy.unbind(dim=-1)
    b_left, b_top, b_right, b_bottom = b_xyxy.unbind(dim=-1)
    return _area(
        torch.minimum(a_left, b_left),
        torch.minimum(a_top, b_top),
        torch.maximum(a_right, b_right),
        torch.maximum(a_bottom, b_bottom),
    )


def box_iou(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """Elementwise IoU, [..., 4] x [..., 4] -> [...] in [0, 1]; 0 where the union is empty."""
    intersection, union = _intersection_and_union(a_xyxy, b_xyxy)
    return torch.where(union > 0, intersection / union.clamp(min=1e-12), torch.zeros_like(union))


def box_giou(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """Elementwise generalised IoU (1902.09630), [..., 4] x [..., 4] -> [...] in [-1, 1]."""
    intersection, union = _intersection_and_union(a_xyxy, b_xyxy)
    hull = _hull_area(a_xyxy, b_xyxy).clamp(min=1e-12)
    return intersection / union.clamp(min=1e-12) - (hull - union) / hull


def span_overlap(a_B2: Tensor, b_B2: Tensor) -> tuple[Tensor, Tensor]:
    """Lengths of intersection and union of half-open spans, [..., 2] x [..., 2] -> [...], [...].

    A reversed span has length 0. Where the spans are disjoint the union does not count the gap; both tIoU and vIoU
    are 0 there, so the choice does not show.
    """
    intersection = (torch.minimum(a_B2[..., 1], b_B2[..., 1]) - torch.maximum(a_B2[..., 0], b_B2[..., 0])).clamp(min=0)
    lengths = (a_B2[..., 1] - a_B2[..., 0]).clamp(min=0) + (b_B2[..., 1] - b_B2[..., 0]).clamp(min=0)
    return intersection, lengths - intersection


def span_iou(a_B2: Tensor, b_B2: Tensor) -> Tensor:
    """Temporal IoU (tIoU), [..., 2] x [..., 2] -> [...] in [0, 1]; 0 where the union is empty."""
    intersection, union = span_overlap(a_B2, b_B2)
    return torch.where(union > 0, intersection / union.clamp(min=1e-12), torch.zeros_like(union))


def span_sec_to_frames(span_sec_B2: Tensor, *, fps_B: Tensor, clip_B2: Tensor) -> Tensor:
    """Seconds of the clip -> absolute frames, rounded to the nearest and cut to the clip. [B, 2] -> [B, 2] (float).

    A span whose start is not before its end stays so, and has length 0 everywhere. NaN (no span) becomes (0, 0).
    """
    frames_B2 = torch.round(span_sec_B2 * fps_B[:, None]) + clip_B2[:, :1]
    frames_B2 = torch.minimum(torch.maximum(frames_B2, clip_B2[:, :1]), clip_B2[:, 1:])
    return torch.nan_to_num(frames_B2, nan=0.0)


def interpolate_tube(boxes_BT4: Tensor, times_BT: Tensor, valid_BT: Tensor, query_times_BF: Tensor) -> Tensor:
    """Linear interpolation of boxes between sampled times; the first and last valid box are held beyond them.

    times_BT ascend within a row, valid_BT marks a contiguous run of each row. Rows without a valid box give zeros.
    [B, T, 4], [B, T], [B, T] bool, [B, F] -> [B, F, 4]; differentiable in the boxes.
    """
    num_times = times_BT.shape[1]
    position_T = torch.arange(num_times, device=times_BT.device)
    any_B1 = valid_BT.any(dim=1, keepdim=True)
    first_B1 = torch.where(valid_BT, position_T, num_times).amin(dim=1, keepdim=True).clamp(max=num_times - 1)
    last_B1 = torch.where(valid_BT, position_T, -1).amax(dim=1, keepdim=True).clamp(min=0)
    after_BF = torch.searchsorted(times_BT.contiguous(), query_times_BF.contiguous())
    high_BF = torch.minimum(torch.maximum(after_BF, first_B1), last_B1)
    low_BF = torch.minimum(torch.maximum(after_BF - 1, first_B1), last_B1)
    low_time_BF, high_time_BF = times_BT.gather(1, low_BF), times_BT.gather(1, high_BF)
    gap_BF = (high_time_BF - low_time_BF).clamp(min=1e-9)
    weight_BF1 = ((query_times_BF - low_time_BF) / gap_BF).clamp(0.0, 1.0)[..., None].to(boxes_BT4.dtype)
    low_BF4 = boxes_BT4.gather(1, low_BF[..., None].expand(-1, -1, 4))
    high_BF4 = boxes_BT4.gather(1, high_BF[..., None].expand(-1, -1, 4))
    return torch.where(any_B1[..., None], low_BF4 + weight_BF1 * (high_BF4 - low_BF4), 0.0)


def tube_viou(
    pred_boxes_BF4: Tensor, pred_span_B2: Tensor, gt_boxes_BF4: Tensor, gt_has_box_BF: Tensor, gt_span_B2: Tensor
) -> Tensor:
    """vIoU = sum of IoU over the frames in both spans / number of frames in either (STGRN, 2001.06891, section 4.1).

    Column f of the boxes is frame gt_start + f; pred_boxes hold the prediction's boxes at those frames. Spans are in
    frames. A true frame without an annotated box counts in the union and adds 0. [B, F, 4], [B, 2], ... -> [B].
    """
    return viou_of_ious(box_iou(pred_boxes_BF4, gt_boxes_BF4), pred_span_B2, gt_has_box_BF, gt_span_B2)


def viou_of_ious(iou_BF: Tensor, pred_span_B2: Tensor, gt_has_box_BF: Tensor, gt_span_B2: Tensor) -> Tensor:
    """`tube_viou` from the IoU at each true frame. -> [B]."""
    in_both_BF = frames_in_both(pred_span_B2, gt_span_B2, num_columns=iou_BF.shape[1])
    _, union_B = span_overlap(pred_span_B2, gt_span_B2)
    return torch.where(in_both_BF & gt_has_box_BF, iou_BF, 0.0).sum(dim=1) / union_B.clamp(min=1.0)


def frames_in_both(pred_span_B2: Tensor, gt_span_B2: Tensor, *, num_columns: int) -> Tensor:
    """Which of the frames gt_start + 0, 1, ... are in both spans. -> [B, num_columns] bool."""
    frame_BF = gt_span_B2[:, :1] + torch.arange(num_columns, device=gt_span_B2.device)
    return (frame_BF < gt_span_B2[:, 1:]) & (frame_BF >= pred_span_B2[:, :1]) & (frame_BF < pred_span_B2[:, 1:])


def iou_sum(a_BF4: Tensor, b_BF4: Tensor, counted_BF: Tensor) -> Tensor:
    """Sum of the IoU over the frames that count. -> [B]."""
    return torch.where(counted_BF, box_iou(a_BF4, b_BF4), 0.0).sum(dim=1)


def gt_tube_iou(pred_boxes_BF4: Tensor, gt_boxes_BF4: Tensor, gt_has_box_BF: Tensor) -> Tensor:
    """gt-conditioned vIoU: mean IoU over the true frames that have a box, whatever span was predicted. -> [B]."""
    return iou_sum(pred_boxes_BF4, gt_boxes_BF4, gt_has_box_BF) / gt_has_box_BF.sum(dim=1).clamp(min=1)
