"""An annotation in seconds -> a sample whose video nobody has looked at yet.

Such annotations know neither frame rate nor size, so the sample counts in milliseconds (TICKS_PER_SEC) and has no size,
until data/probing.py puts the clock and the size of the video file in their place. `windows_sec` keeps the intervals as
they were annotated, since evaluation scores against those (of 3,720 ends in Charades-STA's test split 562 lie past the
duration); `span`, which is trained on, is one interval cut to the clip.
"""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from data.annotations import FieldError, Split
from data.raw_fields import MAX_TICKS, Text
from data.types import TICKS_PER_SEC, FrameSpan, GroundingSample

MAX_SEC = MAX_TICKS / TICKS_PER_SEC
"""A day; more is not seconds."""
END_PAST_DURATION = "end_past_duration"
"""Flag of a sample with an interval that ends after its video, as annotated."""

DurationSec = Annotated[float, Field(ge=1 / TICKS_PER_SEC, le=MAX_SEC)]
Sentence = Annotated[Text, AfterValidator(str.strip)]
Windows = Sequence[tuple[float, float]]
"""(start, end) in seconds from the start of the video."""


def add_unprobed(
    split: Split, *, windows_sec: Windows, duration_sec: float, field: str, trained_window: int = 0, **values: Any
) -> GroundingSample:
    """Keep a sample that counts in milliseconds from 0 to `duration_sec`, flagged where a window ends later.

    values: the other fields of GroundingSample. A temporal sample's span is `windows_sec[trained_window]`, cut to the
    clip; None without windows. Raises FieldError, naming `field`, for a window that is reversed, empty or negative, and
    for a span of which nothing lies in the video.
    """
    for start, end in windows_sec:
        if not 0 <= start < end <= MAX_SEC:
            raise FieldError(field, f"expected 0 <= start < end <= {MAX_SEC:.0f} seconds, got {start}, {end}")
    clip, values = FrameSpan(0, to_ticks(duration_sec)), {"task": "temporal", **values}
    has_span = windows_sec and values["task"] == "temporal"
    sample = GroundingSample(
        fps=float(TICKS_PER_SEC),
        width=0,
        height=0,
        clip=clip,
        span=span_in_clip(windows_sec[trained_window], clip, field) if has_span else None,
        windows_sec=tuple((float(start), float(end)) for start, end in windows_sec),
        **values,
    )
    split.add(sample, *([END_PAST_DURATION] if any(end > duration_sec for _, end in windows_sec) else []))
    return sample


def span_in_clip(window_sec: tuple[float, float], clip: FrameSpan, field: str) -> FrameSpan:
    """A window in milliseconds, cut to the clip. Raises FieldError where nothing is left."""
    start, end = to_ticks(window_sec[0]), min(to_ticks(window_sec[1]), clip.end)
    if start >= end:
        duration_sec = clip.end / TICKS_PER_SEC
        raise FieldError(
            field, f"{window_sec[0]} to {window_sec[1]} s has no millisecond in a video of {duration_sec} s"
        )
    return FrameSpan(start, end)


def to_ticks(sec: float) -> int:
    """Seconds -> the nearest millisecond."""
    return round(sec * TICKS_PER_SEC)


def longest(windows_sec: Windows) -> int:
    """Index of the longest window, the first of equals; 0 where there is none."""
    return max(range(len(windows_sec)), key=lambda i: windows_sec[i][1] - windows_sec[i][0], default=0)
