"""A checkpoint's answers to samples: text, and what is read from it: interval, letter, one box per sampled frame.

Two passes: the MLLM writes the answer (transformers or vLLM, greedy), then one forward with the bridging queries after
it gives boxes at the sampled frames of the predicted interval; where it has none, the box of the nearest one, written at
the end of the interval that is next to it. What a margin and the presence of the target change is in
model/answering.py. For the gt-conditioned metric alone, boxes at the frames of the true interval are decoded too;
nothing else sees them.

A sample whose video cannot be read, or whose prompt is too long, gets a prediction that says so and has no answer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from configs.base import ConfigError
from configs.evaluation import AnsweringConfig, EvaluationConfig
from data.answers import Answer, Choice, ParseFailure, SpanSec
from data.dataset import PromptEncoder
from data.encoding import EncodedPrompt, completion_text
from data.frame_sampling import frames_in_span
from data.probing import on_clock_of, probe_video
from data.token_budget import PromptError
from data.tubes import answer_frames, span_frames
from data.types import BoxPx, GroundingSample
from data.video import VideoDecodeError
from data.written_answers import read_answers
from evaluation.predictions import PROMPT_FAILURE, VIDEO_FAILURE, Prediction
from model.answering import (
    Tube,
    answered_tube,
    boxes_at,
    decode_frames,
    written_boxes_px,
    written_tube,
)
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

    max_prompt_tokens: a longer prompt is not asked; None asks any. answering: None is its defaults. Raises ConfigError for
    others where boxes are in the text.
    """

    def __init__(
        self,
        model: GroundingModel,
        encoder: PromptEncoder,
        generate: Generate,
        *,
        max_prompt_tokens: int | None = None,
        answering: AnsweringConfig | None = None,
    ) -> None:
        self.model, self.encoder, self.generate = model, encoder, generate
        self.max_prompt_tokens = max_prompt_tokens
        self.answering = answering or AnsweringConfig()
        if model.grounder.writes_boxes and self.answering != AnsweringConfig():
            raise ConfigError(f"answering: the boxes are in the text, no decoder looks at frames; got {self.answering}")
        if self.answering.presence_trim is not None and not model.grounder.tells_presence:
            raise ConfigError(
                "answering.presence_trim: the grounder does not say in which frames its target is; expected null"
            )

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
        if self.max_prompt_tokens is not None and length > self.max_prompt_tokens - prompt.box_tokens:
            longest = self.max_prompt_tokens - prompt.box_tokens
            return Unasked(f"{PROMPT_FAILURE}: {length} tokens, the engine takes {longest}")
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
        predictions = self._read(samples, prompts, completions)
        return [replace(made, num_tokens=len(ids)) for made, ids in zip(predictions, completions, strict=True)]

    def _read(
        self, samples: list[GroundingSample], prompts: list[EncodedPrompt], completions: list[list[int]]
    ) -> list[Prediction]:
        texts = [completion_text(self.encoder.processor, ids) for ids in completions]
        read = read_answers(samples, [prompt.clip.frame_idx_T for prompt in prompts], texts, self.encoder.style)
        if read.boxes is not None:
            return _written_predictions(samples, prompts, texts, read.answers, written_boxes_px(samples, read.boxes))
        answers = read.answers
        margin_sec, presence_trim = self.answering.margin_sec, self.answering.presence_trim
        asked = [answer_frames(*row, margin_sec=margin_sec) for row in zip(samples, prompts, answers, strict=True)]
        true = [_true_frames(sample, prompt) for sample, prompt in zip(samples, prompts, strict=True)]
        frames = [np.union1d(a, b) for a, b in zip(asked, true, strict=True)]
        pad_id = self.encoder.processor.tokenizer.pad_token_id
        seen = decode_frames(self.model, samples, prompts, completions, frames, pad_id=pad_id)
        predictions = []
        for b, (sample, prompt, text, answer) in enumerate(zip(samples, prompts, texts, answers, strict=True)):
            of_answer, of_truth = seen[b].at(asked[b]), seen[b].at(true[b])
            tube = answered_tube(sample, prompt, answer, of_answer, margin_sec=margin_sec, presence_trim=presence_trim)
            predictions.append(_prediction(sample, text, answer, tube, of_truth.boxes_by_frame(prompt)))
        return predictions


def _written_predictions(
    samples: list[GroundingSample],
    prompts: list[EncodedPrompt],
    texts: list[str],
    answers: list[Answer | ParseFailure],
    boxes_px: list[dict[int, BoxPx]],
) -> list[Prediction]:
    """Of texts that have their boxes. In the true interval these are what the tube says there, held beyond its ends."""
    predictions = []
    for sample, prompt, text, answer, boxes in zip(samples, prompts, texts, answers, boxes_px, strict=True):
        true = prompt.clip.frame_idx_T[_true_frames(sample, prompt)].tolist()
        tube = written_tube(sample, answer, boxes)
        predictions.append(_prediction(sample, text, answer, tube, boxes_at(boxes, true)))
    return predictions


def _on_clock_of_its_video(sample: GroundingSample) -> GroundingSample:
    """Without its true span, which an answer does not need and which may lie past the file. Raises VideoDecodeError."""
    return on_clock_of(replace(sample, span=None), _probe_video(sample.video_path))


# Sentences about one video follow each other.
_probe_video = lru_cache(maxsize=64)(probe_video)


def _true_frames(sample: GroundingSample, prompt: EncodedPrompt) -> np.ndarray:
    if sample.span is None or sample.task not in ("stvg", "rec"):
        return np.empty(0, dtype=np.int64)
    return frames_in_span(prompt.clip.frame_idx_T, sample.span)


def _prediction(
    sample: GroundingSample, text: str, answer: Answer | ParseFailure, tube: Tube, in_true_span: dict[int, BoxPx]
) -> Prediction:
    return Prediction(
        sample_id=sample.sample_id,
        query=sample.query,
        text=text,
        failure=_failure(sample, answer),
        span=None if tube.span is None else (tube.span.start, tube.span.end),
        boxes=_rounded(tube.boxes_xyxy_px),
        boxes_in_true_span=_rounded(in_true_span),
        task=sample.task,
        span_sec=(answer.start_sec, answer.end_sec) if isinstance(answer, SpanSec) else None,
        choice=answer.letter if isinstance(answer, Choice) else None,
        trim=tube.trim,
    )


def _failure(sample: GroundingSample, answer: Answer | ParseFailure) -> str:
    if isinstance(answer, ParseFailure):
        return answer.reason
    if isinstance(answer, SpanSec) and span_frames(sample, answer) is None:
        return "outside the clip"
    if isinstance(answer, Choice) and ord(answer.letter) - ord("A") >= len(sample.options):
        return "not an option"
    return ""


def _rounded(boxes: dict[int, BoxPx]) -> dict[int, BoxPx]:
    """To a millionth of a pixel."""
    return {
        frame: (round(left, 6), round(top, 6), round(right, 6), round(bottom, 6))
        for frame, (left, top, right, bottom) in boxes.items()
    }


def make_predictor(config: EvaluationConfig) -> Predictor:
    """Model, encoder and generator of a checkpoint, asked the way it was trained."""
    model, processor = load_checkpoint(config.checkpoint, dtype=config.dtype)
    if torch.cuda.is_available():
        torch.nn.Module.cuda(model)
    if config.constrained_decoding and not model.grounder.writes_boxes:
        raise ConfigError(
            f"constrained_decoding: {config.checkpoint} writes no boxes, there is no grammar for its answers"
        )
    data, answer_format = as_trained(config.data, model.config), model.grounder.answer_format
    encoder = PromptEncoder(processor, data, answer_format=answer_format)
    if config.engine == "vllm":
        longest = config.max_model_len - config.max_completion_length
        generate = _vllm_generate(config, model, processor)
        return Predictor(model, encoder, generate, max_prompt_tokens=longest, answering=config.answering)
    generate = transformers_generate(model, processor, max_completion_length=config.max_completion_length)
    return Predictor(model, encoder, generate, answering=config.answering)


def transformers_generate(
    model: GroundingModel, processor: Any, *, max_completion_length: int, temperature: float = 0.0
) -> Generate:
    """Answers by transformers, in this process; greedy at temperature 0."""
    return lambda prompts: generate(
        model.mllm,
        prompts,
        max_new_tokens=max_completion_length + max(prompt.box_tokens for prompt in prompts),
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
        constrained=config.constrained_decoding,
    )

    def generate(prompts: list[EncodedPrompt]) -> list[list[int]]:
        groups = engine.generate(prompts, args, seeds=[config.seed] * len(prompts), version=0)
        return [group[0].completion_ids for group in groups]

    return generate
