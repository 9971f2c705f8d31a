"""The grounders by the names that `model.grounder` takes and a checkpoint's config.json holds.

A grounder's module is imported when it is asked for, so that a wrong name is an error before torch is imported.
"""

import importlib
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model.grounder import Grounder

GROUNDERS = {
    "bridge": ".bridge_grounder:BridgeGrounder",
    "interleaved": ".interleaved_grounder:InterleavedGrounder",
    "text": ".text_grounder:TextGrounder",
}
"""Module, relative to this package, and class."""
FROM_BACKBONE = {"llm_width", "vision_width", "temporal_patch_size"}
"""Arguments of constructors that `Grounder.build` takes from the backbone, and no config sets."""


class GrounderError(ValueError):
    """A grounder that there is none of, or arguments that it does not take; the message has the key of the config."""


def check_grounder(name: str, args: Mapping[str, Any]) -> None:
    """Raises GrounderError for an unknown name, importing nothing, and for arguments that are given and do not fit."""
    locate_grounder(name)
    if args:
        _check_arguments(name, grounder_class(name), args)


def build_grounder(name: str, mllm: Any, args: Mapping[str, Any]) -> "Grounder":
    """A fresh grounder for the backbone. Raises GrounderError for an unknown name, and for unknown or missing arguments.

    A constructor with `**kwargs` takes any key.
    """
    cls = grounder_class(name)
    _check_arguments(name, cls, args)
    return cls.build(mllm, args)


def grounder_class(name: str) -> "type[Grounder]":
    """Raises GrounderError for a name that is not in GROUNDERS, naming those that are."""
    module, cls = locate_grounder(name)
    return getattr(importlib.import_module(module, __package__), cls)


def locate_grounder(name: str) -> tuple[str, str]:
    """(module, class). Raises GrounderError."""
    if name not in GROUNDERS:
        raise GrounderError(f"model.grounder: expected one of {', '.join(GROUNDERS)}; got {name!r}")
    module, _, cls = GROUNDERS[name].partition(":")
    return module, cls


def _check_arguments(name: str, cls: "type[Grounder]", args: Mapping[str, Any]) -> None:
    parameters, takes_any_key = _own_arguments(cls)
    accepted = f"{name} takes {', '.join(parameters) or 'none'}"
    unknown = [key for key in args if key not in parameters and (key in FROM_BACKBONE or not takes_any_key)]
    if unknown:
        raise GrounderError(f"model.grounder_args.{unknown[0]}: unknown key; {accepted}")
    if missing := [key for key, p in parameters.items() if p.default is p.empty and key not in args]:
        raise GrounderError(f"model.grounder_args.{missing[0]}: is missing; {accepted}")


def _own_arguments(cls: "type[Grounder]") -> tuple[dict[str, inspect.Parameter], bool]:
    """Those of the constructor that a config sets, and whether it takes any other key, in `**kwargs`."""
    from torch import nn  # imported with the class

    if cls.__init__ is nn.Module.__init__:  # `*args, **kwargs`, all of which it refuses
        return {}, False
    parameters = inspect.signature(cls).parameters
    kinds = {p.kind for p in parameters.values()}
    collecting = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    named = {key: p for key, p in parameters.items() if p.kind not in collecting and key not in FROM_BACKBONE}
    return named, inspect.Parameter.VAR_KEYWORD in kinds
