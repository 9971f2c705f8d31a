"""The trainer's side of the engine: every call has a timeout and a version."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import ray
import torch
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError
from torch import Tensor

from data.encoding import EncodedPrompt
from evaluation.vllm_engine import Rollout, RolloutError, SamplingArgs


class EngineClient:
    """What the trainer calls. Raises RolloutError when the engine does not answer in time."""

    def __init__(self, engine: ActorHandle[Any], *, timeout_sec: float) -> None:
        self._engine: Any = engine
        self._timeout_sec = timeout_sec
        self.waited_sec = 0.0
        """Of the last `generate`: the time that the engine did not work on it, but for others, or that it took to get there."""

    def wait_until_ready(self) -> None:
        """Block until the engine is up."""
        self._get(self._engine.ready.remote(), "start")

    def generate(
        self, prompts: Sequence[EncodedPrompt], args: SamplingArgs, *, seeds: Sequence[int], version: int
    ) -> list[list[Rollout]]:
        """Groups of rollouts. Only what vLLM needs travels: ids and raw frames, not the trainer's patches."""
        light = [replace(prompt, pixel_values_VC=torch.empty(0)) for prompt in prompts]
        start = time.perf_counter()
        groups, busy_sec = self._get(self._engine.generate.remote(light, args, list(seeds), version), "generate")
        self.waited_sec = max(time.perf_counter() - start - busy_sec, 0.0)
        return groups

    def push(self, weights: dict[str, Tensor], *, version: int) -> None:
        """Send all weights through the object store and wait until the engine has them."""
        payload = ray.put([(name, tensor.detach().cpu()) for name, tensor in weights.items()])
        took = self._get(self._engine.update_weights.remote(payload, version), "take new weights")
        if took != version:
            raise RolloutError(f"pushed version {version}, the engine has {took}")

    def _get(self, reference: Any, what: str) -> Any:
        try:
            return ray.get(reference, timeout=self._timeout_sec)
        except GetTimeoutError:
            raise RolloutError(f"the engine did not {what} within {self._timeout_sec} s") from None
