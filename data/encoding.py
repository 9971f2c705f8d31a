"""A sample and its decoded clip -> token ids and pixels, both as the trainer needs them and as vLLM does.

vLLM gets the *unexpanded* ids (one placeholder per video) with the raw frames and expands them itself; the trainer's
expanded ids must come out of it token for token (checked by the rollout, which fails the step otherwise).
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.completion_budget import box_tokens, num_indices
from data.prompts import PromptOrder, build_messages
from data.types import DecodedClip, GroundingSample
from data.written_answers import SPANS, AnswerStyle, answer_pattern

# Timestamps reach the backbone as frame index / fps. Presentation times are exact for a variable frame rate too when
# the "index" counts milliseconds.
TICKS_PER_SEC = 1000.0
PATCH_SEC = "second_per_grid_ts"
"""Of the output of Qwen2.5-VL's processor."""


@dataclass(frozen=True)
class EncodedPrompt:
    """One prompt. L tokens after expansion, V patch rows of the vision tower.

    pixel_values_VC: float32. grid_3: patches of the vision input in (time, height, width). patch_sec: seconds of a
    temporal patch of a video, where the backbone is told them as a number (Qwen2.5-VL) and not in the text.
    """

    unexpanded_ids: list[int] = field(repr=False)
    input_ids_L: Tensor = field(repr=False)
    mm_token_type_ids_L: Tensor = field(repr=False)
    pixel_values_VC: Tensor = field(repr=False)
    grid_3: Tensor
    is_image: bool
    clip: DecodedClip
    patch_sec: float | None = None
    box_tokens: int = 0
    """The most tokens that boxes written in the answer can take, beside the rest of it."""
    answer_pattern: str | None = None
    """A regular expression of all answers that have their boxes in the text; None for other answers."""

    @property
    def num_cells(self) -> int:
        """Vision tokens of the LLM: cells of `merge_size` x `merge_size` patches."""
        return int(self.mm_token_type_ids_L.count_nonzero())

    @property
    def merge_size(self) -> int:
        """Patches along a side of a cell."""
        return math.isqrt(int(self.grid_3.prod()) // self.num_cells)


def encode_prompt(
    processor: Any,
    sample: GroundingSample,
    clip: DecodedClip,
    *,
    order: PromptOrder,
    style: AnswerStyle | None = None,
) -> EncodedPrompt:
    """Run the backbone's own processor on one sample. style: as in `build_messages`."""
    # Here, since scoring reads tubes without any model code.
    from transformers.video_utils import VideoMetadata

    text = processor.apply_chat_template(
        build_messages(sample, order=order, style=style), tokenize=False, add_generation_prompt=True
    )
    style = style or SPANS
    pattern = answer_pattern(sample, style, max_boxes=num_indices(style, clip))
    is_image = len(sample.clip) == 1
    if is_image:
        encoded = processor(text=[text], images=[clip.frames_THW3[0]], return_tensors="pt")
    else:
        encoded = processor(
            text=[text],
            videos=[clip.frames_THW3],
            video_metadata=[VideoMetadata(**video_metadata(clip))],
            do_sample_frames=False,
            return_tensors="pt",
        )
    return EncodedPrompt(
        unexpanded_ids=processor.tokenizer(text)["input_ids"],
        input_ids_L=encoded["input_ids"][0],
        mm_token_type_ids_L=encoded["mm_token_type_ids"][0],
        pixel_values_VC=encoded["pixel_values" if is_image else "pixel_values_videos"],
        grid_3=encoded["image_grid_thw" if is_image else "video_grid_thw"][0],
        is_image=is_image,
        clip=clip,
        box_tokens=0 if pattern is None else box_tokens(processor.tokenizer, style, clip),
        answer_pattern=pattern,
        # float32, as vLLM keeps it.
        patch_sec=float(torch.as_tensor(encoded[PATCH_SEC][0], dtype=torch.float32)) if PATCH_SEC in encoded else None,
    )


def video_metadata(clip: DecodedClip) -> dict[str, Any]:
    """Times of already sampled frames, in the form that both transformers and vLLM read."""
    ticks = np.round(clip.times_sec_T * TICKS_PER_SEC).astype(int).tolist()
    # Frames / total is read as the sampling rate (by Qwen2.5-VL alone), so the last one lasts as long as the others.
    mean_ticks = (ticks[-1] - ticks[0]) / max(len(ticks) - 1, 1)
    return {
        "fps": TICKS_PER_SEC,
        "duration": (ticks[-1] + 1) / TICKS_PER_SEC,
        "total_num_frames": max(ticks[-1] + 1, round(len(ticks) * mean_ticks)),
        "frames_indices": ticks,
        "video_backend": "decord",
    }


def vllm_prompt(prompt: EncodedPrompt) -> dict[str, Any]:
    """The request that vLLM expands into the same ids (vLLM inputs/llm.py: TokensPrompt)."""
    if prompt.is_image:
        data: dict[str, Any] = {"image": prompt.clip.frames_THW3[0]}
    else:
        # Copied: an array from a shared object store is read-only, of which torch warns.
        data = {"video": [(prompt.clip.frames_THW3.copy(), {**video_metadata(prompt.clip), "do_sample_frames": False})]}
    return {"prompt_token_ids": prompt.unexpanded_ids, "multi_modal_data": data}


def text_ids(processor: Any, text: str) -> list[int]:
    """Ids of an answer, closed by the end-of-turn token."""
    return [*processor.tokenizer(text, add_special_tokens=False)["input_ids"], processor.tokenizer.eos_token_id]


def completion_text(processor: Any, completion_ids: list[int]) -> str:
    """The answer of a completion: the text before the end-of-turn token (all of it when the token is missing)."""
    eos = processor.tokenizer.eos_token_id
    end = completion_ids.index(eos) if eos in completion_ids else len(completion_ids)
    return processor.tokenizer.decode(completion_ids[:end], skip_special_tokens=False)
