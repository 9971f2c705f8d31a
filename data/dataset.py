"""Samples with their videos: decoded and encoded on demand, kept in memory up to a bound."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import datasets
import numpy as np
from cachetools import LRUCache

from configs.data import DataConfig, ExposureConfig, FrameChoiceConfig
from data.answers import SpanSec
from data.collate import Batch, QueryCount, collate_inputs, collate_targets
from data.encoding import EncodedPrompt, encode_prompt, text_ids
from data.frame_sampling import choose_training_frames
from data.token_budget import TokenBudget
from data.types import DecodedClip, FrameSpan, GroundingSample
from data.video import VideoDecodeError, open_reader, read_clip
from data.video_cache import ClipKey, clip_key
from data.written_answers import AnswerFormat, AnswerStyle, write_answer


class PromptEncoder:
    """Sample -> EncodedPrompt, through one config and the answer format of a grounder.

    The most recent prompts and clips are kept: `cache_gib` of each. A prompt holds its clip, so a clip may be counted
    twice: `cache_gib` is a bound from above. A file that changes is read again.
    """

    def __init__(self, processor: Any, data: DataConfig, *, answer_format: AnswerFormat = "span") -> None:
        self.processor = processor
        self.data = data
        self.read = open_reader(data.video)
        self.style = AnswerStyle.of(answer_format, data.prompt.model_dump())
        self.budget = TokenBudget(processor, data.video, order=data.prompt.prompt_order, style=self.style)
        size = int(data.video.cache_gib * 2**30)
        self._prompts: LRUCache[tuple[str, str, ClipKey], EncodedPrompt] = LRUCache(size, getsizeof=_nbytes)
        self._clips: LRUCache[tuple[ClipKey, FrameSpan, float], DecodedClip] = LRUCache(
            size, getsizeof=lambda clip: clip.frames_THW3.nbytes
        )

    def __call__(self, sample: GroundingSample) -> EncodedPrompt:
        """Raises VideoDecodeError, and PromptError for a prompt above the token budget."""
        frame_idx_T = self.frame_idx(sample)
        clip_id = clip_key(sample.video_path, frame_idx_T, self.data.video.decoder)
        key = (sample.sample_id, sample.query, clip_id)
        if key not in self._prompts:
            clip = self._clip(sample, frame_idx_T, clip_id)
            order = self.data.prompt.prompt_order
            prompt = encode_prompt(self.processor, sample, clip, order=order, style=self.style)
            self.budget.check(sample, len(prompt.input_ids_L))
            if _nbytes(prompt) > self._prompts.maxsize:
                return prompt
            self._prompts[key] = prompt
        return self._prompts[key]

    def frame_idx(self, sample: GroundingSample) -> np.ndarray:
        """Absolute indices of the frames that the model is given. Raises PromptError."""
        return self.budget.frames(sample)

    def _clip(self, sample: GroundingSample, frame_idx_T: np.ndarray, clip_id: ClipKey) -> DecodedClip:
        key = (clip_id, sample.clip, sample.fps)
        clip = self._clips.get(key)
        if clip is None:
            clip = read_clip(
                sample.video_path, sample.clip, frame_idx_T,
                fps=sample.fps, read=self.read, variable_frame_rate=self.data.video.variable_frame_rate,
            )  # fmt: skip
        height, width = clip.frames_THW3.shape[1:3]
        if (width, height) != (sample.width, sample.height):
            said = f"sample {sample.sample_id!r} says {sample.width} x {sample.height}"
            raise VideoDecodeError(sample.video_path, f"its frames are {width} x {height}, {said}")
        if clip.frames_THW3.nbytes <= self._clips.maxsize:
            self._clips[key] = clip
        return clip


def _nbytes(prompt: EncodedPrompt) -> int:
    # The clip too: a prompt keeps it alive when it has left the other cache.
    return prompt.pixel_values_VC.nbytes + prompt.clip.frames_THW3.nbytes


@dataclass(frozen=True)
class TrainingRow:
    """One position of a supervised run: what to ask, what to answer, which frames to look at."""

    sample: GroundingSample
    prompt: EncodedPrompt
    answer_ids: list[int]
    is_scored: bool
    frames: np.ndarray


class SupervisedRows:
    """Position i of the run -> TrainingRow; every draw is a function of (seed, i)."""

    def __init__(
        self,
        samples: Sequence[GroundingSample],
        order: np.ndarray,
        encoder: PromptEncoder,
        *,
        frames: FrameChoiceConfig,
        exposure: ExposureConfig,
        max_error_sec: float = 0.0,
        seed: int,
    ) -> None:
        self.samples, self.order, self.encoder = samples, order, encoder
        self.frames, self.exposure, self.max_error_sec, self.seed = frames, exposure, max_error_sec, seed

    def as_dataset(self, together: Sequence[np.ndarray] | None = None) -> datasets.Dataset:
        """A `datasets.Dataset` (TRL takes nothing else) that makes {"rows": [TrainingRow, ...]} on access.

        together: positions of the rows of each item; None: one row each, in their order.
        """
        items = np.arange(len(self.order))[:, None] if together is None else together
        positions = datasets.Dataset.from_dict({"positions": [item.tolist() for item in items]})
        return positions.with_transform(
            lambda batch: {"rows": [[self.row(i) for i in item] for item in batch["positions"]]}
        )

    def row(self, position: int) -> TrainingRow:
        """Read, encode and choose frames for one position. Raises VideoDecodeError."""
        rng = np.random.default_rng([self.seed, 1, int(position)])
        sample = self.samples[self.order[position]]
        prompt = self.encoder(sample)
        style, span_sec, is_scored = self.encoder.style, None, True
        # A text that is not scored teaches a decoder alone, so where boxes are in the text there is none.
        if sample.task == "stvg" and not style.has_boxes and rng.random() < self.exposure.probability:
            span_sec, is_scored = shift_span(sample, self.exposure.max_shift_sec, rng), False
        elif sample.task in ("stvg", "temporal") and self.max_error_sec > 0:
            span_sec = self._as_annotated(sample)
        answer = write_answer(sample, prompt.clip.frame_idx_T, style, span_sec=span_sec)
        return TrainingRow(
            sample=sample,
            prompt=prompt,
            answer_ids=text_ids(self.encoder.processor, answer),
            is_scored=is_scored,
            frames=training_frames(sample, prompt, self.frames, rng),
        )

    def _as_annotated(self, sample: GroundingSample) -> SpanSec:
        """The span with its annotator's error: the same whenever the sample comes."""
        rng = np.random.default_rng([self.seed, 2, crc32(sample.sample_id.encode())])
        return shift_span(sample, self.max_error_sec, rng)


def shift_span(sample: GroundingSample, max_shift_sec: float, rng: np.random.Generator) -> SpanSec:
    """Each end of the true span moved by up to `max_shift_sec`, kept in the clip and at least one frame long."""
    start, end = np.array(sample.span_sec) + rng.uniform(-max_shift_sec, max_shift_sec, size=2)
    frame_sec = min(max(1 / sample.fps, 0.1), sample.duration_sec)
    start = float(np.clip(start, 0.0, sample.duration_sec - frame_sec))
    return SpanSec(start, float(np.clip(end, start + frame_sec, sample.duration_sec)))


def training_frames(
    sample: GroundingSample, prompt: EncodedPrompt, choice: FrameChoiceConfig, rng: np.random.Generator
) -> np.ndarray:
    """Positive and negative frames of a located sample; none for the tasks without boxes."""
    if sample.task not in ("stvg", "rec") or sample.span is None:
        return np.empty(0, dtype=np.int64)
    frame_idx = prompt.clip.frame_idx_T
    inside = (frame_idx >= sample.span.start) & (frame_idx < sample.span.end)
    return choose_training_frames(
        inside, ~inside, num_positive=choice.num_positive, num_negative=choice.num_negative, rng=rng
    )


class SupervisedCollator:
    """TrainingRows -> the tensors of `collate_inputs` and `collate_targets`."""

    def __init__(self, *, num_queries: QueryCount, pad_id: int, temporal_patch_size: int) -> None:
        self.num_queries: QueryCount = num_queries
        self.pad_id, self.temporal_patch_size = pad_id, temporal_patch_size

    def __call__(self, items: list[dict[str, list[TrainingRow]]]) -> Batch:
        rows = [row for item in items for row in item["rows"]]
        prompts = [row.prompt for row in rows]
        frames = [row.frames.tolist() for row in rows]
        inputs = collate_inputs(
            prompts,
            [row.answer_ids for row in rows],
            frames,
            scored=[row.is_scored for row in rows],
            num_queries=self.num_queries,
            pad_id=self.pad_id,
        )
        targets = collate_targets(
            [row.sample for row in rows], prompts, frames, temporal_patch_size=self.temporal_patch_size
        )
        return inputs | targets


def model_inputs(batch: Batch) -> Batch:
    """The part of a batch that the model's forward takes."""
    return {name: tensor for name, tensor in batch.items() if not name.startswith("target_")}
