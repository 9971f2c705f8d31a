"""The `text` grounder (STVG-o1, 2511.21375): no module of its own, the boxes are in the text of the answer.

data/tube_text.py has the grammar; data/written_answers.py reads boxes out of it. All that is trained is the MLLM.
"""

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor

from model.backbone import LLMStates, VisionFeatures
from model.grounder import Batch, Grounder, GrounderOutput


class TextGrounder(Grounder):
    """Nothing after the answer, and no parameters."""

    answer_format = "tube"
    reward_terms = frozenset({"format", "temporal", "spatial", "viou", "gated", "consistency", "both_spatial", "think"})
    writes_boxes = True

    def __init__(self, *, llm_width: int, temporal_patch_size: int) -> None:
        super().__init__()
        self.llm_width, self.temporal_patch_size = llm_width, temporal_patch_size

    @classmethod
    def build(cls, mllm: Any, args: Mapping[str, Any]) -> Self:
        """For the backbone's sizes; it takes no arguments."""
        return cls(
            llm_width=mllm.config.text_config.hidden_size,
            temporal_patch_size=mllm.config.vision_config.temporal_patch_size,
            **args,
        )

    def query_embeddings(self, batch: Batch) -> Tensor:
        """None, [0, D]."""
        return batch["frame_time_sec"].new_empty(0, self.llm_width)

    def forward(self, states: LLMStates, vision: VisionFeatures, batch: Batch) -> GrounderOutput:
        """No layers of boxes or presence."""
        num_rows, num_frames = batch["frame_position"].shape
        nothing = states.last_BLD.new_empty(0, num_rows, num_frames, 4, dtype=torch.float32)
        return GrounderOutput(nothing, nothing[..., 0])
