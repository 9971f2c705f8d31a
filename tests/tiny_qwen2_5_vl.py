"""A random Qwen2.5-VL of the tests' size: small patches, so that a frame has more cells than an attention window."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from data.types import GroundingSample
from model.tiny_backbone import CHAT_TEMPLATE, corpus, train_tokenizer, vision_tokens

PATCH_PX, MERGE, WINDOW_CELLS = 8, 2, 2
TOKENS_PER_SECOND = 2
"""As in the released 3B and 7B."""


def tiny_config(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLConfig:
    """A 64 px frame has 8 x 8 patches, 4 x 4 cells and 2 x 2 windows; the last block sees whole frames."""
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 8192, "initializer_range": 0.06,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [4, 6, 6]},
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "tie_word_embeddings": False,
    }  # fmt: skip
    vision = {
        "depth": 3, "hidden_size": 64, "intermediate_size": 128, "num_heads": 4, "patch_size": PATCH_PX,
        "spatial_merge_size": MERGE, "temporal_patch_size": 2, "out_hidden_size": 128,
        "window_size": PATCH_PX * MERGE * WINDOW_CELLS, "fullatt_block_indexes": [2],
        "tokens_per_second": TOKENS_PER_SECOND, "initializer_range": 0.06,
    }  # fmt: skip
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        tie_word_embeddings=False,
        **vision_tokens(tokenizer),
    )


def make_tiny_qwen2_5_vl(samples: list[GroundingSample], folder: Path) -> None:
    """Write model, tokenizer and processor into `folder`."""
    tokenizer = train_tokenizer(corpus(samples))
    tokenizer.chat_template = CHAT_TEMPLATE
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(tiny_config(tokenizer))
    generation: Any = model.generation_config
    generation.eos_token_id, generation.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    sizes: dict[str, Any] = {"patch_size": PATCH_PX, "merge_size": MERGE, "temporal_patch_size": 2}
    edges = {"shortest_edge": 16 * 16, "longest_edge": 128 * 128}
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=dict(edges), **sizes),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(size=dict(edges), **sizes),
        chat_template=CHAT_TEMPLATE,
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
