"""Rewards frame by frame in Python, in the two forms that the benchmark compares with.

`published_loop` has the form of published reward code: one function for each reward, which takes all completions, parses each one
again and walks over the frames that both intervals share (`reward_funcs.py` of PTD, github mbzuai-oryx/ParallelTubeDecoding;
`grpo_video.py` of STVG-R1, github XiaowZhang00/stvg-r1; OneThinker's `onethinker_reward.py` has the same loops). TRL's
GRPOTrainer asks for this form. `one_pass_loop` is what such code could do: one parse and one walk for all rewards.

Text is read as data/answers.py does, and rounded to frames as data/geometry.py does, so that both give our rewards.
"""

import re
from collections.abc import Callable, Mapping, Sequence

from data.types import FrameSpan, GroundingSample

ANSWER = re.compile(r"<time> (\d{1,6}(?:\.\d{1,3})?) - (\d{1,6}(?:\.\d{1,3})?) </time>", re.ASCII)
Box = Sequence[float]
Tube = Mapping[int, Box]
Span = tuple[int, int]
Score = Callable[[GroundingSample, Span, Tube], float]
Reward = Callable[[Sequence[GroundingSample], Sequence[str], Sequence[Tube]], list[float]]


def published_loop(
    samples: Sequence[GroundingSample], texts: Sequence[str], tubes: Sequence[Tube]
) -> dict[str, list[float]]:
    """Every reward of every completion; boxes in [0, 1] by frame, the truth in pixels."""
    return {name: reward(samples, texts, tubes) for name, reward in PUBLISHED.items()}


def parse(text: str) -> tuple[float, float] | None:
    """Seconds; None for what is no answer."""
    match = ANSWER.fullmatch(text)
    if match is None:
        return None
    start_sec, end_sec = float(match[1]), float(match[2])
    return (start_sec, end_sec) if start_sec < end_sec else None


def _format(samples: Sequence[GroundingSample], texts: Sequence[str], tubes: Sequence[Tube]) -> list[float]:
    return [0.0 if parse(text) is None else 1.0 for text in texts]


def _of_each(score: Score) -> Reward:
    """A reward of all completions from that of one answer."""

    def reward(samples: Sequence[GroundingSample], texts: Sequence[str], tubes: Sequence[Tube]) -> list[float]:
        values = []
        for sample, text, tube in zip(samples, texts, tubes, strict=True):
            span_sec = parse(text)
            values.append(0.0 if span_sec is None else score(sample, in_frames(sample, span_sec), tube))
        return values

    return reward


def in_frames(sample: GroundingSample, span_sec: tuple[float, float]) -> Span:
    """Rounded and cut to the clip."""
    first, last = sample.clip.start, sample.clip.end
    start, end = (min(max(round(value * sample.fps) + first, first), last) for value in span_sec)
    return start, end


def _overlap(sample: GroundingSample, span: Span) -> tuple[int, int]:
    """Frames in both intervals and in either."""
    true = true_span(sample)
    both = max(0, min(span[1], true.end) - max(span[0], true.start))
    return both, (span[1] - span[0]) + len(true) - both


def true_span(sample: GroundingSample) -> FrameSpan:
    """In frames of the video."""
    assert sample.span is not None
    return sample.span


def true_boxes(sample: GroundingSample, frames: range) -> list[Box]:
    """In [0, 1], at frames of the true interval."""
    start, boxes = true_span(sample).start, sample.boxes_xyxy_px
    assert boxes is not None
    size = (sample.width, sample.height) * 2
    found: list[Box] = []
    for frame in frames:
        box = boxes[frame - start]
        assert box is not None
        found.append([value / side for value, side in zip(box, size, strict=True)])
    return found


def _pairs(sample: GroundingSample, span: Span, tube: Tube) -> list[tuple[Box, Box]]:
    """Predicted and true box, in [0, 1], at each frame of both intervals."""
    true = true_span(sample)
    shared = range(max(span[0], true.start), min(span[1], true.end))
    return [(tube[frame], box) for frame, box in zip(shared, true_boxes(sample, shared), strict=True)]


def _temporal(sample: GroundingSample, span: Span, tube: Tube) -> float:
    both, either = _overlap(sample, span)
    return both / either


def _viou(sample: GroundingSample, span: Span, tube: Tube) -> float:
    return sum(iou(a, b) for a, b in _pairs(sample, span, tube)) / _overlap(sample, span)[1]


def _spatial(sample: GroundingSample, span: Span, tube: Tube) -> float:
    values = [iou_and_giou(a, b)[1] - distance(a, b) for a, b in _pairs(sample, span, tube)]
    return sum(values) / len(values) if values else 0.0


def _gated(sample: GroundingSample, span: Span, tube: Tube) -> float:
    values = [iou(a, b) for a, b in _pairs(sample, span, tube)]
    tiou = _temporal(sample, span, tube)
    return tiou + tiou**2 * (sum(values) / len(values) if values else 0.0)


SCORES: dict[str, Score] = {"temporal": _temporal, "viou": _viou, "spatial": _spatial, "gated": _gated}
PUBLISHED: dict[str, Reward] = {"format": _format} | {name: _of_each(score) for name, score in SCORES.items()}


def one_pass_loop(
    samples: Sequence[GroundingSample], answers: Sequence[tuple[float, float] | None], tubes: Sequence[Tube]
) -> list[list[float]]:
    """format, temporal, viou, spatial, gated of each answer, which is parsed already."""
    return [
        [0.0] * 5 if span_sec is None else _all_rewards(sample, in_frames(sample, span_sec), tube)
        for sample, span_sec, tube in zip(samples, answers, tubes, strict=True)
    ]


def _all_rewards(sample: GroundingSample, span: Span, tube: Tube) -> list[float]:
    both, either = _overlap(sample, span)
    tiou, ious, spatial = both / either, 0.0, 0.0
    for a, b in _pairs(sample, span, tube):
        box_iou, box_giou = iou_and_giou(a, b)
        ious += box_iou
        spatial += box_giou - distance(a, b)
    count = max(both, 1)
    return [1.0, tiou, ious / either, spatial / count, tiou + tiou**2 * ious / count]


def iou(a: Box, b: Box) -> float:
    """Of two boxes (left, top, right, bottom)."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    intersection = max(0.0, width) * max(0.0, height)
    union = area(a) + area(b) - intersection
    return intersection / union if union > 0 else 0.0


def iou_and_giou(a: Box, b: Box) -> tuple[float, float]:
    """Of two boxes (left, top, right, bottom)."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    intersection = max(0.0, width) * max(0.0, height)
    union = area(a) + area(b) - intersection
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    box_iou = intersection / union if union > 0 else 0.0
    return box_iou, box_iou - (hull - union) / hull


def area(box: Box) -> float:
    """0 for a reversed box."""
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def distance(a: Box, b: Box) -> float:
    """Sum of the differences of the four sides."""
    return abs(a[0] - b[0]) + abs(a[1] - b[1]) + abs(a[2] - b[2]) + abs(a[3] - b[3])
