"""Rewards of tubes that are written as text, and of letters, frame by frame in Python: benchmarks/reward_loops.py with STVG-o1's terms.

`published_loop` has the form that TRL asks for: a function for each reward, which parses every text again. STVG-o1 (2511.21375) has
no code in public; its rewards are its Eq. 3-9, its parser two regular expressions as in PTD's `reward_funcs.py` (github
mbzuai-oryx/ParallelTubeDecoding): one that takes anything between the tags, as in the paper, and one of a box. It does not
look for what data/tube_text.py refuses besides, which no answer of the benchmark has. `one_pass_loop`: one parse, one walk.

An index is a frame here: clips begin at 0, and every frame is shown.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from benchmarks.reward_loops import SCORES, Box, Span, distance, iou_and_giou, true_boxes, true_span
from data.types import GroundingSample

TUBE = re.compile(
    r"<time> (\d+) - (\d+) </time>\n<think_bbox> (.*?) </think_bbox>\n<pred_bbox> (.*?) </pred_bbox>", re.ASCII
)
BOX = re.compile(r"(\d+)\. \[(\d+), (\d+), (\d+), (\d+)\]", re.ASCII)
LETTER = re.compile(r"<answer> ([A-Z]) </answer>", re.ASCII)
Boxes = Mapping[int, Box]


class Written(NamedTuple):
    """First and last index, both included; boxes xyxy in [0, 1] by index."""

    start: int
    end: int
    think: Boxes
    final: Boxes


Parsed = Written | str | None
Score = Callable[[GroundingSample, Written], float]
Reward = Callable[[Sequence[GroundingSample], Sequence[str]], list[float]]


def published_loop(samples: Sequence[GroundingSample], texts: Sequence[str]) -> dict[str, list[float]]:
    """Every reward of every completion."""
    return {name: reward(samples, texts) for name, reward in PUBLISHED.items()}


def parse_all(samples: Sequence[GroundingSample], texts: Sequence[str]) -> list[Parsed]:
    """A tube for stvg, a letter for qa; None for what is no answer."""
    return [parse(sample, text) for sample, text in zip(samples, texts, strict=True)]


def parse(sample: GroundingSample, text: str) -> Parsed:
    """Of one text."""
    if sample.task == "qa":
        letter = LETTER.fullmatch(text)
        return None if letter is None else letter[1]
    match = TUBE.fullmatch(text)
    return None if match is None else Written(int(match[1]), int(match[2]), _boxes(match[3]), _boxes(match[4]))


def _boxes(block: str) -> Boxes:
    return {int(index): [int(value) / 1000 for value in sides] for index, *sides in BOX.findall(block)}


def _format(samples: Sequence[GroundingSample], texts: Sequence[str]) -> list[float]:
    return [0.0 if answer is None else 1.0 for answer in parse_all(samples, texts)]


def _choice(samples: Sequence[GroundingSample], texts: Sequence[str]) -> list[float]:
    rows = zip(samples, parse_all(samples, texts), strict=True)
    return [1.0 if sample.task == "qa" and answer == sample.choice else 0.0 for sample, answer in rows]


def _of_tubes(score: Score) -> Reward:
    """A reward of all completions from that of one tube."""

    def reward(samples: Sequence[GroundingSample], texts: Sequence[str]) -> list[float]:
        values = []
        for sample, text in zip(samples, texts, strict=True):
            answer = parse(sample, text)
            values.append(score(sample, answer) if isinstance(answer, Written) else 0.0)
        return values

    return reward


def _of_final(name: str) -> Score:
    """A reward of the interval and the final boxes, by that of a decoder's boxes."""
    return lambda sample, tube: SCORES[name](sample, _frames(sample, tube), tube.final)


def _frames(sample: GroundingSample, tube: Written) -> Span:
    last = sample.clip.end
    return min(tube.start, last), min(tube.end + 1, last)


def _consistency(sample: GroundingSample, tube: Written) -> float:
    indices = set(range(tube.start, tube.end + 1))
    return 1.0 if set(tube.think) == indices and set(tube.final) == indices else 0.0


def _spatial(sample: GroundingSample, tube: Written, boxes: Boxes) -> float:
    """R_spa, Eq. 6-7; an index without a box adds 0."""
    true = true_span(sample)
    shared = range(max(tube.start, true.start), min(tube.end + 1, true.end))
    pairs = zip(shared, true_boxes(sample, shared), strict=True)
    values = [_closeness(boxes[index], truth) for index, truth in pairs if index in boxes]
    return sum(values) / len(shared) if shared else 0.0


def _closeness(a: Box, b: Box) -> float:
    return iou_and_giou(a, b)[1] - distance(a, b)


def _both_spatial(sample: GroundingSample, tube: Written) -> float:
    return _spatial(sample, tube, tube.think) + _spatial(sample, tube, tube.final)


def _think(sample: GroundingSample, tube: Written) -> float:
    return max(_spatial(sample, tube, tube.final) - _spatial(sample, tube, tube.think), 0.0)


PUBLISHED: dict[str, Reward] = {
    "format": _format,
    **{name: _of_tubes(_of_final(name)) for name in SCORES},
    "consistency": _of_tubes(_consistency),
    "both_spatial": _of_tubes(_both_spatial),
    "think": _of_tubes(_think),
    "choice": _choice,
}


def one_pass_loop(samples: Sequence[GroundingSample], answers: Sequence[Parsed]) -> list[list[float]]:
    """The rewards of each answer in the order of PUBLISHED; the answers are parsed already."""
    rows = []
    for sample, answer in zip(samples, answers, strict=True):
        if answer is None:
            rows.append([0.0] * len(PUBLISHED))
        else:
            rows.append(_rewards_of(sample, answer) if isinstance(answer, Written) else _of_letter(sample, answer))
    return rows


def _of_letter(sample: GroundingSample, letter: str) -> list[float]:
    return [1.0, *[0.0] * (len(PUBLISHED) - 2), 1.0 if letter == sample.choice else 0.0]


def _rewards_of(sample: GroundingSample, tube: Written) -> list[float]:
    start, end = _frames(sample, tube)
    true, ious, final, think = true_span(sample), 0.0, 0.0, 0.0
    shared = range(max(start, true.start), min(end, true.end))
    for index, truth in zip(shared, true_boxes(sample, shared), strict=True):
        iou, giou = iou_and_giou(tube.final[index], truth)
        ious += iou
        final += giou - distance(tube.final[index], truth)
        if index in tube.think:
            think += _closeness(tube.think[index], truth)
    count, either = max(len(shared), 1), end - start + len(true) - len(shared)
    tiou, final, think = len(shared) / either, final / count, think / count
    gated = tiou + tiou**2 * ious / count
    consistent = _consistency(sample, tube)
    return [1.0, tiou, ious / either, final, gated, consistent, think + final, max(final - think, 0.0), 0.0]
