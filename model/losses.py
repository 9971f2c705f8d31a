"""Supervised losses: pure functions of tensors. Each is a mean over what its mask keeps, and 0 where that is nothing.

`count`, where given, is what the masks keep in the whole step, all micro-batches and ranks together: the losses of the
parts of a step then add up to the loss of the step, however it was cut.

Shapes: N decoder layers, B rows, F frames, T temporal patches, L tokens.
"""

import torch
from torch import Tensor

from data.geometry import box_cxcywh_to_xyxy, box_giou


def masked_mean(values: Tensor, mask: Tensor, count: Tensor | None = None) -> Tensor:
    """Sum of the values that the mask keeps, over `count` or their number; an empty mask gives 0 with a zero gradient."""
    kept = torch.where(mask, values, torch.zeros_like(values))
    return kept.sum() / (mask.sum() if count is None else count).clamp(min=1)


def text_loss(logps_BL: Tensor, score_mask_BL: Tensor, count: Tensor | None = None) -> Tensor:
    """Cross-entropy of the answer's tokens."""
    return masked_mean(-logps_BL, score_mask_BL, count)


def box_l1_loss(pred_NBF4: Tensor, target_BF4: Tensor, mask_BF: Tensor, count: Tensor | None = None) -> Tensor:
    """L1 of cxcywh in [0, 1], summed over the four coordinates (DETR, appendix A.2) and averaged over layers."""
    distance_NBF = (pred_NBF4 - target_BF4).abs().sum(dim=-1)
    return masked_mean(distance_NBF.mean(dim=0), mask_BF, count)


def box_giou_loss(pred_NBF4: Tensor, target_BF4: Tensor, mask_BF: Tensor, count: Tensor | None = None) -> Tensor:
    """1 - GIoU, averaged over layers."""
    target = box_cxcywh_to_xyxy(target_BF4).expand_as(pred_NBF4)
    loss_NBF = 1 - box_giou(box_cxcywh_to_xyxy(pred_NBF4), target)
    return masked_mean(loss_NBF.mean(dim=0), mask_BF, count)


def presence_loss(logits_NBF: Tensor, target_BF: Tensor, mask_BF: Tensor, count: Tensor | None = None) -> Tensor:
    """Binary cross-entropy of "the sentence holds in this frame", averaged over layers."""
    loss_NBF = torch.nn.functional.binary_cross_entropy_with_logits(
        logits_NBF, target_BF.expand_as(logits_NBF), reduction="none"
    )
    return masked_mean(loss_NBF.mean(dim=0), mask_BF, count)


def alignment_loss(scores_BT: Tensor, inside_BT: Tensor, mask_BT: Tensor, count: Tensor | None = None) -> Tensor:
    """ETA: binary cross-entropy of a temporal patch's score with its share inside the true interval."""
    scores_BT = scores_BT.float().clamp(min=-1e4)
    loss_BT = torch.nn.functional.binary_cross_entropy_with_logits(scores_BT, inside_BT, reduction="none")
    return masked_mean(loss_BT, mask_BT, count)


def cells_loss(logits_BN: Tensor, shares_BN: Tensor, mask_BN: Tensor, count: Tensor | None = None) -> Tensor:
    """ETA: binary cross-entropy of a vision token's score with how much of the target it holds."""
    loss_BN = torch.nn.functional.binary_cross_entropy_with_logits(logits_BN.float(), shares_BN, reduction="none")
    return masked_mean(loss_BN, mask_BN, count)


def contrast_loss(scores_BT: Tensor, inside_BT: Tensor, mask_BT: Tensor, count: Tensor | None = None) -> Tensor:
    """ETA: InfoNCE with the patches inside the interval as positives: -log of the softmax mass that falls on them."""
    scores_BT = scores_BT.float().clamp(min=-1e4).masked_fill(~mask_BT, float("-inf"))
    usable_B = contrasted_rows(inside_BT, mask_BT)
    safe_BT = torch.where(usable_B[:, None], scores_BT, torch.zeros_like(scores_BT))
    positives_BT = torch.where(usable_B[:, None] & (inside_BT <= 0.5), float("-inf"), safe_BT)
    return masked_mean(safe_BT.logsumexp(dim=1) - positives_BT.logsumexp(dim=1), usable_B, count)


def contrasted_rows(inside_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Rows with a positive and a negative patch, [B]; the others have nothing to contrast."""
    positive_BT = mask_BT & (inside_BT > 0.5)
    return positive_BT.any(dim=1) & (mask_BT & ~positive_BT).any(dim=1)
