"""Which frames are looked at: pure functions of spans, rates and a seed.

Source of positive/negative frame sampling: Bridge-STG (2604.08014), abstract; counts and the draw are our choice.
"""

import math

import numpy as np

from data.types import FrameSpan


def sample_frames(
    clip: FrameSpan, *, fps: float, sample_fps: float, max_frames: int, num_frames: int | None = None
) -> np.ndarray:
    """Absolute indices of the frames given to the model, ascending; the first frame of the clip is always among them.

    `num_frames` of them (all where the clip has no more), the first and the last frame included: frame int(x) of L for x
    in linspace(0, L - 1, N), with its rounding errors: the rule of STCAT (github.com/jy0205/STCAT,
    datasets/data_utils.py), so numbers compare.

    Without `num_frames` about `sample_fps` a second, at least 2 (one temporal patch of the backbone). A clip that would
    have more than `max_frames` is spread over: frame floor(i L / N), whose last one is L / N before the clip's end.

    Frames are chosen by index. In a video of variable frame rate, where that is accepted, `fps` is the mean rate: frames are
    spread evenly over the file's frames, not over time, and the times that the model reads are each frame's own.
    """
    count = count_frames(len(clip), fps=fps, sample_fps=sample_fps, max_frames=max_frames, num_frames=num_frames)
    if count == 1:
        return np.array([clip.start])
    if num_frames is not None:
        return clip.start + np.linspace(0, len(clip) - 1, count).astype(np.int64)
    steps = np.arange(count)
    is_at_rate = 2 < count == _frames_at_rate(len(clip), fps, sample_fps)
    step = fps / sample_fps if is_at_rate else len(clip) / count
    return clip.start + np.minimum(np.floor(steps * max(step, 1.0) + 1e-9), len(clip) - 1).astype(np.int64)


def count_frames(
    clip_frames: int, *, fps: float, sample_fps: float, max_frames: int, num_frames: int | None = None
) -> int:
    """How many frames `sample_frames` gives for a clip of `clip_frames` frames: 1 for an image, at least 2 otherwise."""
    if num_frames is not None:
        return min(num_frames, clip_frames)
    return min(max(_frames_at_rate(clip_frames, fps, sample_fps), 2), max_frames, clip_frames)


def _frames_at_rate(clip_frames: int, fps: float, sample_fps: float) -> int:
    return math.ceil(clip_frames * min(1.0, sample_fps / fps) - 1e-9)


def frames_in_span(frame_idx_T: np.ndarray, span: FrameSpan) -> np.ndarray:
    """Positions t of the sampled frames inside a span; the nearest one when the span falls between two frames."""
    inside = np.flatnonzero((frame_idx_T >= span.start) & (frame_idx_T < span.end))
    if len(inside):
        return inside
    middle = (span.start + span.end - 1) / 2
    return np.array([np.abs(frame_idx_T - middle).argmin()])


def choose_training_frames(
    positive_T: np.ndarray, negative_T: np.ndarray, *, num_positive: int, num_negative: int, rng: np.random.Generator
) -> np.ndarray:
    """Positions of up to `num_positive` frames of one mask and `num_negative` of the other, ascending."""
    chosen = [
        rng.choice(positions, size=min(count, len(positions)), replace=False)
        for positions, count in ((np.flatnonzero(positive_T), num_positive), (np.flatnonzero(negative_T), num_negative))
    ]
    return np.sort(np.concatenate(chosen))
