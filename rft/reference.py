"""The policy that the KL divergence is taken from: the one that the run starts from, and never trained.

With LoRA it is the model without its adapters; otherwise a second copy of the starting checkpoint's MLLM is kept. Either
computes in the policy's precision: rounded differently, it would be at a distance from the policy before the first step.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from configs.rft import RFTConfig
from data.collate import Batch
from model.build import load_checkpoint
from model.grounding_model import GroundingModel
from model.lora import without_adapters


class ReferencePolicy:
    """Log-probs of sampled tokens under the starting policy."""

    def __init__(self, config: RFTConfig, model: GroundingModel, accelerator: Accelerator) -> None:
        self.temperature, self._accelerator = config.rollout.temperature, accelerator
        self._policy = model
        self._copy: GroundingModel | None = None
        if config.lora is None:
            self._copy = load_checkpoint(config.checkpoint, dtype="float32")[0].requires_grad_(False)
            torch.nn.Module.to(self._copy, accelerator.device)

    def logps(self, inputs: Batch) -> Tensor:
        """[B, L], 0 where nothing is scored; no gradient."""
        with torch.no_grad(), self._accelerator.autocast(), self._model() as model:
            return model(temperature=self.temperature, **inputs).logps_BL

    @contextlib.contextmanager
    def _model(self) -> Iterator[Any]:
        if self._copy is not None:
            yield self._copy
        else:
            with without_adapters(self._policy):
                yield self._policy
