"""What an index of a written tube stands for: a whole second of the clip, or a frame that the model was shown.

Every index has a frame, and its interval lasts until the frame of the next one (the last one's until the clip's end). STVG-o1
(2511.21375) does not say which of the two its indices are: its prompt for other models asks for seconds, its videos are
sampled at 2 frames a second.

Shapes: N indices of a clip, T frames that the model was shown, B samples, D different ones, I indices of the longest true interval.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from data.frame_sampling import frames_in_span
from data.geometry import normalize_boxes_by_size
from data.ragged_boxes import NO_BOX, RaggedBoxes
from data.tube_text import TubeText, TubeTexts, WrittenBox
from data.types import BoxPx, FrameSpan, GroundingSample

TubeUnit = Literal["seconds", "frames"]
Truth = tuple[GroundingSample, np.ndarray]
"""A sample, and the frame of each of its indices."""


def index_frames(sample: GroundingSample, frame_idx_T: np.ndarray, unit: TubeUnit) -> np.ndarray:
    """The absolute frame of each index, ascending. -> [N]."""
    if unit == "frames":
        return np.asarray(frame_idx_T, dtype=np.int64)
    seconds = np.arange(max(1, math.ceil(sample.duration_sec - 1e-9)))
    return sample.clip.start + np.minimum(np.round(seconds * sample.fps), len(sample.clip) - 1).astype(np.int64)


def frames_of_indices(sample: GroundingSample, frame_N: np.ndarray, start: int, end: int) -> FrameSpan | None:
    """The frames from index `start` to the end of index `end`'s interval, cut to the clip; None where it has none."""
    edges = [*frame_N.tolist(), sample.clip.end]
    first, after = edges[min(start, len(frame_N))], edges[min(end + 1, len(frame_N))]
    return FrameSpan(first, after) if first < after else None


def true_indices(frame_N: np.ndarray, span: FrameSpan) -> tuple[int, int]:
    """First and last index whose frame is in the span; the nearest one where it falls between two."""
    inside = frames_in_span(frame_N, span)
    return int(inside[0]), int(inside[-1])


def true_tube(sample: GroundingSample, frame_N: np.ndarray, span: FrameSpan) -> TubeText:
    """The tube that supervised training writes for an interval: both sequences hold the true boxes, our choice, since the paper
    describes no supervised stage. Where a frame has no annotated box, that of the nearest one is written."""
    start, end = true_indices(frame_N, span)
    boxes = {index: normalized_box(sample, nearest_box(sample, int(frame_N[index]))) for index in range(start, end + 1)}
    return TubeText(start, end, boxes, boxes)


def nearest_box(sample: GroundingSample, frame: int) -> BoxPx:
    """The annotated box at a frame, or that of the nearest one that has one. Raises ValueError for a sample without any."""
    if sample.span is None or sample.boxes_xyxy_px is None:
        raise ValueError(f"sample {sample.sample_id!r} ({sample.task}) has no boxes to be written")
    boxes = {sample.span.start + offset: box for offset, box in enumerate(sample.boxes_xyxy_px) if box is not None}
    if not boxes:
        raise ValueError(f"sample {sample.sample_id!r} ({sample.task}) has no annotated box in its interval")
    return boxes[min(boxes, key=lambda known: abs(known - frame))]


def normalized_box(sample: GroundingSample, box: BoxPx) -> WrittenBox:
    """Pixels of the sample's video -> [0, 1]."""
    left, top, right, bottom = box
    return left / sample.width, top / sample.height, right / sample.width, bottom / sample.height


@dataclass(frozen=True)
class WrittenTubes:
    """Written tubes beside the truth, on indices. Column i is the i-th index of the true interval. Boxes xyxy in [0, 1].

    consistent_B: both sequences have boxes at exactly the indices of the answered interval. in_both_BI: indices of both
    intervals. think_boxes_BI4, think_has_box_BI, final_boxes_BI4, final_has_box_BI; gt_boxes_BI4, gt_has_box_BI.
    """

    consistent_B: Tensor
    in_both_BI: Tensor
    think_boxes_BI4: Tensor
    think_has_box_BI: Tensor
    final_boxes_BI4: Tensor
    final_has_box_BI: Tensor
    gt_boxes_BI4: Tensor
    gt_has_box_BI: Tensor

    def to(self, device: torch.device) -> "WrittenTubes":
        """The same on a device."""
        return WrittenTubes(**{name: tensor.to(device, non_blocking=True) for name, tensor in vars(self).items()})


def written_tubes(texts: TubeTexts, samples: Sequence[GroundingSample], frames: Sequence[np.ndarray]) -> WrittenTubes:
    """frames: `index_frames` of each sample. Samples of other tasks than stvg have no tube, and no index is in both.

    Raises ValueError for an stvg sample without a true span.
    """
    distinct, row_B = _distinct_truths(samples, frames)
    spans_D2 = torch.tensor([_true_span(*truth) for truth in distinct])
    spans_B2 = spans_D2[row_B]
    index_BI = spans_B2[:, :1] + torch.arange(int((spans_B2[:, 1] - spans_B2[:, 0]).max()) + 1)
    answered_B2 = torch.from_numpy(texts.span_B2)
    in_both_BI = (index_BI <= spans_B2[:, 1:]) & (index_BI >= answered_B2[:, :1]) & (index_BI <= answered_B2[:, 1:])
    think, final = (_in_columns(boxes, spans_B2, index_BI.shape[1]) for boxes in (texts.think, texts.final))
    gt_boxes_DI4, gt_has_box_DI = _true_boxes(distinct, spans_D2, index_BI.shape[1])
    return WrittenTubes(
        torch.from_numpy(texts.consistent_B),
        in_both_BI,
        *think,
        *final,
        gt_boxes_DI4[row_B],
        gt_has_box_DI[row_B],
    )


def _distinct_truths(samples: Sequence[GroundingSample], frames: Sequence[np.ndarray]) -> tuple[list[Truth], Tensor]:
    """Each sample with its indices' frames once, and which of them every row is [B]: the rows of a group share both."""
    keys = [(id(sample), frame_N.tobytes()) for sample, frame_N in zip(samples, frames, strict=True)]
    truths = dict(zip(keys, zip(samples, frames, strict=True), strict=True))
    position = {key: number for number, key in enumerate(truths)}
    return list(truths.values()), torch.tensor([position[key] for key in keys])


def _true_span(sample: GroundingSample, frame_N: np.ndarray) -> tuple[int, int]:
    if sample.task != "stvg":
        return 0, 0
    if sample.span is None:
        raise ValueError(f"samples without a true span cannot be scored: {sample.sample_id!r}")
    return true_indices(frame_N, sample.span)


def _in_columns(boxes: RaggedBoxes, spans_B2: Tensor, num_columns: int) -> tuple[Tensor, Tensor]:
    """Boxes at the indices of the true intervals, and where there is one. -> [B, I, 4], [B, I] bool."""
    column_N = boxes.frame_N - spans_B2[:, 0].numpy()[boxes.row_N]
    kept_N = (column_N >= 0) & (column_N < num_columns)
    place = torch.from_numpy(boxes.row_N[kept_N]), torch.from_numpy(column_N[kept_N])
    boxes_BI4 = torch.zeros(boxes.num_rows, num_columns, 4)
    has_box_BI = torch.zeros(boxes.num_rows, num_columns, dtype=torch.bool)
    boxes_BI4[place], has_box_BI[place] = torch.from_numpy(boxes.boxes_N4[kept_N]).float(), True
    return boxes_BI4, has_box_BI


def _true_boxes(truths: Sequence[Truth], spans_D2: Tensor, num_columns: int) -> tuple[Tensor, Tensor]:
    """Boxes at the indices of the true intervals, and where there is one. -> [D, I, 4], [D, I] bool."""
    rows = [
        [_annotated_box(sample, int(frame_N[index])) for index in range(first, last + 1)]
        for (sample, frame_N), (first, last) in zip(truths, spans_D2.tolist(), strict=True)
    ]
    padded = [[*row, *[None] * (num_columns - len(row))] for row in rows]
    sizes_D12 = torch.tensor([[(max(s.width, 1), max(s.height, 1))] for s, _ in truths], dtype=torch.float32)
    boxes_DI4 = normalize_boxes_by_size(torch.tensor([[box or NO_BOX for box in row] for row in padded]), sizes_D12)
    return boxes_DI4, torch.tensor([[box is not None for box in row] for row in padded])


def _annotated_box(sample: GroundingSample, frame: int) -> BoxPx | None:
    """At an index that stands beside an interval between two, the box at the interval's end."""
    if sample.span is None or sample.boxes_xyxy_px is None:
        return None
    inside = min(max(frame, sample.span.start), sample.span.end - 1)
    return sample.boxes_xyxy_px[inside - sample.span.start]
