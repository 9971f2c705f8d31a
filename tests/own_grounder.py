"""Grounders that are not among ours."""

from collections.abc import Mapping
from typing import Any, Self

from torch import Tensor

from data.collate import Batch
from model.backbone import LLMStates
from model.grounder import Grounder, GrounderOutput
from model.interleaved_grounder import InterleavedGrounder
from model.vision_features import VisionFeatures


class Mine(InterleavedGrounder):
    """The same under another name."""


class Varied(Mine):
    """Hands on whatever it is given."""

    def __init__(self, *args: Any, width: int, **kwargs: Any) -> None:
        super().__init__(*args, width=width, **kwargs)


class Bare(Grounder):
    """No constructor, so no arguments."""

    @classmethod
    def build(cls, mllm: Any, args: Mapping[str, Any]) -> Self:
        """Of nothing."""
        return cls(**args)

    def query_embeddings(self, batch: Batch) -> Tensor:
        """Not asked for."""
        raise NotImplementedError

    def forward(self, states: LLMStates, vision: VisionFeatures, batch: Batch) -> GrounderOutput:
        """Not asked for."""
        raise NotImplementedError
