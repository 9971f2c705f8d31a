"""All reward terms of a rollout batch as tensors, against a loop over samples and frames as published reward code writes it.

python -m benchmarks.rewards --json
python -m benchmarks.rewards --rollouts 4096 --frames 64 --repeats 5

Both sides parse every answer's text and score `format`, `temporal`, `viou`, `spatial` and `gated`; the loop is in the manner of the
reward functions of public video-GRPO code (a regular expression, then Python floats frame by frame). Prints `ratio` = median seconds of
the loop / ours with parsing on both sides, `ratio_without_parsing`, seconds of each part, and `max_abs_diff` of the rewards.
"""

import argparse
import gc
import json
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.turns import median_seconds
from configs.rewards import RewardConfig
from data.answers import Answer, ParseFailure, parse_answer
from data.tubes import tube_batch
from data.types import FrameSpan, GroundingSample
from rewards.composer import RewardComposer

FPS, SIZE_PX = 8.0, 100
ANSWER = re.compile(r"<time> (\d{1,6}(?:\.\d{1,3})?) - (\d{1,6}(?:\.\d{1,3})?) </time>")
Box = Sequence[float]


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rollouts", type=int, default=4096)
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of a table")
    arguments = parser.parse_args()
    result = measure(arguments.rollouts, arguments.frames, arguments.repeats)
    lines = [json.dumps(result)] if arguments.json else [f"{name:24} {value}" for name, value in result.items()]
    sys.stdout.write("\n".join(lines) + "\n")


def measure(rollouts: int, frames: int, repeats: int) -> dict[str, Any]:
    """Four parts in turn; both sides give the same rewards."""
    samples, texts, boxes_BT4 = draw(rollouts, frames)
    composer = RewardComposer(RewardConfig())
    frame_idx_BT = torch.arange(frames).expand(rollouts, -1)
    valid_BT = torch.ones(rollouts, frames, dtype=torch.bool)
    lists = boxes_BT4.tolist()

    def ours(answers: Sequence[Answer | ParseFailure]) -> Tensor:
        return composer(tube_batch(samples, answers, boxes_BT4, frame_idx_BT, valid_BT)).terms_BK

    def loop(matches: Sequence[re.Match[str] | None]) -> Tensor:
        return torch.tensor([score_one(*row) for row in zip(samples, matches, lists, strict=True)])

    # A collection that walks through a million numbers of the inputs would be charged to whoever is running then.
    gc.collect()
    gc.freeze()
    answers, matches = parse_all(samples, texts), [ANSWER.fullmatch(text) for text in texts]
    parts: dict[str, Callable[[], Any]] = {
        "ours_parsing": lambda: parse_all(samples, texts),
        "ours_scoring": lambda: ours(answers),
        "loop_parsing": lambda: [ANSWER.fullmatch(text) for text in texts],
        "loop_scoring": lambda: loop(matches),
    }
    medians = median_seconds(parts, repeats)
    mine, theirs = (medians[f"{side}_parsing"] + medians[f"{side}_scoring"] for side in ("ours", "loop"))
    return {
        "benchmark": "rewards",
        "rollouts": rollouts,
        "frames": frames,
        "ratio": round(theirs / mine, 2),
        "ratio_without_parsing": round(medians["loop_scoring"] / medians["ours_scoring"], 2),
        "max_abs_diff": float((ours(answers) - loop(matches)).abs().max()),
        "seconds": {name: round(value, 5) for name, value in medians.items()},
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def parse_all(samples: Sequence[GroundingSample], texts: Sequence[str]) -> list[Answer | ParseFailure]:
    """Our parser, once for each text."""
    return [parse_answer(sample, text) for sample, text in zip(samples, texts, strict=True)]


def draw(rollouts: int, frames: int) -> tuple[list[GroundingSample], list[str], Tensor]:
    """Groups of 8 about one random tube each; one answer in sixteen is none. Boxes near the truth, at every frame."""
    rng = np.random.default_rng(0)
    samples, texts = [], []
    for _ in range(0, rollouts, 8):
        start = int(rng.integers(0, frames // 2))
        end = int(rng.integers(start + 4, frames + 1))
        x, y, w, h = (float(v) for v in rng.uniform(10, 40, size=4))
        boxes = tuple((x + 0.2 * t, y, x + 0.2 * t + w, y + h) for t in range(end - start))
        samples += [_sample(len(samples), frames, FrameSpan(start, end), boxes)] * 8
    for number, sample in enumerate(samples):
        start, end = np.array(sample.span_sec) + rng.uniform(-1, 1, size=2)
        start = max(start, 0.0)
        wrong = number % 16 == 0
        texts.append("I do not know." if wrong else f"<time> {start:.2f} - {max(end, start + 0.3):.2f} </time>")
    boxes_B14 = torch.tensor(np.array([sample.boxes_xyxy_px[0] for sample in samples]), dtype=torch.float32)[:, None]  # type: ignore[index]
    noise = torch.rand(rollouts, frames, 4, generator=torch.Generator().manual_seed(0)) * 10 - 5
    return samples, texts, ((boxes_B14 + noise) / SIZE_PX).clamp(0, 1)


def _sample(number: int, frames: int, span: FrameSpan, boxes: tuple[tuple[float, float, float, float], ...]) -> Any:
    return GroundingSample(
        sample_id=str(number), task="stvg", query="the red circle", video_path="a.mp4", fps=FPS, width=SIZE_PX, height=SIZE_PX,
        clip=FrameSpan(0, frames), span=span, boxes_xyxy_px=boxes,
    )  # fmt: skip


def score_one(sample: GroundingSample, match: re.Match[str] | None, boxes: Sequence[Box]) -> list[float]:
    """format, temporal, viou, spatial, gated of one answer, frame by frame in Python."""
    if match is None or float(match[1]) >= float(match[2]):
        return [0.0] * 5
    assert sample.span is not None and sample.boxes_xyxy_px is not None
    start = min(max(round(float(match[1]) * FPS), 0), sample.clip.end)
    end = min(max(round(float(match[2]) * FPS), 0), sample.clip.end)
    intersection = max(0, min(end, sample.span.end) - max(start, sample.span.start))
    union = (end - start) + len(sample.span) - intersection
    tiou = intersection / union
    ious, spatial = [], []
    for frame in range(max(start, sample.span.start), min(end, sample.span.end)):
        box = sample.boxes_xyxy_px[frame - sample.span.start]
        assert box is not None
        true = [value / SIZE_PX for value in box]
        iou, giou = iou_and_giou(boxes[frame], true)
        ious.append(iou)
        spatial.append(giou - sum(abs(a - b) for a, b in zip(boxes[frame], true, strict=True)))
    mean_iou, mean_spatial = (sum(values) / len(values) if values else 0.0 for values in (ious, spatial))
    return [1.0, tiou, sum(ious) / union, mean_spatial, tiou + tiou**2 * mean_iou]


def iou_and_giou(a: Box, b: Box) -> tuple[float, float]:
    """Of two boxes (left, top, right, bottom)."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    intersection = width * height
    areas = [max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1]) for box in (a, b)]
    union = sum(areas) - intersection
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    iou = intersection / union if union > 0 else 0.0
    return iou, iou - (hull - union) / hull


if __name__ == "__main__":
    main()
