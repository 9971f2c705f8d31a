"""A checkpoint's answers to samples: text, interval, one box per sampled frame.

Two passes: the MLLM writes the answer (transformers or vLLM, greedy), then one forward with the bridging queries after
it gives boxes at the frames of the predicted interval. For the gt-conditioned metric alone, boxes at the frames of the
true interval are decoded too; nothing else sees them.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from tqdm import tqdm

from configs.checkpoints import write_atomically
from data.answers import Answer, ParseFailure, parse_answer
from data.dataset import PromptEncoder
from data.encoding import EncodedPrompt, completion_text
from data.frame_sampling import frames_in_span
from data.tubes import answer_frames, span_frames
from data.types import BoxPx, GroundingSample
from evaluation.predictions import Prediction, prediction_line, read_predictions
from model.answering import decode_boxes
from model.backbone import generate
from model.grounding_model import GroundingModel

Generate = Callable[[list[EncodedPrompt]], list[list[int]]]


class Predictor:
    """Answers batches of samples with one model."""

    def __init__(self, model: GroundingModel, encoder: PromptEncoder, generate: Generate) -> None:
        self.model, self.encoder, self.generate = model, encoder, generate

    def __call__(self, samples: Sequence[GroundingSample]) -> list[Prediction]:
        prompts = [self.encoder(sample) for sample in samples]
        completions = self.generate(prompts)
        texts = [completion_text(self.encoder.processor, ids) for ids in completions]
        answers = [parse_answer(sample, text) for sample, text in zip(samples, texts, strict=True)]
        asked = [answer_frames(*row) for row in zip(samples, prompts, answers, strict=True)]
        true = [_true_frames(sample, prompt) for sample, prompt in zip(samples, prompts, strict=True)]
        frames = [np.union1d(a, b) for a, b in zip(asked, true, strict=True)]
        pad_id = self.encoder.processor.tokenizer.pad_token_id
        boxes_BF4 = decode_boxes(self.model, prompts, completions, [row.tolist() for row in frames], pad_id=pad_id)
        return [
            _prediction(sample, prompt, text, answer, [frames[b], asked[b], true[b]], boxes_BF4[b])
            for b, (sample, prompt, text, answer) in enumerate(zip(samples, prompts, texts, answers, strict=True))
        ]


def _true_frames(sample: GroundingSample, prompt: EncodedPrompt) -> np.ndarray:
    if sample.span is None:
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
        failure=_failure(answer, span is None),
        span=None if span is None else (span.start, span.end),
        boxes=at(asked),
        boxes_in_true_span=at(true),
    )


def _failure(answer: Answer | ParseFailure, is_empty: bool) -> str:
    if isinstance(answer, ParseFailure):
        return answer.reason
    return "outside the clip" if is_empty else ""


def _as_box(box_4: Tensor) -> BoxPx:
    left, top, right, bottom = (round(float(value), 6) for value in box_4)
    return left, top, right, bottom


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


def predict_all(
    predictor: Predictor, samples: Sequence[GroundingSample], path: Path, *, batch_size: int, title: str
) -> list[Prediction]:
    """Predictions in the order of the samples, written to `path` batch by batch: a killed run goes on after them."""
    aside = path.with_name(f".partial-{path.name}")
    if path.exists():
        return read_predictions(path)
    if aside.exists():  # without the line or the batch that was being written
        whole = [line for line in aside.read_text().splitlines(keepends=True) if line.endswith("\n")]
        write_atomically(aside, "".join(whole[: len(whole) - len(whole) % batch_size]))
    done = len(read_predictions(aside)) if aside.exists() else 0
    with tqdm(total=len(samples), initial=done, desc=title, unit="sample") as bar, aside.open("a") as stream:
        for start in range(done, len(samples), batch_size):
            predictions = predictor(samples[start : start + batch_size])
            stream.writelines(map(prediction_line, predictions))
            stream.flush()
            bar.update(len(predictions))
    aside.rename(path)
    return read_predictions(path)


def with_wrong_queries(samples: Sequence[GroundingSample], *, seed: int) -> list[GroundingSample]:
    """Every video with the query of another sample, drawn among the differing ones: the control for reading it."""
    rng = np.random.default_rng([seed, 7])
    queries = [sample.query for sample in samples]
    if len(set(queries)) < 2:
        raise ValueError("the wrong-query control needs at least two different queries")
    wrong = []
    for sample in samples:
        others = [query for query in queries if query != sample.query]
        wrong.append(replace(sample, query=str(rng.choice(others))))
    return wrong
