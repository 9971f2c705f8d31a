"""How a model's answers are written and read, by its `answer_format`: the one place where the rest chooses between them.

    span    data/answers.py: the text has an interval or a letter, boxes are a decoder's
    tube    data/tube_text.py for stvg and rec, whose boxes are in the text; temporal and qa as with span

Shapes: B answers, T frames that the model was shown, N boxes of all answers together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np

from data.answers import Answer, InBox, ParseFailure, SpanSec, format_answer, format_span, parse_answer
from data.ragged_boxes import RaggedBoxes
from data.tube_indices import (
    TubeUnit,
    WrittenTubes,
    frames_of_indices,
    index_frames,
    normalized_box,
    true_tube,
    written_tubes,
)
from data.tube_text import (
    BOX_PATTERN,
    TubeTexts,
    WrittenBox,
    format_single_box,
    format_tube,
    parse_single_box,
    parse_tubes,
    tube_pattern,
)
from data.types import FrameSpan, GroundingSample

AnswerFormat = Literal["span", "tube"]


@dataclass(frozen=True)
class AnswerStyle:
    """answer_format: the grounder's. time_decimals, tube_unit: as in configs/data.py: PromptConfig."""

    answer_format: AnswerFormat = "span"
    time_decimals: int = 1
    tube_unit: TubeUnit = "seconds"

    @classmethod
    def of(cls, answer_format: AnswerFormat, prompt: Mapping[str, Any]) -> Self:
        """prompt: a PromptConfig as a dict, also one of a checkpoint that is older than a field."""
        return cls(answer_format, **{name: prompt[name] for name in ("time_decimals", "tube_unit") if name in prompt})

    @property
    def has_boxes(self) -> bool:
        """Whether boxes are in the text of an answer."""
        return self.answer_format == "tube"


SPANS = AnswerStyle()


def write_answer(
    sample: GroundingSample, frame_idx_T: np.ndarray, style: AnswerStyle, *, span_sec: SpanSec | None = None
) -> str:
    """The target text of a sample. span_sec: an interval to be answered in place of the true one (stvg, temporal)."""
    if not style.has_boxes or sample.task in ("temporal", "qa"):
        if span_sec is not None:
            return format_span(span_sec, decimals=style.time_decimals)
        return format_answer(sample, decimals=style.time_decimals)
    if sample.task == "rec":
        assert sample.boxes_xyxy_px and sample.boxes_xyxy_px[0] is not None
        return format_single_box(normalized_box(sample, sample.boxes_xyxy_px[0]))
    frame_N = index_frames(sample, frame_idx_T, style.tube_unit)
    return format_tube(true_tube(sample, frame_N, _frames(sample, span_sec or SpanSec(*sample.span_sec))))


def _frames(sample: GroundingSample, span: SpanSec) -> FrameSpan:
    start, end = (sample.clip.start + round(sec * sample.fps) for sec in (span.start_sec, span.end_sec))
    start = min(max(start, sample.clip.start), sample.clip.end - 1)
    return FrameSpan(start, max(start + 1, min(end, sample.clip.end)))


def answer_pattern(sample: GroundingSample, style: AnswerStyle, *, max_boxes: int) -> str | None:
    """A regular expression of the answers with written boxes, for constrained decoding; None where they have none.

    max_boxes: of each list of a tube, as many as the clip has indices.
    """
    if not style.has_boxes:
        return None
    return {"stvg": tube_pattern(max_boxes), "rec": BOX_PATTERN}.get(sample.task)


@dataclass(frozen=True)
class ReadAnswers:
    """The answers of a batch. A written tube is the interval that it says, with its boxes beside it.

    boxes: those of the text, xyxy in [0, 1], at absolute frames of the answered interval; None where the text has no boxes.
    texts: written tubes as they were parsed, for rows that are none too.
    """

    answers: list[Answer | ParseFailure]
    boxes: RaggedBoxes | None = None
    texts: TubeTexts | None = None


def read_answers(
    samples: Sequence[GroundingSample], frame_idx: Sequence[np.ndarray], texts: Sequence[str], style: AnswerStyle
) -> ReadAnswers:
    """The inverse of `write_answer` for a batch of any tasks. frame_idx: the frames that each model was shown, [T]."""
    if not style.has_boxes:
        return ReadAnswers([parse_answer(sample, text) for sample, text in zip(samples, texts, strict=True)])
    tubes = parse_tubes([text if sample.task == "stvg" else "" for sample, text in zip(samples, texts, strict=True)])
    frames = [index_frames(*row, style.tube_unit) for row in zip(samples, frame_idx, strict=True)]
    singles = [parse_single_box(text) if s.task == "rec" else "" for s, text in zip(samples, texts, strict=True)]
    answers = [
        _answer(sample, text, _TubeRow(tubes, b, frames[b]), singles[b])
        for b, (sample, text) in enumerate(zip(samples, texts, strict=True))
    ]
    return ReadAnswers(answers, _boxes_at_frames(samples, frames, tubes, singles), tubes)


@dataclass(frozen=True)
class _TubeRow:
    tubes: TubeTexts
    b: int
    frame_N: np.ndarray


def _answer(sample: GroundingSample, text: str, row: _TubeRow, single: WrittenBox | str) -> Answer | ParseFailure:
    if sample.task in ("temporal", "qa"):
        return parse_answer(sample, text)
    if sample.task == "rec":
        return ParseFailure(single, text) if isinstance(single, str) else InBox()  # pyright: ignore[reportArgumentType]
    if reason := row.tubes.reasons[row.b]:
        return ParseFailure(reason, text)
    span = frames_of_indices(sample, row.frame_N, *row.tubes.span_B2[row.b].tolist())
    if span is None:
        # After the clip's end; where exactly, its indices do not say.
        return SpanSec(sample.duration_sec, sample.duration_sec + 1.0)
    return SpanSec((span.start - sample.clip.start) / sample.fps, (span.end - sample.clip.start) / sample.fps)


def _boxes_at_frames(
    samples: Sequence[GroundingSample],
    frames: Sequence[np.ndarray],
    tubes: TubeTexts,
    singles: Sequence[WrittenBox | str],
) -> RaggedBoxes:
    """The final boxes whose index is in the answered interval and in the clip, and those of single images."""
    final, counts_B = tubes.final, np.array([len(frame_N) for frame_N in frames])
    in_span_N = (final.frame_N >= tubes.span_B2[final.row_N, 0]) & (final.frame_N <= tubes.span_B2[final.row_N, 1])
    kept = final.keep(in_span_N & (final.frame_N < counts_B[final.row_N]))
    offsets_B = np.cumsum(counts_B) - counts_B
    frame_N = np.concatenate(frames)[offsets_B[kept.row_N] + kept.frame_N]
    of_images = [(b, box) for b, box in enumerate(singles) if not isinstance(box, str)]
    row_N = np.concatenate([kept.row_N, np.array([b for b, _ in of_images], dtype=np.int64)])
    frame_N = np.concatenate([frame_N, np.array([samples[b].clip.start for b, _ in of_images], dtype=np.int64)])
    boxes_N4 = np.concatenate([kept.boxes_N4, np.array([box for _, box in of_images]).reshape(-1, 4)])
    order = np.lexsort((frame_N, row_N))
    return RaggedBoxes(row_N[order], frame_N[order], boxes_N4[order], len(samples))


def written_beside_truth(
    read: ReadAnswers, samples: Sequence[GroundingSample], frame_idx: Sequence[np.ndarray], style: AnswerStyle
) -> WrittenTubes | None:
    """The written tubes of stvg samples and the truth, on indices; None where the text has no boxes."""
    if read.texts is None:
        return None
    frames = [index_frames(*row, style.tube_unit) for row in zip(samples, frame_idx, strict=True)]
    return written_tubes(read.texts, samples, frames)
