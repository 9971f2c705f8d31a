"""Each answer format once: `format_*` and `parse_*` are inverse functions, and parsing is strict.

    SpanSec(2.0, 5.5)  <->  "<time> 2.0 - 5.5 </time>"
    Choice("B")        <->  "<answer> B </answer>"
    InBox()            <->  "<box> </box>"        the box itself comes from the spatial decoder

Answers that are boxes written as text are in data/tube_text.py; data/written_answers.py knows which a model gives.

Text before or after the answer, a second answer, unicode digits, signs, exponents or a reversed span are failures:
typed values with a reason, counted by evaluation and priced by the reward config, never repaired.
"""

import re
from dataclasses import dataclass
from typing import Literal

from data.types import GroundingSample

_NUMBER = r"\d{1,6}(?:\.\d{1,3})?"
_SPAN = re.compile(rf"<time> ({_NUMBER}) - ({_NUMBER}) </time>", re.ASCII)
_CHOICE = re.compile(r"<answer> ([A-Z]) </answer>", re.ASCII)
_BOX = "<box> </box>"


@dataclass(frozen=True)
class SpanSec:
    """An interval in seconds of the clip, start < end."""

    start_sec: float
    end_sec: float


@dataclass(frozen=True)
class Choice:
    """The letter of a multiple-choice answer."""

    letter: str


@dataclass(frozen=True)
class InBox:
    """The answer to a question about a single frame: see the decoder's box."""


@dataclass(frozen=True)
class ParseFailure:
    """An answer that is not one; `reason` says why (of written boxes, data/tube_text.py)."""

    reason: Literal["grammar", "reversed", "indices", "box"]
    text: str


Answer = SpanSec | Choice | InBox


def format_span(span: SpanSec, *, decimals: int) -> str:
    """SpanSec(2.0, 5.5), decimals=1 -> "<time> 2.0 - 5.5 </time>".

    An interval that rounding would make empty is written one unit of the last decimal long.
    """
    start_sec = round(span.start_sec, decimals)
    end_sec = max(round(span.end_sec, decimals), start_sec + 10.0**-decimals)
    return f"<time> {start_sec:.{decimals}f} - {end_sec:.{decimals}f} </time>"


def parse_span(text: str) -> SpanSec | ParseFailure:
    """The inverse of `format_span`, whatever the decimals; the match is of the whole text."""
    match = _SPAN.fullmatch(text)
    if match is None:
        return ParseFailure("grammar", text)
    start_sec, end_sec = float(match[1]), float(match[2])
    return SpanSec(start_sec, end_sec) if start_sec < end_sec else ParseFailure("reversed", text)


def format_choice(choice: Choice) -> str:
    """Choice("B") -> "<answer> B </answer>"."""
    return f"<answer> {choice.letter} </answer>"


def parse_choice(text: str) -> Choice | ParseFailure:
    """The inverse of `format_choice`."""
    match = _CHOICE.fullmatch(text)
    return Choice(match[1]) if match else ParseFailure("grammar", text)


def format_answer(sample: GroundingSample, *, decimals: int) -> str:
    """The target text of a sample."""
    if sample.task in ("stvg", "temporal"):
        return format_span(SpanSec(*sample.span_sec), decimals=decimals)
    if sample.task == "qa":
        assert sample.choice is not None
        return format_choice(Choice(sample.choice))
    return _BOX


def parse_answer(sample: GroundingSample, text: str) -> Answer | ParseFailure:
    """The inverse of `format_answer` for the sample's task."""
    if sample.task in ("stvg", "temporal"):
        return parse_span(text)
    if sample.task == "qa":
        return parse_choice(text)
    return InBox() if text == _BOX else ParseFailure("grammar", text)
