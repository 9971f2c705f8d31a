"""From frames and a sentence to an interval and boxes: the whole path of one question, without an annotation.

`ground` asks one question; evaluation/predictor.py asks many by the same functions. Two switches: the decoder may look
at frames beside the text's interval too (`margin_sec`), and the interval may follow what it sees (`presence_trim`).

Shapes: B rows, F frames that the decoder looks at.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from data.answers import Answer, ParseFailure
from data.collate import collate_inputs
from data.encoding import EncodedPrompt, completion_text, encode_prompt, text_ids
from data.geometry import box_between, box_cxcywh_to_xyxy, boxes_in_pixels
from data.ragged_boxes import RaggedBoxes
from data.tubes import answer_frames, span_frames, with_margin
from data.types import BoxPx, DecodedClip, FrameSpan, GroundingSample
from data.written_answers import AnswerStyle, read_answers
from model.backbone import generate
from model.presence_trim import Trim, trim_span


@dataclass(frozen=True)
class Grounding:
    """An answer. span: half-open frames, None when the text is not an answer. boxes: by frame index, xyxy in pixels.

    trim: what became of the text's interval (model/presence_trim.py).
    """

    text: str
    span: tuple[int, int] | None
    boxes_xyxy_px: dict[int, BoxPx]
    trim: Trim = "off"


@dataclass(frozen=True)
class SeenFrames:
    """What the decoder says of some sampled frames of one row: positions among them, ascending; boxes; the probability
    that the target is there, NaN of a grounder that does not say it."""

    positions: list[int]
    boxes_xyxy_px: list[BoxPx]
    presence: list[float]

    def at(self, positions: np.ndarray) -> "SeenFrames":
        """Of these frames alone."""
        places = np.searchsorted(self.positions, positions).tolist()
        return SeenFrames(
            positions.tolist(), [self.boxes_xyxy_px[i] for i in places], [self.presence[i] for i in places]
        )

    def boxes_by_frame(self, prompt: EncodedPrompt) -> dict[int, BoxPx]:
        """By absolute frame."""
        return dict(zip(prompt.clip.frame_idx_T[self.positions].tolist(), self.boxes_xyxy_px, strict=True))


class Tube(NamedTuple):
    """span: None when the text is not an answer. boxes_xyxy_px: by frame index, inside of the span."""

    span: FrameSpan | None
    boxes_xyxy_px: dict[int, BoxPx]
    trim: Trim


def ground(
    model: Any,
    processor: Any,
    *,
    query: str,
    frames_THW3: np.ndarray,
    frame_idx_T: np.ndarray,
    fps: float,
    num_frames: int,
    max_new_tokens: int,
    answer: str | None = None,
    margin_sec: float = 0.0,
    presence_trim: float | None = None,
) -> Grounding:
    """frames_THW3: uint8 RGB, sampled from a clip of `num_frames` frames at indices frame_idx_T (ascending).

    answer: a text to decode boxes for; None lets the model write it. margin_sec, presence_trim: as in
    configs/evaluation.py. max_new_tokens: beside those of boxes that are written in the answer.
    """
    sample = _question(query, frames_THW3, fps=fps, num_frames=num_frames)
    clip = DecodedClip(frames_THW3, np.asarray(frame_idx_T), np.asarray(frame_idx_T) / fps)
    style = AnswerStyle.of(model.grounder.answer_format, model.config.prompt)
    prompt = encode_prompt(processor, sample, clip, order=model.config.prompt["prompt_order"], style=style)
    completion = _written(model, processor, prompt, max_new_tokens) if answer is None else text_ids(processor, answer)
    text = completion_text(processor, completion)
    read = read_answers([sample], [clip.frame_idx_T], [text], style)
    if read.boxes is not None:
        tube = written_tube(sample, read.answers[0], *written_boxes_px([sample], read.boxes))
    else:
        pad_id = processor.tokenizer.pad_token_id
        frames = answer_frames(sample, prompt, read.answers[0], margin_sec=margin_sec)
        (seen,) = decode_frames(model, [sample], [prompt], [completion], [frames], pad_id=pad_id)
        tube = answered_tube(sample, prompt, read.answers[0], seen, margin_sec=margin_sec, presence_trim=presence_trim)
    return Grounding(
        text=text,
        span=None if tube.span is None else (tube.span.start, tube.span.end),
        boxes_xyxy_px=tube.boxes_xyxy_px,
        trim=tube.trim,
    )


def _written(model: Any, processor: Any, prompt: EncodedPrompt, max_new_tokens: int) -> list[int]:
    """The model's own answer, greedy."""
    (completion,) = generate(
        model.mllm,
        [prompt],
        max_new_tokens=max_new_tokens + prompt.box_tokens,
        eos_id=processor.tokenizer.eos_token_id,
        banned_ids=model.banned_ids,
    )
    return completion


def _question(query: str, frames_THW3: np.ndarray, *, fps: float, num_frames: int) -> GroundingSample:
    height, width = frames_THW3.shape[1:3]
    return GroundingSample(
        sample_id="question",
        task="stvg",
        query=query,
        video_path="",
        fps=fps,
        width=width,
        height=height,
        clip=FrameSpan(0, num_frames),
    )


def answered_tube(
    sample: GroundingSample,
    prompt: EncodedPrompt,
    answer: Answer | ParseFailure,
    seen: SeenFrames,
    *,
    margin_sec: float,
    presence_trim: float | None,
) -> Tube:
    """The answer, from the text's interval and what was seen at the frames of `answer_frames`."""
    span, boxes, trim = span_frames(sample, answer), seen.boxes_by_frame(prompt), "off"
    if span is None or not boxes:
        return Tube(span, boxes, trim)
    if presence_trim is not None:
        if any(map(math.isnan, seen.presence)):
            raise ValueError(
                f"presence_trim={presence_trim}: the grounder does not say whether its target is present; expected none"
            )
        window, frame_idx_T = with_margin(sample, span, margin_sec), prompt.clip.frame_idx_T
        is_present = [probability >= presence_trim for probability in seen.presence]
        span, trim = trim_span(span, window, frame_idx_T, seen.positions, is_present, clip=sample.clip)
    return Tube(span, boxes_in_span(boxes, span), trim)


def boxes_in_span(boxes: Mapping[int, BoxPx], span: FrameSpan) -> dict[int, BoxPx]:
    """The boxes at frames of the span, since others do not count in a tube.

    At an end of the span between two frames with a box, the box between them. A box at no frame of the span is
    written at the end that is next to it where there is no other: a span between two sampled frames has a box too.
    """
    frames = sorted(boxes)
    inside = {frame: boxes[frame] for frame in frames if span.start <= frame < span.end}
    ends = [end for end in (span.start, span.end - 1) if end not in inside and frames[0] < end < frames[-1]]
    inside |= {end: box_between(boxes, frames, end) for end in ends}
    if inside:
        return dict(sorted(inside.items()))
    nearest = min(frames, key=lambda frame: max(span.start - frame, frame - span.end + 1))
    return {min(max(nearest, span.start), span.end - 1): boxes[nearest]}


def written_tube(sample: GroundingSample, answer: Answer | ParseFailure, boxes_xyxy_px: dict[int, BoxPx]) -> Tube:
    """The answer of a text that has its boxes, at absolute frames of the answered interval."""
    return Tube(span_frames(sample, answer), boxes_xyxy_px, "off")


def boxes_at(boxes: Mapping[int, BoxPx], frames: Sequence[int]) -> dict[int, BoxPx]:
    """A tube's boxes at any frames: between two boxes on the line between them, beyond the last one that one, as vIoU
    has it. None of an empty tube."""
    known = sorted(boxes)
    return {frame: box_between(boxes, known, frame) for frame in frames} if known else {}


def written_boxes_px(samples: Sequence[GroundingSample], boxes: RaggedBoxes) -> list[dict[int, BoxPx]]:
    """Boxes of texts, in [0, 1], by absolute frame for each sample, in pixels of its video."""
    sizes_B2 = np.array([(sample.width, sample.height) for sample in samples], dtype=np.float64)
    rows: list[dict[int, BoxPx]] = [{} for _ in samples]
    pixels_N4 = boxes_in_pixels(torch.from_numpy(boxes.boxes_N4), torch.from_numpy(sizes_B2[boxes.row_N]))
    for row, frame, box in zip(boxes.row_N.tolist(), boxes.frame_N.tolist(), pixels_N4.tolist(), strict=True):
        rows[row][frame] = box[0], box[1], box[2], box[3]
    return rows


def decode_frames(
    model: Any,
    samples: Sequence[GroundingSample],
    prompts: Sequence[EncodedPrompt],
    completions: Sequence[list[int]],
    frames: Sequence[np.ndarray],
    *,
    pad_id: int,
) -> list[SeenFrames]:
    """What the decoder says of each row's frames, given as positions, after the completion as it was written.

    Rows without frames do not go through the model.
    """
    rows = [b for b, chosen in enumerate(frames) if len(chosen)]
    seen = [SeenFrames([], [], []) for _ in frames]
    if not rows:
        return seen
    chosen = [frames[b].tolist() for b in rows]
    batch = collate_inputs(
        [prompts[b] for b in rows], [completions[b] for b in rows], chosen, num_queries=model.num_queries, pad_id=pad_id
    )
    with torch.inference_mode():
        grounding = model(**{name: tensor.to(model.device) for name, tensor in batch.items()}).grounding
    boxes_xyxy_BF4 = box_cxcywh_to_xyxy(grounding.boxes_cxcywh_NBF4[-1]).cpu()
    presence_BF = torch.full(boxes_xyxy_BF4.shape[:2], float("nan"))
    if len(grounding.presence_NBF):
        presence_BF = grounding.presence_NBF[-1].sigmoid().cpu()
    for b, positions, boxes_F4, presence_F in zip(rows, chosen, boxes_xyxy_BF4, presence_BF, strict=True):
        size_px = boxes_F4.new_tensor([samples[b].width, samples[b].height])
        pixels_F4 = boxes_in_pixels(boxes_F4[: len(positions)], size_px).tolist()
        boxes_px = [(left, top, right, bottom) for left, top, right, bottom in pixels_F4]
        seen[b] = SeenFrames(positions, boxes_px, presence_F[: len(positions)].tolist())
    return seen
