"""What the session's fixtures hand to tests, and the grounders that they have a model of."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.data import DataConfig
from data.dataset import PromptEncoder
from data.types import GroundingSample
from model.grounding_model import GroundingModel

DECODED = ("bridge", "interleaved")
"""Those whose boxes are a decoder's."""
GROUNDED = (*DECODED, "text")


@dataclass(frozen=True)
class Tiny:
    """A checkpoint with everything around it."""

    folder: Path
    data: DataConfig
    samples: list[GroundingSample]
    model: GroundingModel
    processor: Any
    encoder: PromptEncoder

    def of_task(self, task: str) -> list[GroundingSample]:
        """Samples of one task."""
        return [sample for sample in self.samples if sample.task == task]
