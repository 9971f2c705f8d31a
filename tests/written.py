"""Answers that are tubes written as text, scored as GRPO scores them."""

from typing import Any

import numpy as np
import torch

from configs.rewards import RewardConfig
from data.ragged_boxes import FAR
from data.tubes import TubeBatch, tube_batch
from data.types import FrameSpan, GroundingSample
from data.written_answers import AnswerStyle, read_answers, written_beside_truth
from rewards.composer import RewardBreakdown, RewardComposer

STYLE = AnswerStyle(answer_format="tube", tube_unit="seconds")

# One frame a second, so that second = index = frame. The truth is [4, 8), that is 4 - 7; the box is .2 to .6 in both axes.
SAMPLE = GroundingSample(
    sample_id="a",
    task="stvg",
    query="the red circle",
    video_path="a.mp4",
    fps=1.0,
    width=100,
    height=100,
    clip=FrameSpan(0, 10),
    span=FrameSpan(4, 8),
    boxes_xyxy_px=((20.0, 20.0, 60.0, 60.0),) * 4,
)


def tube_text(time: str, think: dict[int, str], final: dict[int, str]) -> str:
    """A text by its parts; boxes as they are written, "200, 200, 600, 600"."""
    think_boxes, final_boxes = (", ".join(f"{i}. [{box}]" for i, box in boxes.items()) for boxes in (think, final))
    return f"<time> {time} </time>\n<think_bbox> {think_boxes} </think_bbox>\n<pred_bbox> {final_boxes} </pred_bbox>"


def steady(first: int, last: int, box: str) -> dict[int, str]:
    """The same box at the indices first, ..., last."""
    return dict.fromkeys(range(first, last + 1), box)


def written_tubes_of(texts: list[str], sample: GroundingSample = SAMPLE, style: AnswerStyle = STYLE) -> TubeBatch:
    """Texts about one sample, of which the model was shown every frame."""
    samples, frame_idx = [sample] * len(texts), [np.arange(sample.clip.start, sample.clip.end)] * len(texts)
    read = read_answers(samples, frame_idx, texts, style)
    assert read.boxes is not None
    boxes = read.boxes
    valid_BT = boxes.pad(torch.ones(len(boxes.row_N), dtype=torch.bool))
    frames_BT = boxes.pad(torch.from_numpy(boxes.frame_N), fill=FAR)
    return tube_batch(
        samples, read.answers, boxes.pad(torch.from_numpy(boxes.boxes_N4).float()), frames_BT, valid_BT,
        written=written_beside_truth(read, samples, frame_idx, style),
    )  # fmt: skip


def scored(texts: list[str], sample: GroundingSample = SAMPLE, **config: Any) -> RewardBreakdown:
    """Rewards of texts, under a RewardConfig of these fields."""
    return RewardComposer(RewardConfig(**config))(written_tubes_of(texts, sample))
