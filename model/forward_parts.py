"""Hooks on the parts of the forward: told when the tower, the LLM on prompts or on what follows, or the grounder runs."""

from collections.abc import Callable
from typing import Any, Literal

from torch import nn

from model.grounding_model import GroundingModel

Part = Literal["vision", "prompt", "completions", "decoder"]
Listener = Callable[[Part], None]


def watch_parts(model: GroundingModel, enter: Listener, leave: Listener) -> None:
    """Call `enter` before and `leave` after each part. Hooks change no number; they stay on the model."""
    mllm = model.mllm.model
    _watch(mllm.visual, lambda arguments: "vision", enter, leave)
    _watch(mllm.language_model, _part_of_the_llm, enter, leave)
    _watch(model.grounder, lambda arguments: "decoder", enter, leave)


def _watch(module: nn.Module, part: Callable[[dict[str, Any]], Part], enter: Listener, leave: Listener) -> None:
    def before(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        enter(part(kwargs))

    def after(module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        leave(part(kwargs))

    module.register_forward_pre_hook(before, with_kwargs=True)
    module.register_forward_hook(after, with_kwargs=True)


def _part_of_the_llm(arguments: dict[str, Any]) -> Part:
    """A pass that fills a cache is the prompt's; one that reads it, or has none, is of what follows (model/backbone.py)."""
    is_prompt = arguments.get("use_cache") and arguments.get("past_key_values") is None
    return "prompt" if is_prompt else "completions"
