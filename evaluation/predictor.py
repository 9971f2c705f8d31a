"""A checkpoint's answers to samples: text, and what is read from it: interval, letter, one box per sampled frame.

Two passes: the MLLM writes the answer (transformers or vLLM, greedy), then one forward with the bridging queries after
it gives boxes at the sampled frames of the predicted interval; where it has none, the box of the nearest one, written at
the end of the interval that is next to it. For the gt-conditioned metric alone, boxes at the frames of the
true interval are decoded too; nothing else sees them.

A sample whose video cannot be read, or whose prompt is too long, gets a prediction that says so and has no answer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from configs.evaluation import EvaluationConfig
from data.answers import Answer, Choice, InBox, ParseFailure, SpanSec, parse_answer
from data.dataset import PromptEncoder
from data.encoding import EncodedPrompt, completion_text
from data.frame_sampling import frames_in_span
from data.probing import on_clock_of, probe_video
from data.token_budget import PromptError
from data.tubes import answer_frames, span_frames
from data.types import BoxPx, FrameSpan, GroundingSample
from data.video import VideoDecodeError
from evaluation.predictions import PROMPT_FAILURE, VIDEO_FAILURE, Prediction
from model.answering import decode_boxes
from model.backbone import generate
from model.build import as_trained, load_checkpoint
from model.grounding_model import MLLM_FOLDER, GroundingModel

Generate = Callable[[list[EncodedPrompt]], list[list[int]]]


@dataclass(frozen=True)
class Question:
    """What the model is asked. sample: on the clock of its video, also where its annotation was in seconds alone."""

    sample: GroundingSample
    prompt: EncodedPrompt


@dataclass(frozen=True)
class Unasked:
    """A sample that was not asked about; `failure` as in Prediction."""

    failure: str


class Predictor:
    """Answers batches of samples with one model.

    max_prompt_tokens: a longer prompt is not asked; None asks any.
    """

    def __init__(
        self,
        model: GroundingModel,
        encoder: PromptEncoder,
        generate: Generate,
        *,
        max_prompt_tokens: int | None = None,
    ) -> None:
        self.model, self.encoder, self.generate = model, encoder, generate
        self.max_prompt_tokens = max_prompt_tokens

    def __call__(self, samples: Sequence[GroundingSample]) -> list[Prediction]:
        """One prediction for each sample."""
        return self.answer(samples, self.encode(samples))

    def encode(self, samples: Sequence[GroundingSample]) -> list[Question | Unasked]:
        """Read the videos and write the prompts; needs no model, so it may run in another thread than `answer`."""
        return [self._encode(sample) for sample in samples]

    def _encode(self, sample: GroundingSample) -> Question | Unasked:
        try:
            sample = sample if sample.is_probed else _on_clock_of_its_video(sample)
            prompt = self.encoder(sample)
        except VideoDecodeError as error:
            return Unasked(f"{VIDEO_FAILURE}: {error.cause}")
        except PromptError as error:
            return Unasked(f"{PROMPT_FAILURE}: {error.cause}")
        length = len(prompt.input_ids_L)
        if self.max_prompt_tokens is not None and length > self.max_prompt_tokens:
            return Unasked(f"{PROMPT_FAILURE}: {length} tokens, the engine takes {self.max_prompt_tokens}")
        return Question(sample, prompt)

    def answer(self, samples: Sequence[GroundingSample], questions: Sequence[Question | Unasked]) -> list[Prediction]:
        """One prediction for each sample; the model answers those that can be asked."""
        asked = [question for question in questions if isinstance(question, Question)]
        answered = iter(self._answer([q.sample for q in asked], [q.prompt for q in asked]) if asked else [])
        return [
            Prediction(sample.sample_id, sample.query, failure=question.failure, task=sample.task)
            if isinstance(question, Unasked)
            else next(answered)
            for sample, question in zip(samples, questions, strict=True)
        ]

    def _answer(self, samples: list[GroundingSample], prompts: list[EncodedPrompt]) -> list[Prediction]:
        completions = self.generate(prompts)
        texts = [completion_text(self.encoder.processor, ids) for ids in completions]
        answers = [parse_answer(sample, text) for sample, text in zip(samples, texts, strict=True)]
        asked = [_answered_frames(*row) for row in zip(samples, prompts, answers, strict=True)]
        true = [_true_frames(sample, prompt) for sample, prompt in zip(samples, prompts, strict=True)]
        frames = [np.union1d(a, b) for a, b in zip(asked, true, strict=True)]
        boxes_of_row = self._boxes(prompts, completions, frames)
        return [
            _prediction(sample, prompt, text, answer, [frames[b], asked[b], true[b]], boxes_of_row[b])
            for b, (sample, prompt, text, answer) in enumerate(zip(samples, prompts, texts, answers, strict=True))
        ]

    def _boxes(
        self, prompts: list[EncodedPrompt], completions: list[list[int]], frames: list[np.ndarray]
    ) -> list[Tensor]:
        """Boxes xyxy in [0, 1] of each row's frames, [F, 4]; rows without frames do not go through the model."""
        rows = [b for b, chosen in enumerate(frames) if len(chosen)]
        boxes_of_row = [torch.empty(0, 4) for _ in frames]
        if rows:
            boxes_RF4 = decode_boxes(
                self.model,
                [prompts[b] for b in rows],
                [completions[b] for b in rows],
                [frames[b].tolist() for b in rows],
                pad_id=self.encoder.processor.tokenizer.pad_token_id,
            )
            for b, boxes_F4 in zip(rows, boxes_RF4, strict=True):
                boxes_of_row[b] = boxes_F4
        return boxes_of_row


def _on_clock_of_its_video(sample: GroundingSample) -> GroundingSample:
    """Without its true span, which an answer does not need and which may lie past the file. Raises VideoDecodeError."""
    return on_clock_of(replace(sample, span=None), _probe_video(sample.video_path))


# Sentences about one video follow each other.
_probe_video = lru_cache(maxsize=64)(probe_video)


def _answered_frames(sample: GroundingSample, prompt: EncodedPrompt, answer: Answer | ParseFailure) -> np.ndarray:
    """Positions of the sampled frames that the answer has boxes at."""
    if isinstance(answer, InBox):
        return np.arange(len(prompt.clip.frame_idx_T))
    if sample.task != "stvg":
        return np.empty(0, dtype=np.int64)
    return answer_frames(sample, prompt, answer)


def _true_frames(sample: GroundingSample, prompt: EncodedPrompt) -> np.ndarray:
    if sample.span is None or sample.task not in ("stvg", "rec"):
        return np.empty(0, dtype=np.int64)
    return frames_in_span(prompt.clip.frame_idx_T, sample.span)


def _prediction(
    sample: GroundingSample,
    prompt: EncodedPrompt,
    text: str,
    answer: Answer | ParseFailure,
    positions: list[np.ndarray],
    boxes_F4: Tensor,
) -> Prediction:
    decoded, asked, true = positions
    scale = boxes_F4.new_tensor([sample.width, sample.height, sample.width, sample.height])
    boxes_px = {int(prompt.clip.frame_idx_T[t]): _as_box(boxes_F4[f] * scale) for f, t in enumerate(decoded.tolist())}
    span = span_frames(sample, answer)

    def at(positions: np.ndarray) -> dict[int, BoxPx]:
        return {int(frame): boxes_px[int(frame)] for frame in prompt.clip.frame_idx_T[positions]}

    return Prediction(
        sample_id=sample.sample_id,
        query=sample.query,
        text=text,
        failure=_failure(sample, answer),
        span=None if span is None else (span.start, span.end),
        boxes=_into_span(at(asked), span),
        boxes_in_true_span=at(true),
        task=sample.task,
        span_sec=(answer.start_sec, answer.end_sec) if isinstance(answer, SpanSec) else None,
        choice=answer.letter if isinstance(answer, Choice) else None,
    )


def _into_span(boxes: dict[int, BoxPx], span: FrameSpan | None) -> dict[int, BoxPx]:
    """The one box of a span between two sampled frames (frames_in_span), at a frame inside, as others would not count."""
    return boxes if span is None else {min(max(frame, span.start), span.end - 1): box for frame, box in boxes.items()}


def _failure(sample: GroundingSample, answer: Answer | ParseFailure) -> str:
    if isinstance(answer, ParseFailure):
        return answer.reason
    if isinstance(answer, SpanSec) and span_frames(sample, answer) is None:
        return "outside the clip"
    if isinstance(answer, Choice) and ord(answer.letter) - ord("A") >= len(sample.options):
        return "not an option"
    return ""


def _as_box(box_4: Tensor) -> BoxPx:
    left, top, right, bottom = (round(float(value), 6) for value in box_4)
    return left, top, right, bottom


def make_predictor(config: EvaluationConfig) -> Predictor:
    """Model, encoder and generator of a checkpoint, asked the way it was trained."""
    model, processor = load_checkpoint(config.checkpoint, dtype=config.dtype)
    if torch.cuda.is_available():
        torch.nn.Module.cuda(model)
    encoder = PromptEncoder(processor, as_trained(config.data, model.config))
    if config.engine == "vllm":
        longest = config.max_model_len - config.max_completion_length
        return Predictor(model, encoder, _vllm_generate(config, model, processor), max_prompt_tokens=longest)
    generate = transformers_generate(model, processor, max_completion_length=config.max_completion_length)
    return Predictor(model, encoder, generate)


def transformers_generate(
    model: GroundingModel, processor: Any, *, max_completion_length: int, temperature: float = 0.0
) -> Generate:
    """Answers by transformers, in this process; greedy at temperature 0."""
    return lambda prompts: generate(
        model.mllm,
        prompts,
        max_new_tokens=max_completion_length,
        eos_id=processor.tokenizer.eos_token_id,
        banned_ids=model.banned_ids,
        temperature=temperature,
    )


def _vllm_generate(config: EvaluationConfig, model: GroundingModel, processor: Any) -> Generate:
    from evaluation.vllm_engine import SamplingArgs, VllmEngine

    folder = str(Path(config.checkpoint) / MLLM_FOLDER)
    engine = VllmEngine(folder, max_model_len=config.max_model_len, dtype=config.dtype)
    args = SamplingArgs(
        num_generations=1,
        temperature=0.0,
        max_completion_length=config.max_completion_length,
        eos_id=processor.tokenizer.eos_token_id,
        banned_ids=tuple(model.banned_ids),
    )

    def generate(prompts: list[EncodedPrompt]) -> list[list[int]]:
        groups = engine.generate(prompts, args, seeds=[config.seed] * len(prompts), version=0)
        return [group[0].completion_ids for group in groups]

    return generate
