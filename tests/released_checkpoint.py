"""Random checkpoints in the format of the released ones: bfloat16, in shards with an index, tied layers stored once."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from data.types import GroundingSample
from model.shapes import shipped_config
from model.tiny_backbone import make_tiny_backbone

PERIOD = 1_048_583
"""A prime: rows of a weight that is filled with repetitions of so many numbers all differ."""
SMALL_TEXT = {
    "vocab_size": 1024, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 32,
    "rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [6, 5, 5], "mrope_interleaved": True},
}  # fmt: skip
SMALL_VISION = {
    "depth": 3, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64,
    "deepstack_visual_indexes": [0, 1],
}  # fmt: skip


def config_of_2b(tokens: dict[str, int], *, is_small: bool) -> Qwen3VLConfig:
    """The released 2B's config for another tokenizer (`tokens`: its ids); is_small: same keys, small sizes."""
    config = shipped_config("Qwen/Qwen3-VL-2B-Instruct").to_dict() | tokens
    if is_small:
        config["text_config"] |= SMALL_TEXT
        config["vision_config"] |= SMALL_VISION
    return Qwen3VLConfig(**config)


def write_2b(
    folder: Path, samples: list[GroundingSample], *, is_small: bool, shard_bytes: int
) -> dict[str, torch.Size]:
    """A random 2B with a tiny tokenizer and the processor of the tests, one shard in memory at a time. -> its shapes."""
    make_tiny_backbone(samples, folder)
    (folder / "model.safetensors").unlink()
    tiny: dict[str, Any] = json.loads((folder / "config.json").read_text())
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    config = config_of_2b({name: tiny[name] for name in names}, is_small=is_small)
    config.save_pretrained(folder)
    with torch.device("meta"):
        mllm = Qwen3VLForConditionalGeneration._from_config(config, dtype=torch.bfloat16)
    shapes = {name: tensor.shape for name, tensor in mllm.state_dict().items() if name != "lm_head.weight"}
    shards = list(_shards(shapes, shard_bytes))
    index: dict[str, str] = {}
    for number, part in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file({name: _random(name, shapes[name]) for name in part}, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(part, file)
    total = 2 * sum(shape.numel() for shape in shapes.values())
    text = json.dumps({"metadata": {"total_size": total}, "weight_map": index})
    (folder / "model.safetensors.index.json").write_text(text)
    return shapes


def _shards(shapes: dict[str, torch.Size], shard_bytes: int) -> Iterator[list[str]]:
    part, size = [], 0
    for name, shape in shapes.items():
        if part and size + 2 * shape.numel() > shard_bytes:
            yield part
            part, size = [], 0
        part.append(name)
        size += 2 * shape.numel()
    yield part


def _random(name: str, shape: torch.Size) -> torch.Tensor:
    """Ones for the weights of norms, otherwise numbers of deviation 0.02, which are cheap to make."""
    if len(shape) == 1:
        return torch.full(shape, float(name.endswith("weight")), dtype=torch.bfloat16)
    generator = torch.Generator().manual_seed(len(name))
    block = (0.02 * torch.randn(PERIOD, generator=generator)).to(torch.bfloat16)
    return block.repeat(math.ceil(shape.numel() / PERIOD))[: shape.numel()].view(shape)
