"""A tube written as text, the answer of the `text` grounder: `format_tube` and `parse_tubes` are inverse, parsing is strict.

    <time> 5 - 7 </time>
    <think_bbox> 5. [271, 30, 395, 212], 6. [267, 24, 393, 216], 7. [270, 18, 395, 221] </think_bbox>
    <pred_bbox> 5. [278, 35, 399, 234], 6. [289, 34, 403, 236], 7. [300, 28, 405, 237] </pred_bbox>

Source: STVG-o1 (2511.21375), figure 2. The interval's ends are whole indices, both included; what an index is, a second or a
frame, `data/tube_indices.py` knows. A box is (left, top, right, bottom) on the backbone's scale of 0 to 1000 here, in the
text, and in [0, 1] everywhere else. `think` boxes are a first draft, `final` ones the answer.

Stricter than their regular expression, which takes anything between the tags: one space, no leading zero, no coordinate
outside of the scale; and, which no short regular expression says, the interval is not reversed, indices ascend (so that no
frame has two boxes), no box has its corners swapped. Decoding that is constrained to the pattern can fail in these three
alone. Boxes at other indices than those of the interval are an answer, though an inconsistent one (their R_c).

Shapes: B texts, N boxes of all texts together.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from data.ragged_boxes import RaggedBoxes

SCALE = 1000
"""Of written coordinates: Qwen3-VL's, which are relative to the image."""

TubeReason = Literal["", "grammar", "reversed", "indices", "box"]
WrittenBox = tuple[float, float, float, float]

_INDEX = r"(?:0|[1-9]\d{0,3})"
_COORDINATE = r"(?:0|[1-9]\d{0,2}|1000)"
_BOX = rf"{_INDEX}\. \[{_COORDINATE}, {_COORDINATE}, {_COORDINATE}, {_COORDINATE}\]"


def tube_pattern(max_boxes: int | None = None) -> str:
    """A regular expression of tubes. max_boxes: in each of both lists, so that one who draws from it comes to an end."""
    boxes = rf"{_BOX}(?:, {_BOX})" + ("*" if max_boxes is None else f"{{0,{max_boxes - 1}}}")
    return rf"<time> ({_INDEX}) - ({_INDEX}) </time>\n<think_bbox> ({boxes}) </think_bbox>\n<pred_bbox> ({boxes}) </pred_bbox>"


BOX_PATTERN = rf"<pred_bbox> \[({_COORDINATE}), ({_COORDINATE}), ({_COORDINATE}), ({_COORDINATE})\] </pred_bbox>"
"""The box of a single image, which has no index."""
_TUBE, _SINGLE = re.compile(tube_pattern(), re.ASCII), re.compile(BOX_PATTERN, re.ASCII)
_NO_DIGIT = bytes(byte if chr(byte).isdigit() and byte < 128 else ord(" ") for byte in range(256))


@dataclass(frozen=True)
class TubeText:
    """Indices start, ..., end, both included; boxes xyxy in [0, 1] by index, as finely as they can be written."""

    start: int
    end: int
    think_boxes: Mapping[int, WrittenBox]
    final_boxes: Mapping[int, WrittenBox]


@dataclass(frozen=True)
class TubeTexts:
    """The parsed texts of a batch. reasons: "" for an answer, else why it is none (`grammar`, `reversed` interval, `indices`
    that do not ascend, a `box` with its corners swapped).

    span_B2: first and last index; (0, -1) for a failure. think, final: boxes xyxy in [0, 1] with the index as their frame, in
    the order of the rows; a failure has none. consistent_B: whether both have boxes at exactly the indices of the interval.
    """

    reasons: tuple[TubeReason, ...]
    span_B2: np.ndarray
    think: RaggedBoxes
    final: RaggedBoxes
    consistent_B: np.ndarray

    def row(self, b: int) -> TubeText:
        """The answer of one text that is one."""
        think, final = (_by_index(boxes, b) for boxes in (self.think, self.final))
        return TubeText(int(self.span_B2[b, 0]), int(self.span_B2[b, 1]), think, final)


def _by_index(boxes: RaggedBoxes, b: int) -> dict[int, WrittenBox]:
    of_row = boxes.keep(boxes.row_N == b)
    return {index: tuple(box) for index, box in zip(of_row.frame_N.tolist(), of_row.boxes_N4.tolist(), strict=True)}


def format_tube(tube: TubeText) -> str:
    """The text of a tube; coordinates are rounded to the scale and cut to the image."""
    think, final = (
        ", ".join(f"{index}. {_numbers(box)}" for index, box in boxes.items())
        for boxes in (tube.think_boxes, tube.final_boxes)
    )
    time = f"<time> {tube.start} - {tube.end} </time>"
    return f"{time}\n<think_bbox> {think} </think_bbox>\n<pred_bbox> {final} </pred_bbox>"


def format_single_box(box: WrittenBox) -> str:
    """The answer to a question about one image: (0.1, 0.2, 0.3, 0.4) -> "<pred_bbox> [100, 200, 300, 400] </pred_bbox>"."""
    return f"<pred_bbox> {_numbers(box)} </pred_bbox>"


def _numbers(box: WrittenBox) -> str:
    return "[" + ", ".join(str(min(max(round(value * SCALE), 0), SCALE)) for value in box) + "]"


def parse_single_box(text: str) -> WrittenBox | TubeReason:
    """The inverse of `format_single_box`, or why the text is none."""
    match = _SINGLE.fullmatch(text)
    if match is None:
        return "grammar"
    box_1x4 = np.array([[int(value) for value in match.groups()]])
    return tuple((box_1x4[0] / SCALE).tolist()) if _is_box(box_1x4)[0] else "box"


def parse_tubes(texts: Sequence[str]) -> TubeTexts:
    """The inverse of `format_tube`, for a whole batch: one match for each text, and arrays from there on."""
    matches = [_TUBE.fullmatch(text) for text in texts]
    groups = [("0", "-1", "", "") if match is None else match.groups() for match in matches]
    span_B2 = np.array([(int(start), int(end)) for start, end, _, _ in groups], dtype=np.int64).reshape(-1, 2)
    think, final = (_read_boxes([row[block] for row in groups]) for block in (2, 3))
    failed_BK = np.stack(
        [
            [match is None for match in matches],
            span_B2[:, 0] > span_B2[:, 1],
            _rows(think, ~_ascends(think)) | _rows(final, ~_ascends(final)),
            _rows(think, ~_is_box(think.boxes_N4)) | _rows(final, ~_is_box(final.boxes_N4)),
        ],
        axis=1,
    )
    parsed_B = failed_BK.sum(axis=1) == 0
    names: tuple[TubeReason, ...] = ("grammar", "reversed", "indices", "box")
    reasons = tuple(names[column] for column in failed_BK.argmax(axis=1))
    span_B2 = np.where(parsed_B[:, None], span_B2, (0, -1))
    think, final = (_answered(boxes, parsed_B) for boxes in (think, final))
    return TubeTexts(
        reasons=tuple("" if ok else reason for ok, reason in zip(parsed_B, reasons, strict=True)),
        span_B2=span_B2,
        think=think,
        final=final,
        consistent_B=parsed_B & _covers(think, span_B2) & _covers(final, span_B2),
    )


def _read_boxes(blocks: Sequence[str]) -> RaggedBoxes:
    """Blocks as the grammar has them -> boxes on the written scale; row and index of each."""
    counts = np.fromiter((block.count("[") for block in blocks), dtype=np.int64, count=len(blocks))
    # The first number is not a box's: numpy reads one out of nothing but blanks.
    digits = " ".join(["0", *blocks]).encode("ascii").translate(_NO_DIGIT)
    numbers_N5 = np.fromstring(digits, dtype=np.int64, sep=" ")[1:].reshape(-1, 5)
    return RaggedBoxes(np.repeat(np.arange(len(blocks)), counts), numbers_N5[:, 0], numbers_N5[:, 1:], len(blocks))


def _answered(boxes: RaggedBoxes, parsed_B: np.ndarray) -> RaggedBoxes:
    """The boxes of the answers, in [0, 1]."""
    kept = boxes.keep(parsed_B[boxes.row_N])
    return RaggedBoxes(kept.row_N, kept.frame_N, kept.boxes_N4 / SCALE, kept.num_rows)


def _rows(boxes: RaggedBoxes, marked_N: np.ndarray) -> np.ndarray:
    """Rows with a marked box. -> [B] bool."""
    return np.bincount(boxes.row_N[marked_N], minlength=boxes.num_rows) > 0


def _ascends(boxes: RaggedBoxes) -> np.ndarray:
    """Whether a box's index is above that of the box before it in its row. -> [N] bool."""
    is_first_N = np.diff(boxes.row_N, prepend=-1) > 0
    return is_first_N | (np.diff(boxes.frame_N, prepend=-1) > 0)


def _is_box(boxes_N4: np.ndarray) -> np.ndarray:
    left, top, right, bottom = boxes_N4.T
    return (left <= right) & (top <= bottom)


def _covers(boxes: RaggedBoxes, span_B2: np.ndarray) -> np.ndarray:
    """Whether each row has boxes at exactly the indices of its interval; they ascend. -> [B] bool."""
    inside_N = (boxes.frame_N >= span_B2[boxes.row_N, 0]) & (boxes.frame_N <= span_B2[boxes.row_N, 1])
    counts_B = np.bincount(boxes.row_N, minlength=boxes.num_rows)
    return ~_rows(boxes, ~inside_N) & (counts_B == span_B2[:, 1] - span_B2[:, 0] + 1)
