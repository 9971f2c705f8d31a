"""From boxes as published to boxes as kept: inside of the image, or None, with the facts to report about them.

Annotated boxes leave the image, and some are impossible: HC-STVG v2 holds sizes below zero (tzhhhh123/HC-STVG#18). A
box that is partly outside is cut to the image; one of negative size, or wholly outside, is no box. Boxes are pixels,
x from the left and y from the top.
"""

from collections.abc import Sequence
from dataclasses import replace

from data.annotations import Split
from data.types import BoxPx, FrameSpan, GroundingSample


def xywh_to_xyxy(box_xywh: BoxPx) -> BoxPx:
    """(left, top, width, height) -> (left, top, right, bottom)."""
    left, top, width, height = box_xywh
    return left, top, left + width, top + height


def clip_box(box_xyxy: BoxPx, *, width: int, height: int) -> BoxPx | None:
    """The part of a box that lies in the image; None where there is none, or the box has a negative size."""
    left, top, right, bottom = box_xyxy
    if right < left or bottom < top or right <= 0 or bottom <= 0 or left >= width or top >= height:
        return None
    if left >= 0 and top >= 0 and right <= width and bottom <= height:
        return box_xyxy
    return max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height))


def clip_tube(
    boxes_xyxy: Sequence[BoxPx | None], *, width: int, height: int
) -> tuple[tuple[BoxPx | None, ...], list[str]]:
    """Boxes of a tube (None: not annotated) inside of the image, and flags about the sample.

    boxes_clipped: some were cut. impossible_boxes: some were no box. missing_boxes: some of the frames were not
    annotated. no_boxes: none is left, or there never was one.
    """
    if not any(boxes_xyxy):
        return tuple(boxes_xyxy), ["no_boxes"]
    kept = tuple(box and clip_box(box, width=width, height=height) for box in boxes_xyxy)
    flags = {
        "boxes_clipped": any(new is not None and new is not old for new, old in zip(kept, boxes_xyxy, strict=True)),
        "impossible_boxes": any(new is None and old is not None for new, old in zip(kept, boxes_xyxy, strict=True)),
        "missing_boxes": any(old is None for old in boxes_xyxy),
        "no_boxes": all(new is None for new in kept),
    }
    return kept, [name for name, holds in flags.items() if holds]


def add_tube(
    split: Split, question: GroundingSample, span: FrameSpan, boxes_xyxy: Sequence[BoxPx | None], *flags: str
) -> None:
    """Keep a question with its answer: one box per frame of the span. Raises FieldError, SampleError."""
    boxes, box_flags = clip_tube(boxes_xyxy, width=question.width, height=question.height)
    split.add(replace(question, span=span, boxes_xyxy_px=boxes), *flags, *box_flags)
