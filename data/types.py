"""The types of spatio-temporal video grounding. Frozen, units in the names, no torch.

Time convention: frames are 0-based indices into the whole video, spans are half-open. Seconds count from the start of
the *clip* (the part of the video that the model is given), since that is what the model sees and answers in.
"""

from dataclasses import dataclass, field
from itertools import combinations
from math import inf as INF
from typing import Literal, get_args

import numpy as np

Task = Literal["stvg", "temporal", "rec", "qa"]
QueryType = Literal["declarative", "interrogative"]
BoxPx = tuple[float, float, float, float]
TICKS_PER_SEC = 1000
"""Frames a second of a sample whose video nobody has looked at yet: annotations in seconds are exact to a millisecond."""


@dataclass(frozen=True)
class FrameSpan:
    """Frames start, start + 1, ..., end - 1 of the whole video."""

    start: int
    end: int

    def __post_init__(self) -> None:
        if not (isinstance(self.start, int) and isinstance(self.end, int)):
            raise TypeError(f"expected whole frames, got start={self.start!r}, end={self.end!r}")
        if not 0 <= self.start < self.end:
            raise ValueError(f"expected 0 <= start < end, got start={self.start}, end={self.end}")

    def __len__(self) -> int:
        return self.end - self.start


@dataclass(frozen=True)
class Tube:
    """A box, or None, for each frame of a span. object: 0 is the one that a sample's `span` is about."""

    span: FrameSpan
    boxes_xyxy_px: tuple[BoxPx | None, ...]
    object: int = 0


class SampleError(ValueError):
    """A sample contradicts itself; `field` is where."""

    def __init__(self, field: str, cause: str) -> None:
        super().__init__(field, cause)
        self.field, self.cause = field, cause

    def __str__(self) -> str:
        return self.cause


@dataclass(frozen=True)
class GroundingSample:
    """One question about one clip, with its answer.

    source: the annotation source it came from. width, height: of the video in pixels; 0 where the annotation does not say, which
    only samples without boxes may leave open until the file has been looked at. Their clock is TICKS_PER_SEC then.
    stvg: `span` and `boxes_xyxy_px` (one per frame of the span, None where the annotation has no box); `more_tubes` where the
    sentence is true of further spans of that object, or of other objects. A sample with more than one tube can be asked;
    training on boxes, rewards and metrics take exactly one, and refuse it where samples are loaded for them.
    temporal: `span`, the interval that is trained on, and `windows_sec`, all annotated intervals in seconds of the clip, as they are
    written (an end may lie past the clip). rec: as stvg, with a clip of one frame, `span` equal to it. qa: `options` and `choice`.
    Without a span and boxes it is a question that nobody has answered yet: it can be asked, not trained on or scored.
    Raises SampleError.
    """

    sample_id: str
    task: Task
    query: str
    video_path: str
    fps: float
    width: int
    height: int
    clip: FrameSpan
    query_type: QueryType = "declarative"
    span: FrameSpan | None = None
    boxes_xyxy_px: tuple[BoxPx | None, ...] | None = None
    options: tuple[str, ...] = ()
    choice: str | None = None
    windows_sec: tuple[tuple[float, float], ...] = ()
    source: str = ""
    more_tubes: tuple[Tube, ...] = ()

    def __post_init__(self) -> None:
        problem = _question_problem(self) or _answer_problem(self)
        if problem:
            field, cause = problem
            raise SampleError(field, f"sample {self.sample_id!r} ({self.task}): {cause}")

    @property
    def is_probed(self) -> bool:
        """Whether size and frame rate are the video's own, so that it can be read."""
        return self.width > 0

    @property
    def tubes(self) -> tuple[Tube, ...]:
        """All annotated tubes, the one of `span` first; none where there are no boxes."""
        if self.span is None or self.boxes_xyxy_px is None:
            return ()
        return Tube(self.span, self.boxes_xyxy_px), *self.more_tubes

    @property
    def duration_sec(self) -> float:
        return len(self.clip) / self.fps

    @property
    def span_sec(self) -> tuple[float, float]:
        """The true interval in seconds of the clip; its end is the start of the first frame after it."""
        if self.span is None:
            raise ValueError(f"sample {self.sample_id!r} ({self.task}) has no span")
        return (self.span.start - self.clip.start) / self.fps, (self.span.end - self.clip.start) / self.fps


def _question_problem(sample: GroundingSample) -> tuple[str, str] | None:
    """Field and cause of what is wrong with the question, or None."""
    if sample.task not in get_args(Task):
        return "task", f"task {sample.task!r} is not one of {get_args(Task)}"
    if sample.query_type not in get_args(QueryType):
        return "query_type", f"query_type {sample.query_type!r} is not one of {get_args(QueryType)}"
    if not 0 < sample.fps < float("inf"):
        return "fps", f"expected a positive fps, got {sample.fps}"
    smallest = 0 if sample.task in ("temporal", "qa") or sample.span is None else 1
    for name, size in (("width", sample.width), ("height", sample.height)):
        if size < smallest:
            return name, f"expected {name} >= {smallest}, got {size}"
    if not sample.query.strip():
        return "query", "the query is empty"
    return None


def _answer_problem(sample: GroundingSample) -> tuple[str, str] | None:
    """Field and cause of what is wrong with the answer, or None."""
    if any(not 0 <= start < end < float("inf") for start, end in sample.windows_sec):
        return "windows_sec", f"expected windows of 0 <= start < end seconds, got {sample.windows_sec}"
    if sample.more_tubes and (problem := _more_tubes_problem(sample)):
        return "more_tubes", problem
    if sample.task == "qa":
        letters = [chr(ord("A") + i) for i in range(len(sample.options))]
        return None if sample.choice in letters else ("choice", f"choice {sample.choice!r} is not one of {letters}")
    if sample.task == "rec" and len(sample.clip) != 1:
        return "clip", f"expected a clip of one frame, got {sample.clip}"
    if sample.span is None:
        return None if sample.boxes_xyxy_px is None else ("boxes_xyxy_px", "boxes without a span")
    if problem := _span_problem(sample, sample.span):
        return "span", problem
    if sample.task not in ("stvg", "rec"):
        return None
    problem = _boxes_problem(sample.boxes_xyxy_px, len(sample.span))
    return ("boxes_xyxy_px", problem) if problem else None


def _more_tubes_problem(sample: GroundingSample) -> str | None:
    if sample.task not in ("stvg", "rec") or not sample.tubes:
        return "expected none: more tubes need a first one, in span and boxes_xyxy_px of an stvg or rec sample"
    for tube in sample.more_tubes:
        if tube.object < 0:
            return f"expected object >= 0, got {tube.object}"
        if problem := _span_problem(sample, tube.span) or _boxes_problem(tube.boxes_xyxy_px, len(tube.span)):
            return problem
    for a, b in combinations(sample.tubes, 2):
        if a.object == b.object and a.span.start < b.span.end and b.span.start < a.span.end:
            return f"spans {a.span} and {b.span} of object {a.object} overlap"
    return None


def _span_problem(sample: GroundingSample, span: FrameSpan) -> str | None:
    if sample.clip.start <= span.start < span.end <= sample.clip.end:
        return None
    return f"span {span} is not inside the clip {sample.clip}"


def _boxes_problem(boxes: tuple[BoxPx | None, ...] | None, num_frames: int) -> str | None:
    num_boxes = -1 if boxes is None else len(boxes)
    if num_boxes != num_frames:
        return f"expected one box (or null) per frame of the span, {num_frames}, got {num_boxes}"
    for box in boxes or ():
        if box is not None and not _is_box(box):
            return f"expected boxes as (left, top, right, bottom), left <= right and top <= bottom, got {box}"
    return None


def _is_box(box: BoxPx) -> bool:
    # Not a number is in no order, so that one chain of comparisons is all; a split has millions of boxes.
    return len(box) == 4 and -INF < box[0] <= box[2] < INF and -INF < box[1] <= box[3] < INF


@dataclass(frozen=True)
class DecodedClip:
    """The sampled frames of a clip. T frames.

    frames_THW3: uint8 RGB. frame_idx_T: absolute indices. times_sec_T: presentation times from the clip's start.
    """

    frames_THW3: np.ndarray = field(repr=False)
    frame_idx_T: np.ndarray
    times_sec_T: np.ndarray

    def __post_init__(self) -> None:
        assert self.frames_THW3.dtype == np.uint8 and self.frames_THW3.ndim == 4
        assert len(self.frames_THW3) == len(self.frame_idx_T) == len(self.times_sec_T)
