"""What rewards are measured on: answers about moving boxes, with a decoder's boxes beside them or with their boxes in the text.

Both are `rollouts` answers in groups of 8, each group about one box in a clip half as long again as its interval of `frames`
annotated frames. Answers are off by up to a second at either end and their boxes by up to a twentieth of the image, one in
sixteen is none.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data.answers import Choice, format_choice
from data.tube_indices import normalized_box
from data.tube_text import TubeText, WrittenBox, format_tube
from data.types import BoxPx, FrameSpan, GroundingSample

FPS, SIZE_PX, GROUP = 8.0, 100, 8
LARGEST_NOISE_PX = 5.0
ANSWER_OF_NONE = "I do not know."


@dataclass(frozen=True)
class SpanAnswers:
    """boxes_BT4: a decoder's, xyxy in [0, 1], at every frame of the true interval, frame_idx_BT."""

    samples: list[GroundingSample]
    texts: list[str]
    boxes_BT4: Tensor
    frame_idx_BT: Tensor


@dataclass(frozen=True)
class WrittenAnswers:
    """Tubes of `stvg` samples, and an eighth as many letters of `qa`; every frame of a clip, which begins at 0, is shown."""

    samples: list[GroundingSample]
    texts: list[str]

    @property
    def frame_idx(self) -> list[np.ndarray]:
        """The frames that were shown, of each answer."""
        return [np.arange(sample.clip.start, sample.clip.end) for sample in self.samples]


def draw_spans(rollouts: int, frames: int) -> SpanAnswers:
    """Intervals, and a box near the true one at each of its frames."""
    rng = np.random.default_rng(0)
    samples = draw_samples(rollouts, frames, rng)
    texts = [_span_text(number, sample, rng) for number, sample in enumerate(samples)]
    frame_idx_BT = torch.tensor([list(range(s.span.start, s.span.end)) for s in samples if s.span is not None])
    boxes_px_BT4 = torch.tensor([sample.boxes_xyxy_px for sample in samples])
    noise = (torch.rand(boxes_px_BT4.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1) * LARGEST_NOISE_PX
    return SpanAnswers(samples, texts, ((boxes_px_BT4 + noise) / SIZE_PX).clamp(0, 1), frame_idx_BT)


def draw_written(rollouts: int, frames: int) -> WrittenAnswers:
    """Tubes with a box at each index of their interval, in both sequences; and letters, of which every other is the right one.

    One in sixteen tubes lacks its first draft box, one in sixteen has a final box after its interval.
    """
    rng = np.random.default_rng(0)
    tubes = draw_samples(rollouts, frames, rng)
    texts = [_tube_text(number, sample, rng) for number, sample in enumerate(tubes)]
    letters = [_question(str(number // GROUP)) for number in range(-(-rollouts // 8))]
    texts += [format_choice(Choice("AB"[number % 2])) for number in range(len(letters))]
    return WrittenAnswers([*tubes, *letters], texts)


def draw_samples(rollouts: int, frames: int, rng: np.random.Generator) -> list[GroundingSample]:
    """One for each answer; those of a group are the same object."""
    groups = [_sample(str(number), frames, rng) for number in range(-(-rollouts // GROUP))]
    return [sample for sample in groups for _ in range(GROUP)][:rollouts]


def _sample(sample_id: str, frames: int, rng: np.random.Generator) -> GroundingSample:
    clip = frames + frames // 2
    start = int(rng.integers(0, clip - frames + 1))
    x, y, w, h = (float(value) for value in rng.uniform(10, 40, size=4))
    shift = 10 / frames
    return GroundingSample(
        sample_id=sample_id, task="stvg", query="the red circle", video_path="a.mp4", fps=FPS, width=SIZE_PX, height=SIZE_PX,
        clip=FrameSpan(0, clip), span=FrameSpan(start, start + frames),
        boxes_xyxy_px=tuple((x + shift * t, y, x + shift * t + w, y + h) for t in range(frames)),
    )  # fmt: skip


def _question(sample_id: str) -> GroundingSample:
    return GroundingSample(
        sample_id=f"question {sample_id}", task="qa", query="Which one?", video_path="a.mp4", fps=FPS, width=SIZE_PX,
        height=SIZE_PX, clip=FrameSpan(0, 8), span=None, boxes_xyxy_px=None, options=("red", "green"), choice="A",
    )  # fmt: skip


def _span_text(number: int, sample: GroundingSample, rng: np.random.Generator) -> str:
    start, end = np.array(sample.span_sec) + rng.uniform(-1, 1, size=2)
    start = max(start, 0.0)
    return ANSWER_OF_NONE if number % 16 == 0 else f"<time> {start:.2f} - {max(end, start + 0.3):.2f} </time>"


def _tube_text(number: int, sample: GroundingSample, rng: np.random.Generator) -> str:
    assert sample.span is not None
    off = rng.integers(-int(FPS), int(FPS) + 1, size=2)
    start = max(sample.span.start + int(off[0]), 0)
    end = min(max(sample.span.end - 1 + int(off[1]), start + 1), sample.clip.end - 1)
    think, final = (_noisy_boxes(sample, range(start, end + 2), rng) for _ in range(2))
    del think[end + 1]
    if number % 16 == 1:
        del think[start]
    if number % 16 != 2:
        del final[end + 1]
    return ANSWER_OF_NONE if number % 16 == 0 else format_tube(TubeText(start, end, think, final))


def _noisy_boxes(sample: GroundingSample, indices: Sequence[int], rng: np.random.Generator) -> dict[int, WrittenBox]:
    """Near the true boxes, which are held beyond the true interval. Sides of at least 10 px keep their order."""
    noise = rng.uniform(-LARGEST_NOISE_PX, LARGEST_NOISE_PX, size=(len(indices), 4))
    true = np.array([_held_box(sample, index) for index in indices])
    boxes = np.clip(true + noise, 0, SIZE_PX).tolist()
    return {index: normalized_box(sample, box) for index, box in zip(indices, boxes, strict=True)}


def _held_box(sample: GroundingSample, frame: int) -> BoxPx:
    assert sample.span is not None and sample.boxes_xyxy_px is not None
    box = sample.boxes_xyxy_px[min(max(frame - sample.span.start, 0), len(sample.span) - 1)]
    assert box is not None
    return box
