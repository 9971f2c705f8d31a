"""Which frames are looked at: pure functions of spans, rates and a seed.

Source of positive/negative frame sampling: Bridge-STG (2604.08014), abstract; counts and the draw are our choice.
"""

import numpy as np

from data.types import FrameSpan


def sample_frames(clip: FrameSpan, *, fps: float, sample_fps: float, max_frames: int) -> np.ndarray:
    """Absolute indices of the frames given to the model, ascending.

    One frame for a clip of one frame. Otherwise about `sample_fps` a second from the clip's first frame on, at least 2
    (one temporal patch of the backbone) and at most `max_frames`, spread uniformly.
    """
    if len(clip) == 1:
        return np.array([clip.start])
    wanted = int(np.ceil(len(clip) * min(1.0, sample_fps / fps) - 1e-9))
    count = int(np.clip(wanted, 2, min(max_frames, len(clip))))
    step = fps / sample_fps if 2 < count == wanted else len(clip) / count
    return clip.start + np.minimum(np.floor(np.arange(count) * max(step, 1.0) + 1e-9), len(clip) - 1).astype(np.int64)


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
