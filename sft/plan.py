"""What a supervised run will take, before any weight or video is there.

    python -m sft.plan --config configs/sft/bridge_2b.yaml --num-processes 8

Prints parameters, tokens, memory of one rank, steps and checkpoint size; `--json` the same numbers. The model is built on the
meta device from its backbone's config: a folder, a Hugging Face name, or, where the hub is out of reach, the released shapes
of configs/backbones. Sizes are GB of 10^9 bytes.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from configs.base import ConfigError, load_config
from configs.command_line import config_parser
from configs.model import GrounderConfig
from configs.run import quiet_environment
from configs.sft import SFTConfig

Plan = dict[str, Any]
BFLOAT16, FLOAT32 = 2, 4


def main(arguments: list[str] | None = None) -> None:
    """Entry point. A config or a backbone that cannot be used ends the process with status 2 and the reason."""
    parser = config_parser(__doc__)
    parser.add_argument("--num-processes", type=_positive, default=1, help="ranks, one on each GPU")
    parser.add_argument("--frame-size", type=_frame_size, default=(1280, 720), help="of the videos, before resizing")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    parsed = parser.parse_args(arguments)
    quiet_environment()
    try:
        config = load_config(SFTConfig, parsed.config, parsed.overrides)
        result = plan(config, num_processes=parsed.num_processes, size=parsed.frame_size)
    except ConfigError as error:
        parser.error(str(error))
    sys.stdout.write(json.dumps(result, indent=2) + "\n" if parsed.json else as_tables(result))


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
    return int(text)


def _frame_size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit()) or int(width) < 32 or int(height) < 32:
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT, each at least 32, got {text!r}")
    return int(width), int(height)


def plan(config: SFTConfig, *, num_processes: int = 1, size: tuple[int, int] = (1280, 720)) -> Plan:
    """All numbers of a run. size: (width, height) of its videos. Raises ConfigError."""
    from model.activation_bytes import BatchShape, count_activations
    from model.grounders import GrounderError
    from model.grounding_model import MLLM_FOLDER
    from model.shapes import BackboneConfigError, backbone_config, empty_model
    from sft.plan_memory import LOGITS_BYTES, activation_bytes
    from sft.plan_tokens import example
    from sft.zero import read_zero

    folder = config.model.backbone if config.checkpoint is None else str(Path(config.checkpoint) / MLLM_FOLDER)
    backbone: Any
    try:
        backbone, origin = backbone_config(folder)
    except BackboneConfigError as error:
        raise ConfigError(f"{'model.backbone' if config.checkpoint is None else 'checkpoint'}: {error}") from None
    config = _as_built_here(_with_grounder_of_checkpoint(config))
    try:
        model = empty_model(config.model, backbone)
    except GrounderError as error:
        raise ConfigError(str(error)) from None
    frames = config.frames.num_positive + config.frames.num_negative
    tokens = _sample_tokens(config, model, folder, size, num_frames=frames)
    rows = config.per_device_train_batch_size
    batch = BatchShape(rows=rows, tokens=tokens.total, frames=frames, grid=tokens.grid)
    zero = None if config.deepspeed is None else read_zero(config.deepspeed)
    saved = count_activations(config.model, backbone, batch, _precision(config))
    activations = activation_bytes(
        saved, num_layers=backbone.text_config.num_hidden_layers, num_blocks=backbone.vision_config.depth,
        checkpointing=config.model.gradient_checkpointing,
    )  # fmt: skip
    logits = rows * tokens.answer * backbone.text_config.vocab_size * LOGITS_BYTES
    parameters = count_parameters(model)
    return {
        "backbone": {"name": folder, "config_from": origin},
        "parameters": parameters,
        "tokens_per_sample": _tokens(tokens, example(config.data, size)),
        "memory_bytes": _memory(config, model, zero, num_processes, activations, logits),
        "run": run_size(config, num_processes, tokens.total),
        "checkpoint_bytes": checkpoint_bytes(config, parameters["total"]),
    }


def _with_grounder_of_checkpoint(config: SFTConfig) -> SFTConfig:
    """An earlier stage's grounder is the one that is trained on."""
    from model.grounding_model import GroundingConfig

    if config.checkpoint is None:
        return config
    trained = GroundingConfig.from_pretrained(config.checkpoint)
    args = trained.grounder_args or {}
    section = getattr(config.model, trained.grounder, None)
    if isinstance(section, GrounderConfig):
        own = {trained.grounder: type(section)(**args), "grounder_args": {}}
    else:
        own = {"grounder_args": args}
    changes: dict[str, Any] = {"grounder": trained.grounder} | own
    return config.model_copy(update={"model": config.model.model_copy(update=changes)})


def _as_built_here(config: SFTConfig) -> SFTConfig:
    """Flash attention keeps what `sdpa` keeps, and its package need not be there to plan."""
    if config.model.attention == "eager":
        return config
    return config.model_copy(update={"model": config.model.model_copy(update={"attention": "sdpa"})})


def _sample_tokens(config: SFTConfig, model: Any, folder: str, size: tuple[int, int], *, num_frames: int) -> Any:
    """With the backbone's processor, where it is a folder that has one. num_frames: chosen ones, with a query each."""
    from data.token_budget import PromptError
    from model.backbone import load_processor
    from sft.plan_tokens import sample_tokens

    processor = None
    if (Path(folder) / "tokenizer_config.json").is_file():
        processor = load_processor(folder, max_pixels=config.data.video.max_pixels)
    try:
        return sample_tokens(
            config.data,
            patch_px=model.mllm.config.vision_config.patch_size,
            num_queries=num_frames if model.num_queries == "per_frame" else model.num_queries,
            answer_format=model.grounder.answer_format,
            processor=processor,
            size=size,
        )
    except PromptError as error:
        raise ConfigError(f"data.video.max_prompt_tokens: {error}") from None


def _precision(config: SFTConfig) -> Any:
    """DeepSpeed turns the weights into `model.dtype`; without it they stay float32 and autocast rounds products."""
    import torch

    from model.activation_bytes import Precision

    is_half = config.model.dtype == "bfloat16"
    if config.deepspeed is None:
        return Precision(torch.float32, autocast=is_half)
    return Precision(torch.bfloat16 if is_half else torch.float32)


def count_parameters(model: Any) -> dict[str, dict[str, int]]:
    """Trainable and frozen ones of each part; a tied output layer is the embedding and counts once."""
    language = [*model.mllm.model.language_model.parameters(), *model.mllm.lm_head.parameters()]
    parts = {
        "vision": list(model.mllm.model.visual.parameters()),
        "llm": list({id(parameter): parameter for parameter in language}.values()),
        "grounder": list(model.grounder.parameters()),
    }
    counts = {
        part: {
            "trainable": sum(p.numel() for p in parameters if p.requires_grad),
            "frozen": sum(p.numel() for p in parameters if not p.requires_grad),
        }
        for part, parameters in parts.items()
    }
    return counts | {"total": {kind: sum(c[kind] for c in counts.values()) for kind in ("trainable", "frozen")}}


def _tokens(tokens: Any, sample: Any) -> Plan:
    time, height, width = tokens.grid
    return {
        "video": f"{len(sample.clip) / sample.fps:.1f} s, {sample.width} x {sample.height}",
        "grid": f"{time} x {height} x {width} patches",
        "vision": tokens.vision,
        "text": tokens.text,
        "answer": tokens.answer,
        "queries": tokens.queries,
        "total": tokens.total,
    }


def _memory(config: SFTConfig, model: Any, zero: Any, num_processes: int, activations: Any, logits: int) -> Plan:
    from dataclasses import asdict

    from sft.plan_memory import Counts, plan_memory

    trainable = [parameter.numel() for parameter in model.parameters() if parameter.requires_grad]
    total = sum(parameter.numel() for parameter in model.parameters())
    memory = plan_memory(
        Counts(sum(trainable), total - sum(trainable), max(trainable)),
        activations,
        zero=zero, num_processes=num_processes, logits=logits,
        weight_bytes=BFLOAT16 if config.model.dtype == "bfloat16" else FLOAT32,
        accumulation=config.gradient_accumulation_steps,
    )  # fmt: skip
    return {"zero_stage": 0 if zero is None else zero.stage} | asdict(memory) | {"peak": memory.peak}


def run_size(config: SFTConfig, num_processes: int, tokens: int) -> Plan:
    """tokens: of a sample."""
    global_batch = config.per_device_train_batch_size * config.gradient_accumulation_steps * num_processes
    return {
        "processes": num_processes,
        "global_batch": global_batch,
        "steps": config.max_steps,
        "samples": global_batch * config.max_steps,
        "tokens": global_batch * config.max_steps * tokens,
    }


def checkpoint_bytes(config: SFTConfig, parameters: dict[str, int]) -> dict[str, int]:
    """On disk. final: the weights. step: those of a step's folder, from which a run can be resumed.

    DeepSpeed stores the working weights once more, and the optimizer's float32 copy with its moments.
    """
    is_half = config.deepspeed is not None and config.model.dtype == "bfloat16"
    trainable = parameters["trainable"]
    final = (trainable + parameters["frozen"]) * (BFLOAT16 if is_half else FLOAT32)
    if config.deepspeed is None:
        return {"final": final, "step": final + 2 * FLOAT32 * trainable}
    return {"final": final, "step": 2 * final + 3 * FLOAT32 * trainable}


def as_tables(result: Plan) -> str:
    """Markdown."""
    memory = result["memory_bytes"]
    stage = memory["zero_stage"]
    lines = [f"backbone: {result['backbone']['name']}, config from {result['backbone']['config_from']}", ""]
    lines += ["| parameters | trainable | frozen |", "| --- | ---: | ---: |"]
    lines += [f"| {part} | {c['trainable']:,} | {c['frozen']:,} |" for part, c in result["parameters"].items()]
    lines += ["", *_table("tokens of a sample", {k: _plain(v) for k, v in result["tokens_per_sample"].items()})]
    shown = {key.replace("_", " "): _gb(value) for key, value in memory.items() if key != "zero_stage"}
    lines += ["", *_table(f"memory of a rank, ZeRO stage {stage}", shown)]
    lines += ["", *_table("run", {k.replace("_", " "): _plain(v) for k, v in result["run"].items()})]
    lines += ["", *_table("checkpoint", {key: _gb(value) for key, value in result["checkpoint_bytes"].items()})]
    return "\n".join(lines) + "\n"


def _table(title: str, rows: dict[str, str]) -> list[str]:
    return [f"| {title} | |", "| --- | ---: |", *(f"| {key} | {value} |" for key, value in rows.items())]


def _plain(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB"


if __name__ == "__main__":
    main()
