"""The decoder's part in an answered interval: margin and presence trim, by hand, in `ground` and in the predictor."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_evaluation_predict import TIME, evaluation_of, says
from test_model_bridge_switches import make_grounder, states_and_vision
from tiny import Tiny

from configs.base import ConfigError, parse_config
from configs.evaluation import AnsweringConfig, EvaluationConfig
from data.dataset import PromptEncoder
from data.encoding import text_ids
from data.types import BoxPx, FrameSpan
from evaluation.predict import Predicted
from evaluation.predictions import Prediction
from evaluation.predictor import Predictor, make_predictor
from evaluation.run import evaluate, report
from model.answering import Grounding, SeenFrames, boxes_in_span, decode_frames, ground
from model.presence_trim import longest_run, trim_span

EVERY_FOURTH = np.arange(0, 32, 4)
"""Sampled frames 0, 4, ..., 28 of a clip of 32."""


@pytest.mark.parametrize(
    ("present", "run"),
    [
        ("", None),
        ("...", None),
        ("x", (0, 1)),
        (".xx.x", (1, 3)),
        ("x.xx", (2, 4)),
        ("xx.xx", (0, 2)),  # of two equal ones the first
        ("xxx", (0, 3)),
    ],
)
def test_longest_run(present: str, run: tuple[int, int] | None) -> None:
    assert longest_run([mark == "x" for mark in present]) == (None if run is None else slice(*run))


@pytest.mark.parametrize(
    ("span", "window", "looked_at", "present", "expected", "trim"),
    [
        # Frames 8, 12, 16, 20 are looked at. All present: the text's own ends stay, 7 and 23 lie beside no absent frame.
        ((7, 23), (7, 23), "2345", "xxxx", (7, 23), "kept"),
        ((7, 23), (7, 23), "2345", "....", (7, 23), "absent"),
        # 8 absent, 12 present: the start is one of 9 .. 12, in the middle 10. The end stays.
        ((7, 23), (7, 23), "2345", ".xxx", (10, 23), "moved"),
        # 12 present, 16 absent: the end (first frame after) is one of 13 .. 16, in the middle 14.
        ((7, 23), (7, 23), "2345", "xx..", (7, 14), "moved"),
        # The longest run is frame 16 and 20: start 13 .. 16 -> 14.
        ((7, 23), (7, 23), "2345", "x.xx", (14, 23), "moved"),
        # A margin of 4 frames: 4 and 24 are seen too, and absent. The text's 7 is one of 5 .. 8, its 23 of 21 .. 24.
        ((7, 23), (3, 27), "123456", ".xxxx.", (7, 23), "kept"),
        # 24 is present and 28 not looked at: the end is one of 25 .. 28, in the middle 26, inside of the window.
        ((7, 23), (3, 27), "123456", ".xxxxx", (7, 26), "moved"),
        # The same with a margin of 2 frames: no further than the window, which ends at 25.
        ((7, 23), (5, 25), "23456", "xxxxx", (7, 25), "moved"),
        # Past the last sampled frame, 28, comes the clip's end: one of 29 .. 32, in the middle 30.
        ((7, 23), (0, 31), "01234567", ".....xxx", (18, 30), "moved"),
        # Frame 0 is the first of the clip: nothing else can be the start.
        ((3, 12), (0, 15), "0123", "xxx.", (0, 12), "moved"),
        # The text lies between frames 8 and 12 and is judged by the nearest of them.
        ((9, 11), (9, 11), "2", "x", (9, 11), "kept"),
        ((9, 11), (9, 11), "2", ".", (9, 11), "absent"),
        ((10, 12), (10, 12), "3", "x", (10, 12), "kept"),
    ],
)
def test_an_interval_moves_to_where_the_target_is(
    span: tuple[int, int], window: tuple[int, int], looked_at: str, present: str, expected: tuple[int, int], trim: str
) -> None:
    moved = trim_span(
        FrameSpan(*span),
        FrameSpan(*window),
        EVERY_FOURTH,
        [int(position) for position in looked_at],
        [mark == "x" for mark in present],
        clip=FrameSpan(0, 32),
    )
    assert moved == (FrameSpan(*expected), trim)


def test_where_every_frame_is_sampled_the_interval_is_the_run() -> None:
    """No frame lies between two: frames 5 and 6 of a clip that begins at 2 are the span 5 .. 7."""
    moved = trim_span(
        FrameSpan(3, 9), FrameSpan(2, 10), np.arange(2, 10), range(8), [f in (5, 6) for f in range(2, 10)], clip=FrameSpan(2, 10)
    )  # fmt: skip
    assert moved == (FrameSpan(5, 7), "moved")


def box(left: float) -> BoxPx:
    return left, 1.0, left + 2, 3.0


@pytest.mark.parametrize(
    ("lefts", "span", "expected"),
    [
        ({4: 0.0, 8: 4.0}, (4, 12), {4: 0.0, 8: 4.0}),  # nothing outside: as it is
        # Frame 10 is halfway from 8 to 12, the last frame 13 a quarter of the way from 12 to 16.
        ({8: 0.0, 12: 4.0, 16: 8.0}, (10, 14), {10: 2.0, 12: 4.0, 13: 5.0}),
        ({8: 0.0, 12: 4.0}, (6, 13), {8: 0.0, 12: 4.0}),  # before the first box: none is made up
        ({8: 0.0, 12: 4.0}, (9, 11), {9: 1.0, 10: 2.0}),  # between two frames
        ({8: 1.0}, (9, 11), {9: 1.0}),  # the nearest one, at the end next to it
        ({12: 1.0}, (9, 11), {10: 1.0}),
        ({4: 5.0, 8: 1.0}, (9, 11), {9: 1.0}),
    ],
)
def test_boxes_of_a_span(lefts: dict[int, float], span: tuple[int, int], expected: dict[int, float]) -> None:
    boxes = boxes_in_span({frame: box(left) for frame, left in lefts.items()}, FrameSpan(*span))
    assert boxes == {frame: box(left) for frame, left in expected.items()}
    assert list(boxes) == sorted(boxes)


ALL_16 = np.arange(16)
"""A tiny video has 16 frames, 4 a second, all of them sampled. Its answer, 1 to 2 s, is frames 4 to 7."""


def seen_by(tiny: Tiny) -> SeenFrames:
    """What the random decoder says of every frame after that answer."""
    sample = tiny.of_task("stvg")[0]
    pad_id = tiny.processor.tokenizer.pad_token_id
    answer = text_ids(tiny.processor, TIME)
    return decode_frames(tiny.model, [sample], [tiny.encoder(sample)], [answer], [ALL_16], pad_id=pad_id)[0]


def by_predictor(tiny: Tiny, **switches: float) -> Prediction:
    sample = tiny.of_task("stvg")[0]
    predictor = Predictor(tiny.model, tiny.encoder, says(tiny, TIME), answering=AnsweringConfig(**switches))
    return predictor([sample])[0]


def by_ground(tiny: Tiny, **switches: float) -> Grounding:
    sample = tiny.of_task("stvg")[0]
    clip = tiny.encoder(sample).clip
    return ground(
        tiny.model, tiny.processor, query=sample.query, frames_THW3=clip.frames_THW3, frame_idx_T=clip.frame_idx_T,
        fps=sample.fps, num_frames=len(sample.clip), max_new_tokens=8, answer=TIME, **switches,
    )  # fmt: skip


@pytest.mark.parametrize(("margin_sec", "window"), [(0.0, range(4, 8)), (0.5, range(2, 10)), (9.0, range(16))])
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_a_question_and_a_batch_are_trimmed_alike(tiny: Tiny, margin_sec: float, window: range, share: float) -> None:
    """`share` of the window's frames have the target: the interval is the longest range of frames that all have it."""
    presence = seen_by(tiny).presence
    threshold = float(np.quantile([presence[t] for t in window], 1 - share, method="midpoint"))
    ranges = [(start, end) for start in window for end in range(start + 1, window.stop + 1)]
    present = [r for r in ranges if all(presence[t] >= threshold for t in range(*r))]
    span = max(present, key=lambda r: r[1] - r[0])
    prediction = by_predictor(tiny, margin_sec=margin_sec, presence_trim=threshold)
    assert (prediction.span, prediction.trim) == (span, "kept" if span == (4, 8) else "moved")
    assert list(prediction.boxes) == list(range(*span))
    assert (prediction.text, prediction.span_sec) == (TIME, (1.0, 2.0))
    answer = by_ground(tiny, margin_sec=margin_sec, presence_trim=threshold)
    assert (answer.text, answer.span, answer.trim) == (TIME, span, prediction.trim)
    for frame, box in answer.boxes_xyxy_px.items():
        assert prediction.boxes[frame] == pytest.approx(box, abs=1e-4)


def test_the_default_is_the_texts_interval(tiny: Tiny) -> None:
    seen, prediction, answer = seen_by(tiny), by_predictor(tiny), by_ground(tiny)
    assert prediction.span == answer.span == (4, 8)
    assert prediction.trim == answer.trim == "off"
    assert list(prediction.boxes) == list(answer.boxes_xyxy_px) == [4, 5, 6, 7]
    for frame in (4, 5, 6, 7):
        assert prediction.boxes[frame] == pytest.approx(seen.boxes_xyxy_px[frame], abs=1e-4)


def test_an_interval_without_the_target_stays_and_is_told_apart(tiny: Tiny) -> None:
    """No sigmoid of a random head is this close to 1."""
    prediction = by_predictor(tiny, presence_trim=0.999999)
    assert (prediction.span, prediction.trim) == ((4, 8), "absent")
    assert prediction.boxes == by_predictor(tiny).boxes


def test_a_margin_alone_joins_the_boxes_at_the_ends(tiny: Tiny) -> None:
    """Every second frame is sampled; 1 to 2 s of 1.25 .. 2.25 s are frames 5 to 8, seen are 6 and 8. With a margin of half
    a second, frames 3 to 10, so are 4 and 10: the box of frame 5 is between those of 4 and 6."""
    video = tiny.data.video.model_copy(update={"sample_fps": 2.0})
    encoder = PromptEncoder(tiny.processor, tiny.data.model_copy(update={"video": video}))
    sample, text = tiny.of_task("stvg")[0], "<time> 1.25 - 2.25 </time>"
    assert encoder(sample).clip.frame_idx_T.tolist() == list(range(0, 16, 2))
    alone, joined = (
        Predictor(tiny.model, encoder, says(tiny, text), answering=AnsweringConfig(margin_sec=margin_sec))([sample])[0]
        for margin_sec in (0.0, 0.5)
    )
    assert (alone.span, list(alone.boxes)) == ((5, 9), [6, 8])
    assert (joined.span, joined.trim, list(joined.boxes)) == ((5, 9), "off", [5, 6, 8])
    (seen,) = decode_frames(
        tiny.model, [sample], [encoder(sample)], [text_ids(tiny.processor, text)], [np.array([2])],
        pad_id=tiny.processor.tokenizer.pad_token_id,
    )  # fmt: skip
    middle = [(a + b) / 2 for a, b in zip(seen.boxes_xyxy_px[0], alone.boxes[6], strict=True)]
    assert joined.boxes[5] == pytest.approx(middle, abs=1e-3)


def test_other_tasks_and_failures_are_not_trimmed(tiny: Tiny) -> None:
    switches = AnsweringConfig(margin_sec=1.0, presence_trim=0.5)
    for task, text in (("temporal", TIME), ("rec", "<box> </box>"), ("stvg", "no answer")):
        sample = tiny.of_task(task)[0]
        plain = Predictor(tiny.model, tiny.encoder, says(tiny, text))([sample])[0]
        assert Predictor(tiny.model, tiny.encoder, says(tiny, text), answering=switches)([sample])[0] == plain
        assert plain.trim == "off"


def test_the_switches_come_from_the_config_and_are_counted(tiny: Tiny, tmp_path: Path) -> None:
    samples = tiny.of_task("stvg")[:3]
    config = evaluation_of(tiny, samples, tmp_path, answering={"margin_sec": 0.5, "presence_trim": 0.25})
    assert make_predictor(config).answering == AnsweringConfig(margin_sec=0.5, presence_trim=0.25)
    answers = Predictor(tiny.model, tiny.encoder, says(tiny, TIME, TIME, TIME))(samples)
    trims = ("moved", "absent", "moved")
    trimmed = [replace(answer, trim=trim) for answer, trim in zip(answers, trims, strict=True)]
    (tmp_path / "out").mkdir()
    metrics = evaluate(config, Predicted(samples, trimmed, None))
    assert metrics["presence_trim"] == {"kept": 0, "moved": 2, "absent": 1}
    assert "presence of the target: 2 moved, 0 as the text has them, 1 too since" in report(metrics)
    assert "presence_trim" not in evaluate(config, Predicted(samples, answers, None))


@pytest.mark.parametrize(
    ("answering", "message"),
    [
        ({"presence_trim": 0}, "answering.presence_trim: Input should be greater than 0"),
        ({"presence_trim": 1.0}, "answering.presence_trim: Input should be less than 1"),
        ({"margin_sec": -1}, "answering.margin_sec: Input should be greater than or equal to 0"),
        ({"margin": 1}, "did you mean 'answering.margin_sec'"),
    ],
)
def test_bad_switches_are_named(tiny: Tiny, answering: dict[str, float], message: str) -> None:
    tree = {"checkpoint": "c", "out": "o", "data": {"source": {"type": "jsonl", "root": "r"}}, "answering": answering}
    with pytest.raises(ConfigError, match=message):
        parse_config(EvaluationConfig, tree, origin="here")


def test_each_sampled_frame_has_a_box_of_its_own(tiny: Tiny) -> None:
    """Two frames share a temporal patch and so their vision features; each has a box, and the two differ."""
    assert tiny.model.temporal_patch_size == 2
    sample = tiny.of_task("stvg")[0]
    (prediction,) = Predictor(tiny.model, tiny.encoder, says(tiny, "<time> 0.0 - 4.0 </time>"))([sample])
    assert list(prediction.boxes) == list(range(16))
    first, second = (np.array([prediction.boxes[frame] for frame in range(slot, 16, 2)]) for slot in (0, 1))
    assert (np.abs(first - second).max(axis=1) > 1e-3).all()


@pytest.mark.parametrize("frame_times", [True, False])
def test_frames_of_a_patch_are_told_apart_by_their_place_in_it(frame_times: bool) -> None:
    """Also where the decoder is told no time, and at one and the same time; two copies of one frame are one."""
    grounder, (states, vision) = make_grounder(frame_times=frame_times), states_and_vision()
    batch = {"frame_position": torch.tensor([[2, 3, 2], [4, 5, 4]]), "frame_time_sec": torch.ones(2, 3)}
    boxes_BF4 = grounder(states, vision, batch).boxes_cxcywh_NBF4[-1]
    assert ((boxes_BF4[:, 0] - boxes_BF4[:, 1]).abs().amax(dim=-1) > 1e-4).all()
    torch.testing.assert_close(boxes_BF4[:, 0], boxes_BF4[:, 2])
