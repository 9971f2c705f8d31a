"""How long a prompt will be and at which size its frames are seen, known before any frame is decoded.

The backbone's processor resizes a video to multiples of a cell, within a budget of frames x height x width, and Qwen3-VL's
puts a timestamp before each temporal patch. Its own resize is called here on numbers alone. A prompt that would be longer
than `max_prompt_tokens` gets fewer frames, the most that fit, and is counted: nothing is ever cut out of a vision span.
"""

import logging
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from configs.video import VideoConfig
from data.frame_sampling import count_frames, sample_frames
from data.prompts import PromptOrder, build_messages
from data.types import GroundingSample
from data.written_answers import AnswerStyle

logger = logging.getLogger("data.token_budget")
MAX_LISTED = 20


class PromptError(ValueError):
    """No prompt can be made of a sample; the message names it and the cause."""

    def __init__(self, sample_id: str, cause: str) -> None:
        super().__init__(sample_id, cause)
        self.sample_id, self.cause = sample_id, cause

    def __str__(self) -> str:
        return f"sample {self.sample_id!r}: {self.cause}"


@dataclass(frozen=True)
class VisionSize:
    """What the processor makes of an image or a video: temporal patches, pixels of a frame, vision tokens."""

    temporal_patches: int
    height_px: int
    width_px: int
    num_tokens: int


@dataclass(frozen=True)
class PromptPlan:
    """The frames that a prompt gets, those it would get without a token budget, and their size."""

    num_frames: int
    wanted_frames: int
    size: VisionSize


def image_size(processor: Any, *, height_px: int, width_px: int) -> VisionSize:
    """Of an image of `height_px` x `width_px`. Raises ValueError for a shape that the processor refuses."""
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    images = processor.image_processor
    cell_px = images.patch_size * images.merge_size
    height_px, width_px = smart_resize(
        height_px,
        width_px,
        factor=cell_px,
        min_pixels=images.size["shortest_edge"],
        max_pixels=images.size["longest_edge"],
    )
    return VisionSize(1, height_px, width_px, height_px * width_px // cell_px**2)


def video_size(processor: Any, *, num_frames: int, height_px: int, width_px: int) -> VisionSize:
    """Of a video of `num_frames` (at least 2) frames. Raises ValueError for a shape that the processor refuses.

    The processor's own count of patches (transformers 5.17, `get_num_of_video_patches`) leaves out the frame that is
    added to an odd number of them.
    """
    from transformers.models.qwen3_vl.video_processing_qwen3_vl import smart_resize

    videos = processor.video_processor
    if not writes_times(processor):
        return _size_frame_by_frame(videos, num_frames=num_frames, height_px=height_px, width_px=width_px)
    cell_px = videos.patch_size * videos.merge_size
    height_px, width_px = smart_resize(
        num_frames,
        height_px,
        width_px,
        temporal_factor=videos.temporal_patch_size,
        factor=cell_px,
        min_pixels=videos.size["shortest_edge"],
        max_pixels=videos.size["longest_edge"],
    )
    time = -(-num_frames // videos.temporal_patch_size)
    return VisionSize(time, height_px, width_px, time * height_px * width_px // cell_px**2)


def writes_times(processor: Any) -> bool:
    """Whether it is Qwen3-VL's, which puts a timestamp before each temporal patch; Qwen2.5-VL's does not."""
    from transformers import Qwen3VLVideoProcessor

    return isinstance(processor.video_processor, Qwen3VLVideoProcessor)


def _size_frame_by_frame(videos: Any, *, num_frames: int, height_px: int, width_px: int) -> VisionSize:
    """As the processor that Qwen2.5-VL has from Qwen2-VL does: bounds are of one frame, and with `cap_pixels_per_frame`
    a frame's share of the video's budget too (transformers 5.17, Qwen2VLVideoProcessor.resize)."""
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import smart_resize

    cell_px = videos.patch_size * videos.merge_size
    least, most = videos.size["shortest_edge"], videos.size["longest_edge"]
    if videos.cap_pixels_per_frame:
        total = int(videos.max_video_tokens * cell_px * cell_px * 0.9)
        most = max(min(most, total * videos.temporal_patch_size // num_frames), int(least * 1.05))
    height_px, width_px = smart_resize(height_px, width_px, factor=cell_px, min_pixels=least, max_pixels=most)
    time = -(-num_frames // videos.temporal_patch_size)
    return VisionSize(time, height_px, width_px, time * height_px * width_px // cell_px**2)


class TokenBudget:
    """Sample -> the frames of its prompt, under one processor and one config."""

    def __init__(
        self, processor: Any, video: VideoConfig, *, order: PromptOrder, style: AnswerStyle | None = None
    ) -> None:
        self.processor, self.video, self.style = processor, video, style
        self.order: PromptOrder = order
        self._writes_times = writes_times(processor)
        self._longest_timestamp = [self._count(_timestamp(0))]
        empty = [{"role": "user", "content": [{"type": "text", "text": ""}, {"type": "video"}]}]
        self._template_bytes = len(self._render(empty).encode())

    def frames(self, sample: GroundingSample) -> np.ndarray:
        """Absolute indices of the frames that the model is given. Raises PromptError where the fewest are too many."""
        video = self.video
        count = None if video.max_prompt_tokens is None else self.plan(sample).num_frames
        max_frames = video.max_frames if count is None else max(count, 2)
        num_frames = video.num_frames if video.num_frames is None or count is None else count
        return sample_frames(
            sample.clip, fps=sample.fps, sample_fps=video.sample_fps, max_frames=max_frames, num_frames=num_frames
        )

    def plan(self, sample: GroundingSample) -> PromptPlan:
        """As many frames as are wanted, or as fit; at least 2 of a video. Raises PromptError."""
        if not sample.is_probed:
            raise PromptError(sample.sample_id, "its width and height are not known")
        wanted, limit = self._wanted_frames(sample), self.video.max_prompt_tokens
        size = self._size(sample, wanted)
        if limit is None or self._bound(sample, size) <= limit:
            return PromptPlan(wanted, wanted, size)
        rest = self._rest_tokens(sample)
        for count in range(wanted, min(wanted, 2) - 1, -1):
            size = self._size(sample, count)
            if _total(size, rest) <= limit:
                return PromptPlan(count, wanted, size)
        frames = f"{min(wanted, 2)} frames of {size.width_px} x {size.height_px} pixels and its text"
        raise PromptError(
            sample.sample_id, f"{frames} are {_total(size, rest)} tokens, above max_prompt_tokens={limit}"
        )

    def num_tokens(self, sample: GroundingSample, num_frames: int) -> int:
        """Length of the prompt with so many frames. The longest timestamp of the clip counts for all of them: a bound
        from above, whatever the file's own times are."""
        return _total(self._size(sample, num_frames), self._rest_tokens(sample))

    def check(self, sample: GroundingSample, num_tokens: int) -> None:
        """Raises PromptError for an encoded prompt above the budget: its file's times run far past the clip's end."""
        limit = self.video.max_prompt_tokens
        if limit is not None and num_tokens > limit:
            raise PromptError(sample.sample_id, f"its prompt has {num_tokens} tokens, above max_prompt_tokens={limit}")

    def _wanted_frames(self, sample: GroundingSample) -> int:
        video = self.video
        return count_frames(
            len(sample.clip),
            fps=sample.fps,
            sample_fps=video.sample_fps,
            max_frames=video.max_frames,
            num_frames=video.num_frames,
        )

    def _size(self, sample: GroundingSample, num_frames: int) -> VisionSize:
        try:
            if len(sample.clip) == 1:
                return image_size(self.processor, height_px=sample.height, width_px=sample.width)
            return video_size(self.processor, num_frames=num_frames, height_px=sample.height, width_px=sample.width)
        except ValueError as error:
            raise PromptError(sample.sample_id, f"{sample.width} x {sample.height} pixels: {error}") from error

    def _rest_tokens(self, sample: GroundingSample) -> tuple[int, int]:
        """Tokens of the text without the placeholder of the vision part, and those beside each temporal patch: its
        timestamp, vision start and vision end."""
        text = self._count(self._render(build_messages(sample, order=self.order, style=self.style))) - 1
        if len(sample.clip) == 1 or not self._writes_times:
            return text, 0
        last_tenth = int(10 * sample.duration_sec) + 1
        for tenth in range(len(self._longest_timestamp), last_tenth + 1):
            self._longest_timestamp.append(max(self._longest_timestamp[-1], self._count(_timestamp(tenth))))
        return text, self._longest_timestamp[last_tenth] + 2

    def _bound(self, sample: GroundingSample, size: VisionSize) -> int:
        """What the prompt cannot exceed, without a tokenizer: a token of text is at least one byte."""
        (message,) = build_messages(sample, order=self.order, style=self.style)
        texts = [unicodedata.normalize("NFC", part["text"]) for part in message["content"] if part["type"] == "text"]
        is_timed = len(sample.clip) > 1 and self._writes_times
        beside_patch = 0 if not is_timed else len(_timestamp(int(10 * sample.duration_sec) + 1)) + 2
        return _total(size, (self._template_bytes + sum(len(text.encode()) for text in texts), beside_patch))

    def _render(self, messages: list[dict[str, Any]]) -> str:
        return self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    def _count(self, text: str) -> int:
        return len(self.processor.tokenizer(text)["input_ids"])


def _timestamp(tenth: int) -> str:
    return f"<{tenth / 10:.1f} seconds>"


def _total(size: VisionSize, rest: tuple[int, int]) -> int:
    text, beside_patch = rest
    return text + size.num_tokens + size.temporal_patches * beside_patch


@dataclass(frozen=True)
class BudgetReport:
    """resampled: of each sample that got fewer frames, its id, the wanted number and the one it got.
    sizes_px: (width, height) of the frames with the fewest, the median and the most pixels."""

    num_samples: int
    resampled: list[tuple[str, int, int]]
    sizes_px: tuple[tuple[int, int], ...]


def report_budget(samples: Sequence[GroundingSample], budget: TokenBudget, title: str) -> BudgetReport:
    """Plan all prompts and log what came of it, once for each load. Raises PromptError for the first that cannot be."""
    plans = [budget.plan(sample) for sample in samples]
    resampled = [
        (sample.sample_id, plan.wanted_frames, plan.num_frames)
        for sample, plan in zip(samples, plans, strict=True)
        if plan.num_frames < plan.wanted_frames
    ]
    by_area = sorted((p.size.width_px * p.size.height_px, p.size.width_px, p.size.height_px) for p in plans)
    smallest, median, largest = (by_area[i][1:] for i in (0, len(by_area) // 2, -1))
    logger.info(
        "%s: frames of %d prompts are seen at %d x %d (fewest pixels), %d x %d (median), %d x %d (most)",
        title, len(plans), *smallest, *median, *largest,
    )  # fmt: skip
    if resampled:
        logger.warning(
            "%s: %d of %d prompts are above max_prompt_tokens=%s and get fewer frames: %s%s",
            title, len(resampled), len(plans), budget.video.max_prompt_tokens,
            ", ".join(f"{sample_id} {wanted} -> {got}" for sample_id, wanted, got in resampled[:MAX_LISTED]),
            ", ..." if len(resampled) > MAX_LISTED else "",
        )  # fmt: skip
    return BudgetReport(len(plans), resampled, (smallest, median, largest))
