"""Videos that cannot be read while a run trains: their rows keep their place and add nothing.

The row of such a video has a black clip of the annotated size, so that batches have the shapes that they would have had and
all ranks do the same, and every mask of its targets is empty: each loss is a sum over masks divided by what the masks of the
whole step keep, so loss and gradient are those of the step without the row.
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from configs.data import DataConfig
from data.collate import Batch
from data.dataset import PromptEncoder, SupervisedCollator, TrainingRow
from data.encoding import EncodedPrompt, encode_prompt
from data.types import DecodedClip, GroundingSample
from data.video import VideoDecodeError
from data.written_answers import AnswerFormat

logger = logging.getLogger("data.unreadable")
Cause = Literal["missing", "undecodable"]
"""No such file; a file that does not give the frames that the annotation asks for."""
CAUSES: tuple[Cause, ...] = get_args(Cause)
UNREADABLE = "target_unreadable"
"""Of a batch: for each row 0, or 1 + the number of its cause among CAUSES; [B]."""


@dataclass(frozen=True)
class BlankPrompt(EncodedPrompt):
    """The prompt of a video that could not be read, with black frames."""

    cause: Cause = field(kw_only=True)


class SkippingEncoder(PromptEncoder):
    """PromptEncoder that gives a BlankPrompt instead of raising VideoDecodeError; each file is named in the log once."""

    def __init__(self, processor: Any, data: DataConfig, *, answer_format: AnswerFormat = "span") -> None:
        super().__init__(processor, data, answer_format=answer_format)
        self._named: set[str] = set()

    def __call__(self, sample: GroundingSample) -> EncodedPrompt:
        """Raises PromptError for a prompt above the token budget."""
        try:
            return super().__call__(sample)
        except VideoDecodeError as error:
            if error.path not in self._named:
                self._named.add(error.path)
                logger.warning("skipped in training: %s", error)
            return self._blank(sample, "undecodable" if Path(error.path).is_file() else "missing")

    def _blank(self, sample: GroundingSample, cause: Cause) -> BlankPrompt:
        frame_idx_T = self.frame_idx(sample)
        black_THW3 = np.zeros((len(frame_idx_T), sample.height, sample.width, 3), dtype=np.uint8)
        clip = DecodedClip(black_THW3, frame_idx_T, (frame_idx_T - sample.clip.start) / sample.fps)
        prompt = encode_prompt(self.processor, sample, clip, order=self.data.prompt.prompt_order, style=self.style)
        return BlankPrompt(**vars(prompt), cause=cause)


class SkippingCollator(SupervisedCollator):
    """SupervisedCollator whose batches have `target_unreadable`, and no targets in those rows."""

    def __call__(self, items: list[dict[str, list[TrainingRow]]]) -> Batch:
        prompts = [row.prompt for item in items for row in item["rows"]]
        codes = [1 + CAUSES.index(prompt.cause) if isinstance(prompt, BlankPrompt) else 0 for prompt in prompts]
        return without_targets(super().__call__(items), torch.tensor(codes))


def without_targets(batch: Batch, unreadable_B: torch.Tensor) -> Batch:
    """The batch with empty masks in the rows with a cause: of the scored tokens and of everything that losses compare with."""
    masks = [name for name in batch if name == "score_mask" or (name.startswith("target_") and name.endswith("_mask"))]
    emptied = {name: torch.where(unreadable_B[:, None] > 0, 0, batch[name]).to(batch[name].dtype) for name in masks}
    return batch | emptied | {UNREADABLE: unreadable_B}
