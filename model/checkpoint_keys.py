"""Strict loading: `from_pretrained` only warns of a weight that is not in the checkpoint, and makes one up."""

from typing import Any

from transformers import AutoConfig


class CheckpointKeyError(ValueError):
    """The weights of a checkpoint are not those of its config; the message names the folder and the keys."""


def check_model_type(path: str, known: tuple[str, ...]) -> str:
    """The model type of a checkpoint, a folder or a name. Raises ValueError unless it is among `known`."""
    model_type = AutoConfig.from_pretrained(path).model_type
    if model_type not in known:
        raise ValueError(f"{path}: expected a {' or '.join(known)} checkpoint, got {model_type!r}")
    return model_type


def check_keys(path: str, loading_info: dict[str, Any], *, is_tied: bool) -> None:
    """Raise CheckpointKeyError unless transformers' `output_loading_info` tells of no difference.

    A tied output layer is stored once, as the embedding, so its own key may be missing.
    """
    missing = set(loading_info["missing_keys"]) - ({"lm_head.weight"} if is_tied else set())
    wrong = {
        "missing": sorted(missing),
        "unknown": sorted(loading_info["unexpected_keys"]),
        "of another shape": sorted(name for name, *_ in loading_info["mismatched_keys"]),
    }
    if any(wrong.values()):
        said = "; ".join(f"{len(keys)} {what}: {', '.join(keys[:3])}" for what, keys in wrong.items() if keys)
        raise CheckpointKeyError(f"{path}: expected the weights of its config, got {said}")
