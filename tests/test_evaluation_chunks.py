"""What is scored at a time: every pair once, in order, never more frames than fit."""

from dataclasses import replace

import pytest

from data.types import FrameSpan, GroundingSample
from evaluation.chunks import MAX_FRAMES, MAX_SAMPLES, chunks, frames_of
from evaluation.predictions import Prediction

BOX = (0.0, 0.0, 1.0, 1.0)
SAMPLE = GroundingSample(
    sample_id="a", task="stvg", query="q", video_path="a.mp4", fps=10.0, width=10, height=10, clip=FrameSpan(0, 9),
    span=FrameSpan(0, 1), boxes_xyxy_px=(BOX,),
)  # fmt: skip


def pair_of(num_frames: int) -> tuple[GroundingSample, Prediction]:
    span = FrameSpan(0, num_frames)
    return replace(SAMPLE, clip=span, span=span, boxes_xyxy_px=(BOX,) * num_frames), Prediction("a")


HALF = MAX_FRAMES // 2


@pytest.mark.parametrize(
    ("lengths", "sizes"),
    [
        ([], []),
        ([1] * (MAX_SAMPLES + 1), [MAX_SAMPLES, 1]),
        ([HALF, HALF, HALF], [2, 1]),
        ([HALF, HALF + 1, 1], [1, 1, 1]),  # the short one would be padded to the long one's length
        ([1, MAX_FRAMES + 9, 1], [1, 1, 1]),  # longer than fits: alone
    ],
)
def test_chunks_are_bounded_in_frames(lengths: list[int], sizes: list[int]) -> None:
    pairs = [pair_of(length) for length in lengths]
    made = list(chunks(pairs))
    assert [len(chunk) for chunk in made] == sizes
    assert [pair for chunk in made for pair in chunk] == pairs


def test_the_longest_of_truth_and_answer_counts() -> None:
    boxes = dict.fromkeys(range(3), BOX)
    assert frames_of(SAMPLE, Prediction("a")) == 1
    assert frames_of(SAMPLE, Prediction("a", boxes=boxes)) == 3
    assert frames_of(SAMPLE, Prediction("a", boxes_in_true_span=boxes)) == 3
    # A temporal sample's span is in milliseconds, and no tube is laid out for it.
    temporal = replace(SAMPLE, task="temporal", clip=FrameSpan(0, 90_000), span=FrameSpan(0, 80_000))
    assert frames_of(temporal, Prediction("a")) == 0
