"""LoRA on the LLM. The only file that knows the internals of peft.

Adapters live in the trainer alone: a checkpoint's `mllm/`, what vLLM is sent and an export hold the merged weights under the
released names. A step's folder has the adapters beside them, so that a resumed run goes on from the very same numbers: the
weights that the run began with, and these.

Source: LoRA (2106.09685), equation 3: W + (lora_alpha / r) B A.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peft
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file, save_file
from torch import Tensor

from configs.lora import LoraConfig
from model.grounding_model import GROUNDER_FILE, GroundingModel

ADAPTER_FILE = "adapter.safetensors"
_BASE, _DOWN, _UP = ".base_layer.", ".lora_A.default.weight", ".lora_B.default.weight"


def add_lora(model: GroundingModel, config: LoraConfig, *, resumed: Path | None = None) -> None:
    """Train adapters on the LLM's layers instead of the MLLM, which is frozen; the grounder is trained whole.

    Fresh adapters change nothing (B is zero). resumed: a step's folder, whose adapters and grounder are taken over. Raises
    ValueError where its adapters are not those of the config.
    """
    linear = "|".join(config.target_modules)
    peft.inject_adapter_in_model(
        peft.LoraConfig(
            r=config.r,
            lora_alpha=config.lora_alpha,  # pyright: ignore[reportArgumentType]
            lora_dropout=config.lora_dropout,
            target_modules=rf".*language_model\.layers\.\d+\..*\.({linear})",
        ),
        model.mllm,
    )
    for name, parameter in model.mllm.named_parameters():
        if _is_adapter(name):  # peft gives them the precision of the frozen weights
            parameter.data = parameter.data.float()
    if resumed is not None:
        _load_adapters(model, resumed / ADAPTER_FILE)
        model.grounder.load_state_dict(load_file(resumed / GROUNDER_FILE), strict=True)


def _load_adapters(model: GroundingModel, path: Path) -> None:
    saved = load_file(path)
    ours = {name: tensor.shape for name, tensor in model.state_dict().items() if _is_adapter(name)}
    differing = {name: tensor.shape for name, tensor in saved.items()}.items() ^ ours.items()
    if differing:
        raise ValueError(f"{path}: its adapters are not those of the config, first difference {min(differing)}")
    model.load_state_dict(saved, strict=False)


def adapters(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The adapters of a state dict; none of a model without LoRA."""
    return {name: tensor for name, tensor in state.items() if _is_adapter(name)}


def save_adapters(state: dict[str, Tensor], folder: Path) -> None:
    """Write the adapters of a state dict beside a checkpoint; nothing where there are none."""
    if found := adapters(state):
        save_file({name: tensor.contiguous() for name, tensor in found.items()}, folder / ADAPTER_FILE)


def merged_state(model: GroundingModel, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The model's state dict (gathered from all ranks) under the released names; as it is without LoRA."""
    configs: dict[str, Any] = getattr(model.mllm, "peft_config", {})
    if "default" not in configs:
        return state
    return merge(state, scaling=configs["default"].lora_alpha / configs["default"].r)


def merge(state: dict[str, Tensor], *, scaling: float) -> dict[str, Tensor]:
    """Adapters added to their layers' weights, in float32, and everything under the released names."""
    merged = {}
    for name, tensor in state.items():
        if _is_adapter(name):
            continue
        layer, is_adapted, rest = name.partition(_BASE)
        if is_adapted and rest == "weight":
            change = state[layer + _UP].float() @ state[layer + _DOWN].float()
            tensor = (tensor.float() + scaling * change).to(tensor.dtype)
        merged[name.replace(_BASE, ".")] = tensor
    return merged


@contextlib.contextmanager
def without_adapters(model: GroundingModel) -> Iterator[None]:
    """Inside, the LLM answers as before the adapters were added."""
    layers = [module for module in model.mllm.modules() if isinstance(module, BaseTunerLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def _is_adapter(name: str) -> bool:
    return name.endswith((_DOWN, _UP))
