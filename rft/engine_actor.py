"""The vLLM engine as a Ray actor. Light to import: a driver starts the engine before it loads anything else."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import ray
from ray.actor import ActorHandle

from configs.rft import RFTConfig, RolloutConfig
from configs.run import quiet_environment

if TYPE_CHECKING:
    from torch import Tensor

    from data.encoding import EncodedPrompt
    from evaluation.vllm_engine import Rollout, SamplingArgs


class EngineActor:
    """Runs in a process of its own; wrapped by `start_engine`."""

    def __init__(self, model_folder: str, rollout: RolloutConfig, dtype: str) -> None:
        from evaluation.vllm_engine import VllmEngine

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
        self, prompts: "Sequence[EncodedPrompt]", args: "SamplingArgs", seeds: Sequence[int], version: int
    ) -> "tuple[list[list[Rollout]], float]":
        """See VllmEngine.generate; and the seconds that it took."""
        start = time.perf_counter()
        groups = self._engine.generate(prompts, args, seeds=seeds, version=version)
        return groups, time.perf_counter() - start

    def update_weights(self, weights: "list[tuple[str, Tensor]]", version: int) -> int:
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
