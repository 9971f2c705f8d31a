"""Answer formats: formatting and parsing are inverse, and nothing else parses."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from data.answers import (
    Choice,
    InBox,
    ParseFailure,
    SpanSec,
    format_answer,
    format_choice,
    format_span,
    parse_answer,
    parse_choice,
    parse_span,
)
from data.types import FrameSpan, GroundingSample, Task


def make_sample(task: Task) -> GroundingSample:
    """A sample of a task at 8 fps; span frames [16, 44) are 2.0 - 5.5 s of the clip."""
    span = {"qa": None, "rec": FrameSpan(3, 4)}.get(task, FrameSpan(16, 44))
    return GroundingSample(
        sample_id="s",
        task=task,
        query="the red circle",
        video_path="v.mp4",
        fps=8.0,
        width=64,
        height=48,
        clip=FrameSpan(3, 4) if task == "rec" else FrameSpan(0, 64),
        span=span,
        boxes_xyxy_px=((1.0, 2.0, 3.0, 4.0),) * len(span) if span and task != "temporal" else None,
        options=("a", "b") if task == "qa" else (),
        choice="B" if task == "qa" else None,
    )


@given(
    decimals=st.integers(0, 3), start=st.floats(0, 999_999, allow_nan=False), end=st.floats(0, 999_999, allow_nan=False)
)
def test_span_round_trip(decimals: int, start: float, end: float) -> None:
    """parse(format(x)) == x for every x that has at most `decimals` decimals."""
    span = SpanSec(round(start, decimals), round(end, decimals))
    assume(span.start_sec < span.end_sec)
    assert parse_span(format_span(span, decimals=decimals)) == span


@given(st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ"))
def test_choice_round_trip(letter: str) -> None:
    assert parse_choice(format_choice(Choice(letter))) == Choice(letter)


@given(st.text(max_size=40))
def test_any_text_is_an_answer_or_a_failure_that_keeps_it(text: str) -> None:
    """Parsing is total: no text raises, and a failure carries the text."""
    answer = parse_span(text)
    assert isinstance(answer, SpanSec) or answer == ParseFailure("grammar", text)


def test_formats_are_pinned() -> None:
    assert format_span(SpanSec(2.0, 5.5), decimals=1) == "<time> 2.0 - 5.5 </time>"
    assert format_span(SpanSec(2.0, 5.5), decimals=3) == "<time> 2.000 - 5.500 </time>"
    assert format_span(SpanSec(2.0, 6.0), decimals=0) == "<time> 2 - 6 </time>"
    assert format_choice(Choice("B")) == "<answer> B </answer>"


def test_parse_span_does_not_depend_on_decimals() -> None:
    assert parse_span("<time> 2 - 5.50 </time>") == SpanSec(2.0, 5.5)


@pytest.mark.parametrize(
    ("task", "text", "answer"),
    [
        ("stvg", "<time> 2.0 - 5.5 </time>", SpanSec(2.0, 5.5)),
        ("temporal", "<time> 2.0 - 5.5 </time>", SpanSec(2.0, 5.5)),
        ("rec", "<box> </box>", InBox()),
        ("qa", "<answer> B </answer>", Choice("B")),
    ],
)
def test_answer_of_each_task(task: Task, text: str, answer: object) -> None:
    """Frames [16, 44) at 8 fps, clip from frame 0: 16/8 = 2.0 s and 44/8 = 5.5 s."""
    sample = make_sample(task)
    assert format_answer(sample, decimals=1) == text
    assert parse_answer(sample, text) == answer


@pytest.mark.parametrize(
    ("task", "text"),
    [
        ("stvg", "<answer> B </answer>"),
        ("stvg", "<box> </box>"),
        ("qa", "<time> 2.0 - 5.5 </time>"),
        ("rec", "<time> 2.0 - 5.5 </time>"),
        ("rec", "<box></box>"),
        ("rec", "<box> </box> "),
    ],
)
def test_an_answer_of_another_task_is_a_failure(task: Task, text: str) -> None:
    assert parse_answer(make_sample(task), text) == ParseFailure("grammar", text)


MALFORMED_SPANS = [
    ("", "grammar"),
    (" ", "grammar"),
    ("It happens at <time> 2.0 - 5.5 </time>", "grammar"),  # text before
    ("<time> 2.0 - 5.5 </time>.", "grammar"),  # text after
    (" <time> 2.0 - 5.5 </time>", "grammar"),
    ("<time> 2.0 - 5.5 </time> ", "grammar"),
    ("<time> 2.0 - 5.5 </time>\n", "grammar"),  # `$` would let this one pass
    ("\n<time> 2.0 - 5.5 </time>", "grammar"),
    ("<time> 2.0 -\n5.5 </time>", "grammar"),
    ("<time> 2.0 - 5.5 </time><time> 6.0 - 7.0 </time>", "grammar"),  # two answers
    ("<time> 2.0 - 5.5 </time> <time> 2.0 - 5.5 </time>", "grammar"),
    ("<time> 2.0 - 5.5 - 6.0 </time>", "grammar"),
    ("<time> ٢.٠ - ٥.٥ </time>", "grammar"),  # Arabic-Indic digits, which float() reads  # noqa: RUF001
    ("<time> ２.０ - ５.５ </time>", "grammar"),  # full-width digits  # noqa: RUF001
    ("<time> 2.0 – 5.5 </time>", "grammar"),  # en dash  # noqa: RUF001
    ("<time> 2e0 - 5.5 </time>", "grammar"),
    ("<time> 2.0 - 1e9 </time>", "grammar"),
    ("<time> -2.0 - 5.5 </time>", "grammar"),
    ("<time> +2.0 - 5.5 </time>", "grammar"),
    ("<time> nan - 5.5 </time>", "grammar"),
    ("<time> 2.0 - inf </time>", "grammar"),
    ("<time> 2.0-5.5 </time>", "grammar"),  # missing spaces
    ("<time>2.0 - 5.5</time>", "grammar"),
    ("<time> 2.0 -  5.5 </time>", "grammar"),  # two spaces
    ("<time> 2.0\u00a0- 5.5 </time>", "grammar"),  # no-break space
    ("<time> 2. - 5.5 </time>", "grammar"),
    ("<time> .5 - 5.5 </time>", "grammar"),
    ("<time> 2,0 - 5,5 </time>", "grammar"),
    ("<time> 1_0 - 5_5 </time>", "grammar"),  # float("1_0") is 10
    ("<time> 2.0000 - 5.5 </time>", "grammar"),  # more than 3 decimals
    ("<time> 2.0 - 1000000 </time>", "grammar"),  # more than 6 digits
    ("<time> 2.0 - " + "9" * 400 + " </time>", "grammar"),  # float() gives inf
    ("<time> 0x2 - 0x5 </time>", "grammar"),
    ("<time> 2.0 - 5.5 s </time>", "grammar"),
    ("<TIME> 2.0 - 5.5 </TIME>", "grammar"),
    ("<time> 2.0 - 5.5", "grammar"),  # truncated
    ("<time> 2.0 - 5.5 </tim", "grammar"),
    ("<time> 2.0 -", "grammar"),
    ("<time> - </time>", "grammar"),
    ("<time> 5.5 - 2.0 </time>", "reversed"),
    ("<time> 2.0 - 2.0 </time>", "reversed"),  # equal ends
    ("<time> 0 - 0.000 </time>", "reversed"),
]


@pytest.mark.parametrize(("text", "reason"), MALFORMED_SPANS)
def test_malformed_span(text: str, reason: str) -> None:
    failure = parse_span(text)
    assert isinstance(failure, ParseFailure)
    assert (failure.reason, failure.text) == (reason, text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "B",
        "<answer> b </answer>",
        "<answer>B</answer>",
        "<answer> AB </answer>",
        "<answer> A </answer>\n",
        "<answer> \u0411 </answer>",
        "<answer> A </answer><answer> B </answer>",
        "Answer: <answer> A </answer>",
    ],
)
def test_malformed_choice(text: str) -> None:
    """U+0411 is a Cyrillic capital, `str.isupper` would take it."""
    assert parse_choice(text) == ParseFailure("grammar", text)
