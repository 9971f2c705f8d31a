"""Weights the supervised losses; returns the total and every term."""

from collections.abc import Mapping

from torch import Tensor

from configs.model import LossConfig
from model.bridge_grounder import GrounderOutput
from model.grounding_model import GroundingOutput
from model.losses import alignment_loss, box_giou_loss, box_l1_loss, cells_loss, contrast_loss, presence_loss, text_loss


def supervised_loss(
    output: GroundingOutput, batch: Mapping[str, Tensor], weights: LossConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """Text and grounding losses of one batch of `collate_inputs | collate_targets`. -> total, terms by name."""
    terms = {"text": text_loss(output.logps_BL, batch["score_mask"].bool())}
    terms |= grounding_losses(output.grounding, batch)
    return weigh(terms, weights), terms


def grounding_losses(grounding: GrounderOutput, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The terms that train the grounder, auxiliary ones of every decoder layer included."""
    boxes, target = grounding.boxes_cxcywh_NBF4, batch["target_boxes_cxcywh"]
    box_mask = batch["target_box_mask"].bool()
    terms = {
        "box_l1": box_l1_loss(boxes, target, box_mask),
        "box_giou": box_giou_loss(boxes, target, box_mask),
        "presence": presence_loss(
            grounding.presence_NBF, batch["target_presence"], batch["target_presence_mask"].bool()
        ),
    }
    if grounding.alignment_BT is not None:
        args = grounding.alignment_BT, batch["target_alignment"], batch["target_alignment_mask"].bool()
        terms |= {"alignment": alignment_loss(*args), "contrast": contrast_loss(*args)}
    if grounding.cells_BN is not None:
        terms["cells"] = cells_loss(grounding.cells_BN, batch["target_cells"], batch["target_cells_mask"].bool())
    return terms


def weigh(terms: Mapping[str, Tensor], weights: LossConfig) -> Tensor:
    """Weighted sum."""
    total = sum(getattr(weights, name) * value for name, value in terms.items())
    assert isinstance(total, Tensor)
    return total
