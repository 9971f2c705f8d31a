"""STVG-o1's rewards of a written tube (2511.21375, section 3.2): R = R_f + R_c + R_t + R_s + 0.5 R_k.

    R_f  `format`        the text follows the grammar (Eq. 3)
    R_c  `consistency`   both box sequences are at exactly the indices of the answered interval (Eq. 4)
    R_t  `temporal`      IoU of the intervals (Eq. 5), the evaluator's, in frames
    R_s  `both_spatial`  R_spa of the think boxes + R_spa of the final ones (Eq. 8)
    R_k  `think`         max(R_spa of the final boxes - R_spa of the think boxes, 0) (Eq. 9)

R_f and R_t are those of rewards/terms.py. R_spa is the mean of GIoU - L1, boxes in [0, 1], over the indices of both intervals,
and 0 where they have none in common (Eq. 6-7). An index without a written box adds 0 and stays in the denominator, and one
whose frame has no annotated box is left out of both: the paper says neither.

Known weakness: R_spa goes down to -5, so that no overlap in time (0) beats a bad box. `floor` (rewards.spatial_floor) cuts off
each R_spa before they are added and compared. Cutting off R_s instead would pay for bad think boxes, through R_k.

Shapes: B completions, I indices of the true intervals (data/tube_indices.py).
"""

import math

import torch
from torch import Tensor

from data.geometry import box_giou
from data.tube_indices import WrittenTubes
from data.tubes import TubeBatch


def consistency_reward(tubes: TubeBatch) -> Tensor:
    """R_c. -> [B]."""
    return _written(tubes).consistent_B.float()


def both_spatial_reward(tubes: TubeBatch, *, floor: float = -math.inf) -> Tensor:
    """R_s. -> [B] in [-10, 2]."""
    think_B, final_B = _spatial_pair(tubes, floor)
    return think_B + final_B


def think_reward(tubes: TubeBatch, *, floor: float = -math.inf) -> Tensor:
    """R_k. -> [B] in [0, 6]; in [0, 1] with a floor of 0."""
    think_B, final_B = _spatial_pair(tubes, floor)
    return (final_B - think_B).clamp(min=0.0)


def spatial_of_sequence(
    boxes_BI4: Tensor,
    has_box_BI: Tensor,
    gt_boxes_BI4: Tensor,
    counted_BI: Tensor,
    *,
    floor: float = -math.inf,
) -> Tensor:
    """R_spa of one box sequence; counted_BI: indices of both intervals whose frame has an annotated box. -> [B]."""
    closeness_BI = box_giou(boxes_BI4, gt_boxes_BI4) - (boxes_BI4 - gt_boxes_BI4).abs().sum(dim=-1)
    total_B = torch.where(counted_BI & has_box_BI, closeness_BI, 0.0).sum(dim=1)
    return (total_B / counted_BI.sum(dim=1).clamp(min=1)).clamp(min=floor)


def _spatial_pair(tubes: TubeBatch, floor: float) -> tuple[Tensor, Tensor]:
    written = _written(tubes)
    counted_BI = written.in_both_BI & written.gt_has_box_BI
    think_B, final_B = (
        spatial_of_sequence(boxes_BI4, has_box_BI, written.gt_boxes_BI4, counted_BI, floor=floor)
        for boxes_BI4, has_box_BI in (
            (written.think_boxes_BI4, written.think_has_box_BI),
            (written.final_boxes_BI4, written.final_has_box_BI),
        )
    )
    return think_B, final_B


def _written(tubes: TubeBatch) -> WrittenTubes:
    if tubes.written is None:
        raise ValueError("these answers have no written boxes; rewards.preset=stvg_o1 is for the grounder text")
    return tubes.written
