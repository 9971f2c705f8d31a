"""From frames and a sentence to an interval and boxes: the whole path of one question, without an annotation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.answers import parse_span
from data.collate import collate_inputs
from data.encoding import EncodedPrompt, completion_text, encode_prompt, text_ids
from data.geometry import box_cxcywh_to_xyxy
from data.tubes import answer_frames, span_frames
from data.types import BoxPx, DecodedClip, FrameSpan, GroundingSample
from model.backbone import generate


@dataclass(frozen=True)
class Grounding:
    """An answer. span: half-open frames, None when the text is not an answer. boxes: by frame index, xyxy in pixels."""

    text: str
    span: tuple[int, int] | None
    boxes_xyxy_px: dict[int, BoxPx]


def ground(
    model: Any,
    processor: Any,
    *,
    query: str,
    frames_THW3: np.ndarray,
    frame_idx_T: np.ndarray,
    fps: float,
    num_frames: int,
    max_new_tokens: int,
    answer: str | None = None,
) -> Grounding:
    """frames_THW3: uint8 RGB, sampled from a clip of `num_frames` frames at indices frame_idx_T (ascending).

    answer: a text to decode boxes for; None lets the model write it.
    """
    height, width = frames_THW3.shape[1:3]
    sample = GroundingSample(
        sample_id="question",
        task="stvg",
        query=query,
        video_path="",
        fps=fps,
        width=width,
        height=height,
        clip=FrameSpan(0, num_frames),
    )
    clip = DecodedClip(frames_THW3, np.asarray(frame_idx_T), np.asarray(frame_idx_T) / fps)
    prompt = encode_prompt(processor, sample, clip, order=model.config.prompt["prompt_order"])
    if answer is not None:
        completion = text_ids(processor, answer)
    else:
        eos_id = processor.tokenizer.eos_token_id
        (completion,) = generate(
            model.mllm, [prompt], max_new_tokens=max_new_tokens, eos_id=eos_id, banned_ids=model.banned_ids
        )
    text = completion_text(processor, completion)
    parsed = parse_span(text)
    chosen = answer_frames(sample, prompt, parsed).tolist()
    boxes_F4 = decode_boxes(model, [prompt], [completion], [chosen], pad_id=processor.tokenizer.pad_token_id)[0]
    boxes_px = boxes_F4 * boxes_F4.new_tensor([width, height, width, height])
    span = span_frames(sample, parsed)
    return Grounding(
        text=text,
        span=None if span is None else (span.start, span.end),
        boxes_xyxy_px={
            int(frame_idx_T[t]): (left, top, right, bottom)
            for t, (left, top, right, bottom) in zip(chosen, boxes_px.tolist(), strict=True)
        },
    )


def decode_boxes(
    model: Any,
    prompts: Sequence[EncodedPrompt],
    completions: Sequence[list[int]],
    frames: Sequence[Sequence[int]],
    *,
    pad_id: int,
) -> Tensor:
    """Boxes of the chosen frames, after the completion as it was written: xyxy in [0, 1], [B, F, 4] on the CPU."""
    batch = collate_inputs(prompts, completions, frames, num_queries=model.num_queries, pad_id=pad_id)
    with torch.inference_mode():
        output = model(**{name: tensor.to(model.device) for name, tensor in batch.items()})
    return box_cxcywh_to_xyxy(output.grounding.boxes_cxcywh_NBF4[-1]).cpu()
