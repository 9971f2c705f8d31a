"""Weighs the supervised losses; returns the total and every term."""

from collections.abc import Mapping

from torch import Tensor

from configs.model import LossConfig
from model.grounder import GrounderOutput
from model.grounding_model import GroundingOutput
from model.losses import (
    alignment_loss,
    box_giou_loss,
    box_l1_loss,
    cells_loss,
    contrast_loss,
    contrasted_rows,
    presence_loss,
    text_loss,
)

Counts = Mapping[str, Tensor]
"""By term, how much of the whole step it is a mean over."""


def supervised_loss(
    output: GroundingOutput, batch: Mapping[str, Tensor], weights: LossConfig, counts: Counts | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Text and grounding losses of one batch of `collate_inputs | collate_targets`. -> total, terms by name.

    counts: `target_counts` of the whole step, of which this batch is a part; None: of the batch itself.
    """
    counts = target_counts(batch) if counts is None else counts
    terms = {"text": text_loss(output.logps_BL, batch["score_mask"].bool(), counts["text"])}
    terms |= grounding_losses(output.grounding, batch, counts)
    return weigh(terms, weights), terms


def target_counts(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What each term of a batch is a mean over: tokens, boxes, frames, patches, rows, cells. Known before the forward."""
    boxes = batch["target_box_mask"].sum()
    alignment_mask_BT = batch["target_alignment_mask"].bool()
    return {
        "text": batch["score_mask"].sum(),
        "box_l1": boxes,
        "box_giou": boxes,
        "presence": batch["target_presence_mask"].sum(),
        "alignment": alignment_mask_BT.sum(),
        "contrast": contrasted_rows(batch["target_alignment"], alignment_mask_BT).sum(),
        "cells": batch["target_cells_mask"].sum(),
    }


def grounding_losses(
    grounding: GrounderOutput, batch: Mapping[str, Tensor], counts: Counts | None = None
) -> dict[str, Tensor]:
    """The terms that train the grounder, auxiliary ones of every decoder layer included; none for what it does not say."""
    count, terms = {} if counts is None else counts, {}
    if len(grounding.boxes_cxcywh_NBF4):
        args = grounding.boxes_cxcywh_NBF4, batch["target_boxes_cxcywh"], batch["target_box_mask"].bool()
        terms["box_l1"] = box_l1_loss(*args, count.get("box_l1"))
        terms["box_giou"] = box_giou_loss(*args, count.get("box_giou"))
    if len(grounding.presence_NBF):
        args = grounding.presence_NBF, batch["target_presence"], batch["target_presence_mask"].bool()
        terms["presence"] = presence_loss(*args, count.get("presence"))
    if grounding.alignment_BT is not None:
        args = grounding.alignment_BT, batch["target_alignment"], batch["target_alignment_mask"].bool()
        terms["alignment"] = alignment_loss(*args, count.get("alignment"))
        terms["contrast"] = contrast_loss(*args, count.get("contrast"))
    if grounding.cells_BN is not None:
        args = grounding.cells_BN, batch["target_cells"], batch["target_cells_mask"].bool()
        terms["cells"] = cells_loss(*args, count.get("cells"))
    return terms


def weigh(terms: Mapping[str, Tensor], weights: LossConfig) -> Tensor:
    """Weighted sum."""
    total = sum(getattr(weights, name) * value for name, value in terms.items())
    assert isinstance(total, Tensor)
    return total
