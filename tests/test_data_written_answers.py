"""Answers with written boxes: target text and reading are inverse up to the indices and the scale, for every task."""

from dataclasses import replace

import numpy as np
import pytest
from test_data_answers import make_sample
from written import SAMPLE

from data.answers import Choice, InBox, ParseFailure, SpanSec
from data.prompts import build_messages
from data.tube_indices import frames_of_indices, index_frames, true_indices
from data.types import FrameSpan
from data.written_answers import SPANS, AnswerStyle, read_answers, write_answer

SECONDS, FRAMES = AnswerStyle("tube", tube_unit="seconds"), AnswerStyle("tube", tube_unit="frames")

# 4 s at 8 frames a second, the video's frames 100 - 132, of which every second one is shown; the truth is 1.0 - 2.5 s. The
# object moves right by a hundredth of the width per frame.
CLIP = replace(
    SAMPLE,
    fps=8.0,
    clip=FrameSpan(100, 132),
    span=FrameSpan(108, 120),
    boxes_xyxy_px=tuple((10.0 + f, 20.0, 30.0 + f, 40.0) for f in range(12)),
)
SHOWN = np.arange(100, 132, 2)


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        # Second 1 is frame 108, second 2 frame 116, second 3 frame 124, which is outside.
        (SECONDS, ("1 - 2", "1. [100, 200, 300, 400], 2. [180, 200, 380, 400]")),
        # Frames 108, 110, ..., 118 are the 4th to the 9th of those shown.
        (
            FRAMES,
            (
                "4 - 9",
                "4. [100, 200, 300, 400], 5. [120, 200, 320, 400], 6. [140, 200, 340, 400], "
                "7. [160, 200, 360, 400], 8. [180, 200, 380, 400], 9. [200, 200, 400, 400]",
            ),
        ),
    ],
)
def test_the_target_text(style: AnswerStyle, expected: tuple[str, str]) -> None:
    time, boxes = expected
    text = f"<time> {time} </time>\n<think_bbox> {boxes} </think_bbox>\n<pred_bbox> {boxes} </pred_bbox>"
    assert write_answer(CLIP, SHOWN, style) == text


@pytest.mark.parametrize(
    ("style", "span", "frames"),
    [
        # An index lasts until the next: seconds 1 and 2 are [1, 3) s; of the frames, the 9th lasts until frame 120.
        (SECONDS, SpanSec(1.0, 3.0), [108, 116]),
        (FRAMES, SpanSec(1.0, 2.5), [108, 110, 112, 114, 116, 118]),
    ],
)
def test_the_target_text_is_read_as_a_tube(style: AnswerStyle, span: SpanSec, frames: list[int]) -> None:
    read = read_answers([CLIP], [SHOWN], [write_answer(CLIP, SHOWN, style)], style)
    assert read.answers == [span]
    assert read.boxes is not None and read.boxes.frame_N.tolist() == frames
    np.testing.assert_allclose(read.boxes.boxes_N4[0], [0.1, 0.2, 0.3, 0.4])


def test_tasks_of_one_batch() -> None:
    """A single image's box is at its one frame; intervals and letters are written as ever."""
    samples = [CLIP, make_sample("rec"), make_sample("temporal"), make_sample("qa")]
    shown = [SHOWN, np.array([3]), np.arange(0, 64, 4), np.arange(0, 64, 4)]
    texts = [write_answer(*row, SECONDS) for row in zip(samples, shown, strict=True)]
    # The box (1, 2, 3, 4) in an image of 64 x 48.
    assert texts[1:] == [
        "<pred_bbox> [16, 42, 47, 83] </pred_bbox>",
        "<time> 2.0 - 5.5 </time>",
        "<answer> B </answer>",
    ]
    read = read_answers(samples, shown, texts, SECONDS)
    assert read.answers == [SpanSec(1.0, 3.0), InBox(), SpanSec(2.0, 5.5), Choice("B")]
    assert read.boxes is not None
    assert list(zip(read.boxes.row_N.tolist(), read.boxes.frame_N.tolist(), strict=True)) == [
        (0, 108),
        (0, 116),
        (1, 3),
    ]
    np.testing.assert_allclose(read.boxes.boxes_N4[2], [0.016, 0.042, 0.047, 0.083])


def test_an_interval_in_place_of_the_true_one() -> None:
    """2.0 - 3.5 s is seconds 2 and 3, frames 116 and 124; at the second the nearest true box is the last one, at 119."""
    text = write_answer(CLIP, SHOWN, SECONDS, span_sec=SpanSec(2.0, 3.5))
    assert "<think_bbox> 2. [180, 200, 380, 400], 3. [210, 200, 410, 400] </think_bbox>" in text


def test_failures_keep_reason_and_text() -> None:
    reversed_text = write_answer(CLIP, SHOWN, SECONDS).replace("1 - 2", "2 - 1")
    samples = [CLIP, CLIP, make_sample("rec"), make_sample("rec")]
    texts = ["<time> 1.0 - 2.5 </time>", reversed_text, "<box> </box>", "<pred_bbox> [3, 2, 1, 4] </pred_bbox>"]
    read = read_answers(samples, [SHOWN] * 4, texts, SECONDS)
    reasons = ["grammar", "reversed", "grammar", "box"]
    assert read.answers == [ParseFailure(reason, text) for reason, text in zip(reasons, texts, strict=True)]  # type: ignore[arg-type]
    assert read.boxes is not None and len(read.boxes.row_N) == 0


def test_boxes_outside_of_the_answered_interval_or_the_clip_are_left_out() -> None:
    text = (
        "<time> 3 - 5 </time>\n<think_bbox> 3. [1, 1, 2, 2] </think_bbox>\n"
        "<pred_bbox> 2. [1, 1, 2, 2], 3. [1, 1, 2, 2], 5. [1, 1, 2, 2] </pred_bbox>"
    )
    read = read_answers([CLIP], [SHOWN], [text], SECONDS)
    assert read.answers == [SpanSec(3.0, 4.0)] and read.boxes is not None and read.boxes.frame_N.tolist() == [124]


def test_indices_of_a_clip() -> None:
    """2.5 s of frames: seconds 0, 1 and 2, the last one half as long; at an index after it there is nothing."""
    sample = replace(CLIP, clip=FrameSpan(100, 120))
    seconds = index_frames(sample, SHOWN[:10], "seconds")
    assert seconds.tolist() == [100, 108, 116]
    assert frames_of_indices(sample, seconds, 1, 2) == FrameSpan(108, 120)
    assert frames_of_indices(sample, seconds, 2, 99) == FrameSpan(116, 120)
    assert frames_of_indices(sample, seconds, 3, 4) is None
    assert true_indices(seconds, FrameSpan(102, 105)) == (0, 0)  # between two: the nearer one
    assert index_frames(sample, SHOWN[:10], "frames").tolist() == SHOWN[:10].tolist()


def test_the_prompt_asks_for_what_is_parsed() -> None:
    """Only where boxes are written: the other prompts stay as they are."""
    asked = [
        build_messages(CLIP, order="video_query", style=style)[0]["content"][1]["text"] for style in (SECONDS, FRAMES)
    ]
    assert all("<time> start - end </time> <think_bbox> n. [" in text for text in asked)
    assert "every second n" in asked[0] and "every frame n" in asked[1]
    assert build_messages(CLIP, order="video_query", style=SPANS) == build_messages(CLIP, order="video_query")
