"""How many tokens and patches one sample has, from the config alone: no video, no annotation is read.

The sample is an example: as many frames as `data.video` allows, of the size that is asked for, with a sentence of ours. With
the backbone's processor its prompt is planned as a real one's is (data/token_budget.py). Without it, a released model's pixel
budget is used, and text is counted roughly, a token for each word, digit and mark. Boxes that are written are those of an
answer that says the whole clip (data/completion_budget.py).
"""

import re
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from transformers import Qwen3VLVideoProcessor

from configs.data import DataConfig
from configs.sources import SyntheticSource
from data.answers import SpanSec, format_span
from data.completion_budget import box_tokens
from data.prompts import build_messages
from data.token_budget import TokenBudget, VisionSize, video_size
from data.types import DecodedClip, FrameSpan, GroundingSample
from data.written_answers import AnswerFormat, AnswerStyle

QUERY, SYNTHETIC_QUERY = "the adult in black who is walking away from the child", "the yellow triangle moves right"
RELEASED_SIZE = {"shortest_edge": 4096, "longest_edge": 25_165_824}
"""Of the released video_preprocessor_config.json of Qwen3-VL."""
FRAME_TOKENS, CHAT_TOKENS = 10, 10
"""In Qwen's tokenizer: "<12.3 seconds>" and the two marks around a patch's tokens; the roles of question and answer."""


@dataclass(frozen=True)
class SampleTokens:
    """grid: (time, height, width) in patches. text: of the prompt, without vision tokens. answer: the scored ones."""

    grid: tuple[int, int, int]
    vision: int
    text: int
    answer: int
    queries: int

    @property
    def total(self) -> int:
        """The row's length."""
        return self.vision + self.text + self.answer + self.queries


def sample_tokens(
    data: DataConfig, *, patch_px: int, num_queries: int, processor: Any, size: tuple[int, int],
    answer_format: AnswerFormat = "span",
) -> SampleTokens:  # fmt: skip
    """Of the longest stvg sample that the config allows. processor: None where it cannot be read. size: (width, height).

    Raises data.token_budget.PromptError for a token budget that is too small for the fewest frames.
    """
    sample, style = example(data, size), AnswerStyle.of(answer_format, data.prompt.model_dump())
    planned = _roughly(data, sample, style) if processor is None else _as_encoded(data, sample, style, processor)
    vision, text, answer = planned
    grid = (vision.temporal_patches, vision.height_px // patch_px, vision.width_px // patch_px)
    return SampleTokens(grid, vision.num_tokens, text, answer, num_queries)


def example(data: DataConfig, size: tuple[int, int]) -> GroundingSample:
    """As long as `data.video` has frames for; of synthetic videos, as long and as large as they are."""
    source, video = data.source, data.video
    is_synthetic = isinstance(source, SyntheticSource)
    if is_synthetic:
        fps, length, size = source.fps, round(source.duration_sec * source.fps), (source.size_px, source.size_px)
    else:
        fps, length = video.sample_fps, video.num_frames or video.max_frames
    clip = FrameSpan(0, length)
    return GroundingSample(
        sample_id="example", task="stvg", query=SYNTHETIC_QUERY if is_synthetic else QUERY, video_path="example.mp4",
        fps=fps, width=size[0], height=size[1], clip=clip, span=clip, boxes_xyxy_px=((0.0, 0.0, 8.0, 8.0),) * length,
    )  # fmt: skip


def _as_encoded(
    data: DataConfig, sample: GroundingSample, style: AnswerStyle, processor: Any
) -> tuple[VisionSize, int, int]:
    """-> the video's size, tokens of the prompt's text, tokens of the answer."""
    budget = TokenBudget(processor, data.video, order=data.prompt.prompt_order, style=style)
    planned = budget.plan(sample)
    text = budget.num_tokens(sample, planned.num_frames) - planned.size.num_tokens
    return planned.size, text, _answer_tokens(processor.tokenizer, style, sample, planned.num_frames)


def _roughly(data: DataConfig, sample: GroundingSample, style: AnswerStyle) -> tuple[VisionSize, int, int]:
    longest = data.video.max_pixels or RELEASED_SIZE["longest_edge"]
    edges = {"shortest_edge": min(RELEASED_SIZE["shortest_edge"], longest), "longest_edge": longest}
    processor = SimpleNamespace(video_processor=Qwen3VLVideoProcessor(size=edges, cap_pixels_per_frame=False))
    parts = build_messages(sample, order=data.prompt.prompt_order, style=style)[0]["content"]
    question = _count(" ".join(part["text"] for part in parts if part["type"] == "text")) + CHAT_TOKENS
    limit = data.video.max_prompt_tokens
    frames = len(sample.clip)
    while True:
        size = video_size(processor, num_frames=frames, height_px=sample.height, width_px=sample.width)
        text = question + size.temporal_patches * FRAME_TOKENS
        if limit is None or frames <= 2 or size.num_tokens + text <= limit:
            return size, text, _answer_tokens(_rough_tokenizer, style, sample, frames)
        frames -= 1


def _answer_tokens(tokenizer: Any, style: AnswerStyle, sample: GroundingSample, num_frames: int) -> int:
    """With the end token: of an interval, or of boxes at all indices of the clip."""
    if style.has_boxes:
        return box_tokens(tokenizer, style, _spread(sample, num_frames))
    text = format_span(SpanSec(12.3, 45.6), decimals=style.time_decimals)
    return len(tokenizer(text, add_special_tokens=False)["input_ids"]) + 1


def _spread(sample: GroundingSample, num_frames: int) -> DecodedClip:
    """So many frames over the sample's clip, without pixels."""
    frame_idx_T = np.floor(np.arange(num_frames) * len(sample.clip) / num_frames).astype(np.int64)
    return DecodedClip(np.zeros((num_frames, 1, 1, 3), np.uint8), frame_idx_T, frame_idx_T / sample.fps)


def _rough_tokenizer(text: str, *, add_special_tokens: bool) -> dict[str, list[str]]:
    """Called as a tokenizer is: a token for each word, digit and mark."""
    return {"input_ids": re.findall(r"\d|[^\W\d]+|[^\w\s]", text)}


def _count(text: str) -> int:
    return len(_rough_tokenizer(text, add_special_tokens=False)["input_ids"])
