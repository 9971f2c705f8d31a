"""Evaluation of one checkpoint on one split, with its controls."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from configs.base import Config
from configs.data import DataConfig


class AnsweringConfig(Config):
    """How the boxes' decoder takes part in the answered interval of an stvg sample; by default it does not."""

    margin_sec: Annotated[float, Field(ge=0)] = 0.0
    """The decoder also looks at sampled frames up to so far outside of the text's interval. By itself that moves
    the boxes at the interval's ends alone, which then lie between two boxes; with `presence_trim` the interval may grow."""
    presence_trim: Annotated[float, Field(gt=0, lt=1)] | None = None
    """A probability: the interval becomes the longest run of looked-at frames in which the decoder believes the target to
    be present at least so much. Where no frame is, the text's interval stays, and is counted. None: the text's."""


class EvaluationConfig(Config):
    """`python -m evaluation.run --config configs/demo/evaluate.yaml checkpoint=outputs/demo/sft/checkpoint`.

    `evaluation.predict` takes the same and leaves the scores out.
    """

    checkpoint: str
    """Checkpoint folder, or an export."""
    out: str
    """Folder for predictions.jsonl, predictions_wrong_query.jsonl, metrics.json and report.md. Predictions in it that were
    made with the same config, weights and questions are gone on from, others are removed."""
    data: DataConfig
    split: str = "test"
    max_samples: Annotated[int, Field(ge=1)] | None = None
    """Only the first samples of the split; None takes all."""
    batch_size: Annotated[int, Field(ge=1)] = 8
    engine: Literal["transformers", "vllm"] = "transformers"
    """Who writes the answers; greedy in both."""
    constrained_decoding: bool = False
    """With engine=vllm and the grounder `text`: the engine draws only what the grammar of a written tube or box allows, with
    no more boxes than the clip has indices. An interval may still be reversed, indices out of order, corners swapped."""
    max_completion_length: Annotated[int, Field(ge=4)] = 32
    """Tokens, beside those of boxes written in the answer (data/completion_budget.py)."""
    max_model_len: Annotated[int, Field(ge=64)] = 8192
    """Of the vLLM engine; a prompt that leaves no room for `max_completion_length` is a failure, and counted."""
    answering: AnsweringConfig = AnsweringConfig()
    wrong_query: bool = True
    """Also answer each video with the query of another sample of its task."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    num_resamples: Annotated[int, Field(ge=100)] = 2000
    """Bootstrap resamples of the 95 % intervals."""
    seed: int = 0

    @model_validator(mode="after")
    def _constrained_by_vllm(self) -> "EvaluationConfig":
        if self.constrained_decoding and self.engine != "vllm":
            raise ValueError(f"constrained_decoding: needs engine=vllm, got {self.engine}")
        return self


class MatchedEntropyConfig(Config):
    """`python -m evaluation.matched_entropy --config configs/demo/matched_entropy.yaml`."""

    reference: str
    """Checkpoint folder of the policy before GRPO."""
    refined: str
    """Checkpoint folder after it."""
    out: str
    """Folder for matched_entropy.json."""
    data: DataConfig
    split: str = "test"
    max_samples: Annotated[int, Field(ge=2)] | None = None
    batch_size: Annotated[int, Field(ge=1)] = 64
    max_completion_length: Annotated[int, Field(ge=4)] = 32
    temperature: Annotated[float, Field(gt=0, le=2)] = 1.0
    """Of the refined policy; the reference's follows from the entropy."""
    tolerance: Annotated[float, Field(gt=0)] = 0.005
    """How close the two entropies have to be, in nats per token."""
    max_tries: Annotated[int, Field(ge=1)] = 10
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    num_resamples: Annotated[int, Field(ge=100)] = 2000
    seed: int = 0
