"""What the truth itself scores once it is written as a grounder writes it: the most that a perfect answer can have.

An interval of whole seconds, or boxes at some frames with lines between them, are not the annotated tube.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from configs.base import parse_config
from configs.data import DataConfig
from data.dataset import PromptEncoder
from data.frame_sampling import frames_in_span
from data.tube_indices import nearest_box
from data.tubes import span_frames
from data.types import BoxPx, FrameSpan, GroundingSample
from data.written_answers import AnswerStyle, read_answers, write_answer
from evaluation.metrics import Scores, score
from evaluation.predictions import Prediction
from model.answering import boxes_at, written_boxes_px
from model.grounders import grounder_class


def ceiling(samples: Sequence[GroundingSample], trained: Path, grounder: str) -> Scores:
    """Scores of the truth as a grounder writes it, with the frames that a run was shown. trained: its folder."""
    from transformers import AutoProcessor

    data = parse_config(DataConfig, yaml.safe_load((trained / "config.yaml").read_text())["data"], origin=str(trained))
    processor = AutoProcessor.from_pretrained(trained / "checkpoint" / "mllm")
    encoder = PromptEncoder(processor, data, answer_format=grounder_class(grounder).answer_format)
    return score(samples, [true_prediction(sample, encoder.frame_idx(sample), encoder.style) for sample in samples])


def true_prediction(sample: GroundingSample, frame_idx_T: np.ndarray, style: AnswerStyle) -> Prediction:
    """The prediction of a model that writes the true answer, and whose decoder, where it has one, is right at every frame.

    frame_idx_T: the frames that it was shown.
    """
    if sample.span is None:
        raise ValueError(f"sample {sample.sample_id!r} has no true span to be written")
    text = write_answer(sample, frame_idx_T, style)
    read = read_answers([sample], [frame_idx_T], [text], style)
    span = span_frames(sample, read.answers[0])
    if span is None:
        return Prediction(sample.sample_id, sample.query, text)
    if read.boxes is None:
        boxes, in_true_span = (_true_boxes(sample, frame_idx_T, asked) for asked in (span, sample.span))
    else:
        (boxes,) = written_boxes_px([sample], read.boxes)
        in_true_span = boxes_at(boxes, frame_idx_T[frames_in_span(frame_idx_T, sample.span)].tolist())
    return Prediction(
        sample.sample_id,
        sample.query,
        text,
        span=(span.start, span.end),
        boxes=boxes,
        boxes_in_true_span=in_true_span,
    )


def _true_boxes(sample: GroundingSample, frame_idx_T: np.ndarray, span: FrameSpan) -> dict[int, BoxPx]:
    return {frame: nearest_box(sample, frame) for frame in frame_idx_T[frames_in_span(frame_idx_T, span)].tolist()}
