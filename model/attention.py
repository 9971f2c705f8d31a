"""Whether this machine has the attention kernel that a config asks for, said before any weight is read."""

import importlib.util

from configs.base import ConfigError


def check_attention(name: str, dtype: str) -> None:
    """Raise ConfigError where a model cannot be trained with the kernel on this machine, in the precision `dtype`.

    In torch 2.13 flex attention has no backward pass on CPU, and its kernel for a prompt in a cache does not compile there.
    """
    if name == "flash_attention_2" and dtype != "bfloat16":
        raise ConfigError(f"model.attention=flash_attention_2: needs model.dtype=bfloat16, got {dtype}")
    if name == "flash_attention_2" and not (importlib.util.find_spec("flash_attn") and _has_cuda()):
        raise ConfigError(
            "model.attention=flash_attention_2: needs a CUDA device and the package flash-attn; expected sdpa here"
        )
    if name == "flex" and not _has_cuda():
        raise ConfigError("model.attention=flex: has no backward pass on CPU; expected sdpa or eager without CUDA")


def _has_cuda() -> bool:
    import torch  # 3 s, for which a kernel that needs nothing does not wait

    return torch.cuda.is_available()
