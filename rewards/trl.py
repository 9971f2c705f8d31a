"""Our rewards as TRL's GRPOTrainer calls them, for training that is not ours:

    rows = Dataset.from_parquet("prepared/data/train.parquet").map(lambda row: {"prompt": ...})
    GRPOTrainer(model, reward_funcs=[as_reward_func("format"), as_reward_func("temporal")], train_dataset=rows)

TRL (1.16, `GRPOTrainer._calculate_rewards`) hands a function the texts of the completions and the columns of the data set,
one value for each completion. The columns that are wanted here are those of data/parquet.py. There is no decoder and thus no
box but a written one: with answers of `answer_format: span`, viou, spatial and gated are refused.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from configs.base import ConfigError
from configs.rewards import PRESETS, WRITTEN_TERMS, RewardConfig
from data.parquet import SCHEMA, from_table
from data.ragged_boxes import RaggedBoxes
from data.tubes import TubeBatch, tube_batch
from data.types import GroundingSample
from data.written_answers import AnswerStyle, read_answers, written_beside_truth
from rewards.composer import RewardComposer
from rewards.terms import TERMS

RewardFunc = Callable[..., list[float | None]]
BOX_TERMS = frozenset({"viou", "spatial", "gated", *WRITTEN_TERMS})
"""Terms of boxes; where boxes are not written, the spatial decoder's."""


def as_reward_func(reward: str | RewardConfig, *, style: AnswerStyle | None = None) -> RewardFunc:
    """A term of rewards/terms.py, a preset, or a whole config, as `(prompts, completions, completion_ids, **columns) -> [B]`.

    A term is its raw value, 0 for a failed answer, to be weighed by GRPOConfig.reward_weights; a preset or config the
    weighted sum. style: how answers are written, with boxes in them or (the default) without. TRL logs it under its name.
    Raises ConfigError for names that are none, and for rewards of boxes that no text has.
    """
    style = style or AnswerStyle()
    if style.has_boxes and style.tube_unit == "frames":
        raise ConfigError(
            "tube_unit: expected seconds, since TRL does not say which frames the model was shown; got frames"
        )
    name, score = _named_score(reward, style)

    def reward_func(
        prompts: Sequence[Any], completions: Sequence[Any], completion_ids: Any = None, **columns: Any
    ) -> list[float | None]:
        samples = samples_of_columns(columns)
        return score(tubes_of_texts(samples, [completion_text(one) for one in completions], style)).tolist()

    reward_func.__name__ = name
    return reward_func


def _named_score(reward: str | RewardConfig, style: AnswerStyle) -> tuple[str, Callable[[TubeBatch], Tensor]]:
    if isinstance(reward, str) and reward in TERMS:
        _check_boxes([reward], style)
        term = TERMS[reward]
        return reward, lambda tubes: torch.where(tubes.parsed_B, term(tubes), 0.0)
    if isinstance(reward, str) and reward not in PRESETS:
        raise ConfigError(
            f"expected a term ({', '.join(TERMS)}), a preset ({', '.join(PRESETS)}) or a RewardConfig; got {reward!r}"
        )
    config = RewardConfig.model_validate({"preset": reward}) if isinstance(reward, str) else reward
    weights = config.weights.model_dump()
    _check_boxes([name for name in weights if weights[name] > 0 or name in config.gates.values()], style)
    composer = RewardComposer(config)
    return reward if isinstance(reward, str) else "reward", lambda tubes: composer(tubes).total_B


def _check_boxes(terms: Sequence[str], style: AnswerStyle) -> None:
    if not style.has_boxes and (boxes := [term for term in terms if term in BOX_TERMS]):
        raise ConfigError(
            f"{', '.join(boxes)}: TRL hands over text, and with answer_format=span boxes come from the spatial decoder; "
            f"expected other terms, or answers with boxes in them (answer_format=tube)"
        )


def samples_of_columns(columns: dict[str, Any]) -> list[GroundingSample]:
    """Rows of data/parquet.py; rows with one sample_id share a sample. Raises ValueError, naming a missing column."""
    known = [name for name in SCHEMA.names if name in columns]
    if "sample_id" not in known:
        raise ValueError(f"expected the columns of data/parquet.py in the data set, got {sorted(columns)}")
    row_of_id = {sample_id: row for row, sample_id in enumerate(columns["sample_id"])}
    rows = list(row_of_id.values())
    table = pa.table({n: pa.array([columns[n][row] for row in rows], type=SCHEMA.field(n).type) for n in known})
    by_id = dict(zip(row_of_id, from_table(table), strict=True))
    return [by_id[sample_id] for sample_id in columns["sample_id"]]


def completion_text(completion: Any) -> str:
    """A completion is a text, or in conversations a list of messages, of which the last is the answer."""
    return completion if isinstance(completion, str) else completion[-1]["content"]


def tubes_of_texts(samples: Sequence[GroundingSample], texts: Sequence[str], style: AnswerStyle) -> TubeBatch:
    """What the texts say beside the truth; without written boxes, no box counts.

    Raises ValueError for a rec sample where boxes are not written.
    """
    if not style.has_boxes and (images := [sample.sample_id for sample in samples if sample.task == "rec"]):
        raise ValueError(f"the boxes of rec samples come from the spatial decoder, not from text: {images[:5]}")
    shown = [np.arange(sample.clip.start, sample.clip.end) for sample in samples]
    read = read_answers(samples, shown, texts, style)
    nothing_N = np.empty(0, dtype=np.int64)
    boxes = read.boxes or RaggedBoxes(nothing_N, nothing_N, np.empty((0, 4)), len(samples))
    return tube_batch(samples, read.answers, *boxes.padded(), written=written_beside_truth(read, samples, shown, style))
