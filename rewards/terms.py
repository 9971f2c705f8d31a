"""Reward terms. Each maps a TubeBatch to [B] values on its device, without a loop over samples and without waiting for it.

A failed answer is worth 0 in every term (RewardComposer sees to it); its price is `RewardConfig.parse_failure`. To add a
term, write a function, add a line to TERMS and a weight to configs/rewards.py; or leave it where it is and name it in
`rewards.own`.

| term | range | known way to cheat |
|---|---|---|
| format | 0, 1 | says nothing about the answer: keep its weight small |
| temporal | [0, 1] | a whole-video span earns its share of the clip |
| viou | [0, 1] | none known: counted over the union of frames |
| spatial | [-5, 1] | over the intersection alone: one confident frame is enough, and no overlap (0) beats a bad box (negative);
  `clips: {spatial: [0, 1]}` mends the second |
| consistency | 0, 1 | any boxes at the right indices: says nothing about where they are |
| both_spatial | [-10, 2] | as `spatial`, for both box sequences; `spatial_floor: 0` mends the second |
| think | [0, 6] | bad think boxes: pays less than they cost in `both_spatial` as long as its weight is below the other's |
| choice | 0, 1 | qa alone: the same letter every time earns its share of the data |
| gated | [0, 2] | its spatial part is over the intersection alone, but tIoU squared gates it |
"""

from collections.abc import Callable

import torch
from torch import Tensor

from data.geometry import box_giou, frames_in_both
from data.tubes import TubeBatch
from rewards.stvg_o1 import both_spatial_reward, consistency_reward, think_reward

RewardTerm = Callable[[TubeBatch], Tensor]


def format_reward(tubes: TubeBatch) -> Tensor:
    """1 where the answer follows the grammar (STVG-o1, 2511.21375, Eq. 3)."""
    return tubes.parsed_B.float()


def temporal_reward(tubes: TubeBatch) -> Tensor:
    """tIoU of the answered interval (STVG-o1, Eq. 5)."""
    return tubes.tiou()


def viou_reward(tubes: TubeBatch) -> Tensor:
    """The evaluator's own vIoU: over the union of frames, so that skipping frames does not pay."""
    return tubes.viou()


def spatial_reward(tubes: TubeBatch) -> Tensor:
    """Mean of GIoU - L1 over the annotated frames in both spans, boxes in [0, 1]; 0 without any (STVG-o1, Eq. 6-7)."""
    distance_BF = (tubes.pred_boxes_BF4 - tubes.gt_boxes_BF4).abs().sum(dim=-1)
    return _mean_over_both(tubes, box_giou(tubes.pred_boxes_BF4, tubes.gt_boxes_BF4) - distance_BF)


def gated_reward(tubes: TubeBatch, *, exponent: float = 2.0) -> Tensor:
    """tIoU + tIoU^2 sIoU, with the mean IoU over the frames in both spans as sIoU (SARL-STG; its exponent)."""
    tiou_B = tubes.tiou()
    return tiou_B + tiou_B**exponent * _mean_over_both(tubes, tubes.iou_BF)


def choice_reward(tubes: TubeBatch) -> Tensor:
    """1 where the letter of a qa answer is the right one (Video-R1, 2503.21776)."""
    return tubes.right_choice_B.float()


def _mean_over_both(tubes: TubeBatch, values_BF: Tensor) -> Tensor:
    """Mean over the annotated frames of the intersection of both spans; 0 where there are none."""
    in_both_BF = frames_in_both(tubes.pred_span_B2, tubes.gt_span_B2, num_columns=values_BF.shape[1])
    counts_BF = tubes.gt_has_box_BF & in_both_BF
    total_B = torch.where(counts_BF, values_BF, 0.0).sum(dim=1)
    return total_B / counts_BF.sum(dim=1).clamp(min=1)


TERMS: dict[str, RewardTerm] = {
    "format": format_reward,
    "temporal": temporal_reward,
    "viou": viou_reward,
    "spatial": spatial_reward,
    "gated": gated_reward,
    "consistency": consistency_reward,
    "both_spatial": both_spatial_reward,
    "think": think_reward,
    "choice": choice_reward,
}
