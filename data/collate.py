"""Prompts, completions and frame choices -> one padded batch of tensors, and the targets of supervised losses.

A row is `prompt | completion | query slots | padding`. The slots are where the model puts its grounder's queries: a
filler id stands there, no token of the vocabulary does. Several rows may share one vision input (a GRPO group does).

Shapes: B rows, V vision inputs, L tokens, F frames for the spatial decoder, T temporal patches.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from data.encoding import EncodedPrompt
from data.geometry import box_area, box_xyxy_to_cxcywh, normalize_boxes
from data.types import GroundingSample

Batch = dict[str, Tensor]
QueryCount = int | Literal["per_frame"]
"""Query slots after each answer: so many, or one for each chosen frame of the row."""


def collate_inputs(
    prompts: Sequence[EncodedPrompt],
    completions: Sequence[list[int]],
    frames: Sequence[Sequence[int]],
    *,
    vision_of_row: Sequence[int] | None = None,
    scored: Sequence[bool] | None = None,
    num_queries: QueryCount,
    pad_id: int,
) -> Batch:
    """The forward's inputs.

    prompts: one per vision input. completions, frames: one per row; frames are positions among the sampled frames.
    vision_of_row: which prompt a row has (default: row b has prompt b). scored: rows whose completion is scored.

    -> input_ids, attention_mask, mm_token_type_ids [B, L]; score_mask, query_mask [B, L] bool; pixel_values
    [sum of patches, C]; grid_thw [V, 3]; vision_is_image [V] bool; vision_of_row, prompt_length [B]; frame_position
    [B, F], -1 as padding; frame_time_sec [B, F]; where prompts have it, patch_sec [V], 1 for an image. Raises ValueError
    when placeholders and patches do not match.
    """
    vision_of_row = list(range(len(prompts))) if vision_of_row is None else list(vision_of_row)
    scored = [True] * len(completions) if scored is None else list(scored)
    for prompt in prompts:
        _check_placeholders(prompt)
    slots = [len(chosen) if num_queries == "per_frame" else num_queries for chosen in frames]
    rows = [
        _row(prompts[v], completion, score, num_slots, pad_id)
        for v, completion, score, num_slots in zip(vision_of_row, completions, scored, slots, strict=True)
    ]
    padding = {"input_ids": pad_id, "attention_mask": 0, "mm_token_type_ids": 0, "score_mask": 0, "query_mask": 0}
    batch = {key: _pad([row[key] for row in rows], value) for key, value in padding.items()}
    batch["vision_of_row"] = torch.tensor(vision_of_row)
    batch["prompt_length"] = torch.tensor([len(prompts[v].input_ids_L) for v in vision_of_row])
    return batch | _vision_inputs(prompts) | _frame_inputs([prompts[v] for v in vision_of_row], frames)


def _vision_inputs(prompts: Sequence[EncodedPrompt]) -> Batch:
    seconds = [prompt.patch_sec for prompt in prompts]
    known = any(sec is not None for sec in seconds)
    timing = {"patch_sec": torch.tensor([1.0 if sec is None else sec for sec in seconds])} if known else {}
    return timing | {
        "pixel_values": torch.cat([prompt.pixel_values_VC for prompt in prompts]),
        "grid_thw": torch.stack([prompt.grid_3 for prompt in prompts]),
        "vision_is_image": torch.tensor([prompt.is_image for prompt in prompts]),
    }


def _frame_inputs(prompt_of_row: Sequence[EncodedPrompt], frames: Sequence[Sequence[int]]) -> Batch:
    times = [
        [float(prompt.clip.times_sec_T[t]) for t in chosen]
        for prompt, chosen in zip(prompt_of_row, frames, strict=True)
    ]
    return {
        "frame_position": _pad([torch.tensor(list(chosen), dtype=torch.long) for chosen in frames], -1),
        "frame_time_sec": _pad([torch.tensor(row) for row in times], 0.0),
    }


def _pad(rows: list[Tensor], value: float) -> Tensor:
    return pad_sequence(rows, batch_first=True, padding_value=value)


def _check_placeholders(prompt: EncodedPrompt) -> None:
    placeholders = int(torch.count_nonzero(prompt.mm_token_type_ids_L))
    patches = prompt.pixel_values_VC.shape[0]
    if patches != int(prompt.grid_3.prod()) or placeholders == 0 or patches % placeholders:
        raise ValueError(
            f"{placeholders} placeholder tokens do not match {patches} patches of grid {prompt.grid_3.tolist()}"
        )


def _row(prompt: EncodedPrompt, completion: list[int], scored: bool, num_slots: int, pad_id: int) -> Batch:
    answer = torch.tensor(completion, dtype=torch.long)
    slots = torch.full((num_slots,), pad_id)
    input_ids = torch.cat([prompt.input_ids_L, answer, slots])
    score_mask, query_mask = torch.zeros(2, len(input_ids), dtype=torch.bool)
    start, end = len(prompt.input_ids_L), len(prompt.input_ids_L) + len(completion)
    score_mask[start:end] = scored
    query_mask[end:] = True
    type_ids = torch.zeros_like(input_ids)
    type_ids[:start] = prompt.mm_token_type_ids_L
    return {
        "input_ids": input_ids,
        "attention_mask": torch.ones_like(input_ids),
        "mm_token_type_ids": type_ids,
        "score_mask": score_mask,
        "query_mask": query_mask,
    }


def collate_targets(
    samples: Sequence[GroundingSample],
    prompts: Sequence[EncodedPrompt],
    frames: Sequence[Sequence[int]],
    *,
    temporal_patch_size: int,
) -> Batch:
    """What the supervised losses compare with, one row per sample.

    -> target_boxes_cxcywh [B, F, 4]; target_box_mask [B, F] (a true box is there); target_presence [B, F] in {0, 1};
    target_presence_mask [B, F]; target_alignment [B, T], the share of a temporal patch inside the true span;
    target_alignment_mask [B, T] (real patches of samples with a span in a video); target_cells [B, N], how much of the
    target is in each vision token, in the tokens' order; target_cells_mask [B, N] (of samples with boxes).
    """
    rows = [_target_row(*row, temporal_patch_size) for row in zip(samples, prompts, frames, strict=True)]
    return {key: _pad([row[key] for row in rows], 0) for key in rows[0]}


def _target_row(
    sample: GroundingSample, prompt: EncodedPrompt, chosen: Sequence[int], temporal_patch_size: int
) -> Batch:
    frame_idx = prompt.clip.frame_idx_T
    boxes = {f: box for f in map(int, frame_idx) if (box := true_box_px(sample, f)) is not None}
    chosen_idx = [int(frame_idx[t]) for t in chosen]
    boxes_px = torch.tensor([boxes.get(f, (0.0, 0.0, 0.0, 0.0)) for f in chosen_idx]).reshape(-1, 4)
    inside_T = torch.tensor([_inside(sample, f) for f in map(int, frame_idx)])
    is_located = sample.task in ("stvg", "rec")
    has_time = sample.span is not None and not prompt.is_image
    return {
        "target_boxes_cxcywh": box_xyxy_to_cxcywh(normalize_boxes(boxes_px, width=sample.width, height=sample.height)),
        "target_box_mask": torch.tensor([f in boxes for f in chosen_idx], dtype=torch.bool),
        "target_presence": torch.tensor([_inside(sample, f) for f in chosen_idx]),
        # In a single image the target is always there: nothing to tell apart.
        "target_presence_mask": torch.full((len(chosen_idx),), is_located and not prompt.is_image),
        "target_alignment": _patch_means(inside_T, temporal_patch_size),
        "target_alignment_mask": torch.full((-(-len(frame_idx) // temporal_patch_size),), has_time),
        "target_cells": _cell_shares(sample, prompt, temporal_patch_size),
        "target_cells_mask": torch.full((prompt.num_cells,), is_located),
    }


def _cell_shares(sample: GroundingSample, prompt: EncodedPrompt, temporal_patch_size: int) -> Tensor:
    """The intersection of the true box with each cell, over the smaller of the two; a mean over a patch's frames.

    1 where the box covers the cell or lies within it, 0 outside of the interval. [T * S], row by row.
    """
    frame_idx = prompt.clip.frame_idx_T
    boxes_px = torch.tensor([true_box_px(sample, int(frame)) or (0.0,) * 4 for frame in frame_idx])
    boxes_T4 = normalize_boxes(boxes_px, width=sample.width, height=sample.height)
    _, rows, columns = (int(size) // prompt.merge_size for size in prompt.grid_3)
    down, right = torch.arange(rows), torch.arange(columns)
    overlap_TY = _overlap(boxes_T4[:, 1::2], down / rows, (down + 1) / rows)
    overlap_TX = _overlap(boxes_T4[:, 0::2], right / columns, (right + 1) / columns)
    inside_TS = (overlap_TY[:, :, None] * overlap_TX[:, None, :]).flatten(1)
    smaller_T1 = box_area(boxes_T4)[:, None].clamp(max=1 / (rows * columns))
    shares_TS = inside_TS / smaller_T1.clamp(min=1e-9)
    return torch.stack([_patch_means(column, temporal_patch_size) for column in shares_TS.unbind(1)], dim=1).flatten()


def _overlap(interval_T2: Tensor, start_S: Tensor, end_S: Tensor) -> Tensor:
    """Length of the intersection of each interval with each [start, end]."""
    return (torch.minimum(interval_T2[:, 1:], end_S) - torch.maximum(interval_T2[:, :1], start_S)).clamp(min=0)


def _inside(sample: GroundingSample, frame_idx: int) -> float:
    return float(sample.span is not None and sample.span.start <= frame_idx < sample.span.end)


def _patch_means(inside_T: Tensor, size: int) -> Tensor:
    """Mean over each temporal patch; the backbone repeats the last frame to fill the last one."""
    missing = -len(inside_T) % size
    return torch.cat([inside_T, inside_T[-1:].expand(missing)]).reshape(-1, size).mean(dim=1)


def true_box_px(sample: GroundingSample, frame_idx: int) -> tuple[float, float, float, float] | None:
    """The annotated box of an absolute frame, if any."""
    if sample.span is None or sample.boxes_xyxy_px is None or not sample.span.start <= frame_idx < sample.span.end:
        return None
    return sample.boxes_xyxy_px[frame_idx - sample.span.start]
