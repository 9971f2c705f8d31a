"""The vLLM engine as a Ray actor, and the trainer's side of it: every call has a timeout and a version."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import ray
import torch
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError
from torch import Tensor

from configs.rft import RFTConfig, RolloutConfig
from configs.run import quiet_environment
from data.encoding import EncodedPrompt
from evaluation.vllm_engine import Rollout, RolloutError, SamplingArgs, VllmEngine


class EngineActor:
    """Runs in a process of its own; wrapped by `start_engine`."""

    def __init__(self, model_folder: str, rollout: RolloutConfig, dtype: str) -> None:
        self._engine = VllmEngine(
            model_folder,
            max_model_len=rollout.max_model_len,
            dtype=dtype,
            kv_cache_gib=rollout.kv_cache_gib,
            gpu_memory_utilization=rollout.gpu_memory_utilization,
        )

    def ready(self) -> int:
        """The version of its weights; answers once the engine is up."""
        return self._engine.version

    def generate(
        self, prompts: Sequence[EncodedPrompt], args: SamplingArgs, seeds: Sequence[int], version: int
    ) -> list[list[Rollout]]:
        """See VllmEngine.generate."""
        return self._engine.generate(prompts, args, seeds=seeds, version=version)

    def update_weights(self, weights: list[tuple[str, Tensor]], version: int) -> int:
        """See VllmEngine.update_weights."""
        self._engine.update_weights(weights, version=version)
        return self._engine.version


def start_engine(model_folder: str, config: RFTConfig) -> ActorHandle[Any]:
    """Create the actor; it starts up while the caller goes on."""
    actor: Any = ray.remote(EngineActor)
    options: dict[str, Any] = {"num_cpus": 1, "runtime_env": {"env_vars": quiet_environment()}}
    if config.ray.use_gpu:
        options["num_gpus"] = 1
    return actor.options(**options).remote(model_folder, config.rollout, config.dtype)


class EngineClient:
    """What the trainer calls. Raises RolloutError when the engine does not answer in time."""

    def __init__(self, engine: ActorHandle[Any], *, timeout_sec: float) -> None:
        self._engine: Any = engine
        self._timeout_sec = timeout_sec

    def wait_until_ready(self) -> None:
        """Block until the engine is up."""
        self._get(self._engine.ready.remote(), "start")

    def generate(
        self, prompts: Sequence[EncodedPrompt], args: SamplingArgs, *, seeds: Sequence[int], version: int
    ) -> list[list[Rollout]]:
        """Groups of rollouts. Only what vLLM needs travels: ids and raw frames, not the trainer's patches."""
        light = [replace(prompt, pixel_values_VC=torch.empty(0)) for prompt in prompts]
        return self._get(self._engine.generate.remote(light, args, list(seeds), version), "generate")

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
