"""A random Qwen3-VL of about 1 M parameters, saved as an ordinary checkpoint folder, for tests and the demo.

    python -m model.tiny_backbone --config configs/demo/sft.yaml --out outputs/demo/backbone

Same code path as Qwen/Qwen3-VL-4B-Instruct: same classes, chat template and processor, a tokenizer of the same kind
trained on the run's own prompts and answers. Embeddings are untied: on CPU, vLLM does not reload a tied output layer.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from tqdm import tqdm
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from configs.base import load_config
from configs.command_line import config_parser
from configs.data import DataConfig
from configs.run import setup_logging
from data.prompts import build_messages
from data.sources import load_samples
from data.types import GroundingSample
from data.written_answers import AnswerFormat, AnswerStyle, write_answer

logger = logging.getLogger(__name__)

SPECIAL_TOKENS = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
]  # fmt: skip

# The split of Qwen's tokenizers: every digit is a token of its own.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

CHAT_TEMPLATE = """{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.content is string %}{{- message.content }}{%- else %}{%- for part in message.content %}
{%- if part.type == 'image' %}{{- '<|vision_start|><|image_pad|><|vision_end|>' }}
{%- elif part.type == 'video' %}{{- '<|vision_start|><|video_pad|><|vision_end|>' }}
{%- else %}{{- part.text }}{%- endif %}{%- endfor %}{%- endif %}{{- '<|im_end|>\\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""

PATCH_PX, MERGE = 16, 2


def corpus(samples: list[GroundingSample], *, answer_formats: Sequence[AnswerFormat] = ("span",)) -> list[str]:
    """Every text that the tokenizer should know: questions, answers, timestamps."""
    texts = ["system user assistant"]
    styles = [AnswerStyle(answer_format) for answer_format in answer_formats]
    for sample in samples:
        for style in styles:
            content = build_messages(sample, order="query_video_query", style=style)[0]["content"]
            texts += [part["text"] for part in content if part["type"] == "text"]
            texts.append(write_answer(sample, np.arange(sample.clip.start, sample.clip.end), style))
    return texts + [_timestamp(tenths) for tenths in range(600)]


def _timestamp(tenths: int) -> str:
    """As Qwen3-VL's processor writes it before each temporal patch."""
    return f"<{tenths / 10:.1f} seconds>"


def train_tokenizer(texts: list[str], *, vocab_size: int = 512) -> PreTrainedTokenizerFast:
    """Byte-level BPE with Qwen's split and special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=SPECIAL_TOKENS, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(tqdm(texts, desc="train tokenizer", unit="text"), trainer)
    # A timestamp is one token here and eight in Qwen's tokenizer: half of a short prompt would be timestamps.
    tokenizer.add_tokens([AddedToken(_timestamp(tenths), normalized=False) for tenths in range(160)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=SPECIAL_TOKENS[3:],
    )


def tiny_config(tokenizer: PreTrainedTokenizerFast, *, width: int = 128, num_layers: int = 4) -> Qwen3VLConfig:
    """About 1 M parameters, the sizes our choice; a larger initializer range, or a narrow random net is near silent."""
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": num_layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 8192,
        "initializer_range": 0.06,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10_000.0,
            "mrope_section": [6, 5, 5],
            "mrope_interleaved": True,
        },
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": False,
    }
    vision = {
        "depth": 3,
        "hidden_size": 64,
        "intermediate_size": 256,
        "num_heads": 4,
        "patch_size": PATCH_PX,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": 2,
        "out_hidden_size": width,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0, 1],
        "initializer_range": 0.06,
    }
    return Qwen3VLConfig(
        text_config=text,
        vision_config=vision,
        tie_word_embeddings=False,
        **vision_tokens(tokenizer),
    )


def vision_tokens(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """The ids of the tokens around vision, by the names that the family's configs have for them."""
    ids: Any = tokenizer.convert_tokens_to_ids
    return {
        "image_token_id": ids("<|image_pad|>"),
        "video_token_id": ids("<|video_pad|>"),
        "vision_start_token_id": ids("<|vision_start|>"),
        "vision_end_token_id": ids("<|vision_end|>"),
    }


def make_tiny_backbone(
    samples: list[GroundingSample],
    folder: str | Path,
    *,
    seed: int = 0,
    answer_formats: Sequence[AnswerFormat] = ("span",),
    width: int = 128,
    num_layers: int = 4,
) -> None:
    """Write model, tokenizer and processor into `folder`; answer_formats: those that the tokenizer has words of.

    width, num_layers: of the LLM.
    """
    tokenizer = train_tokenizer(corpus(samples, answer_formats=answer_formats))
    tokenizer.chat_template = CHAT_TEMPLATE
    torch.manual_seed(seed)
    model = Qwen3VLForConditionalGeneration(tiny_config(tokenizer, width=width, num_layers=num_layers))
    generation: Any = model.generation_config
    generation.eos_token_id, generation.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    sizes: dict[str, Any] = {"patch_size": PATCH_PX, "merge_size": MERGE, "temporal_patch_size": 2}
    processor = Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(size={"shortest_edge": 16 * 16, "longest_edge": 128 * 128}, **sizes),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(size={"shortest_edge": 16 * 16, "longest_edge": 64 * 128 * 128}, **sizes),
        chat_template=CHAT_TEMPLATE,
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    logger.info("%s: %d parameters, %d tokens", folder, sum(p.numel() for p in model.parameters()), len(tokenizer))


def main() -> None:
    """Entry point."""
    parser = config_parser(__doc__)
    parser.add_argument("--out", required=True, type=Path, help="folder to write")
    parser.add_argument("--seed", type=int, default=0, help="of the weights")
    parser.add_argument("--answer-formats", nargs="+", choices=get_args(AnswerFormat), default=["span"],
                        help="of the grounders that will be trained; the tokenizer has words of their answers")  # fmt: skip
    arguments = parser.parse_args()
    setup_logging()
    data = load_config(DataConfig, arguments.config, arguments.overrides, section="data")
    samples, formats = load_samples(data, "train"), arguments.answer_formats
    make_tiny_backbone(samples, arguments.out, seed=arguments.seed, answer_formats=formats)


if __name__ == "__main__":
    main()
