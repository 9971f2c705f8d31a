"""From config to modules: a fresh grounder on a backbone, or a checkpoint folder."""

import logging
from pathlib import Path
from typing import Any

import torch

from configs.base import ConfigError
from configs.checkpoints import check_checkpoint
from configs.data import DataConfig, PromptConfig
from configs.model import ModelConfig
from configs.optim import OptimConfig
from model.attention import check_attention
from model.backbone import freeze_vision_tower, load_mllm, load_processor, vision_tower
from model.grounders import check_grounder
from model.grounding_model import MLLM_FOLDER, GroundingConfig, GroundingModel
from model.lora import add_lora, merged_state, save_adapters

logger = logging.getLogger(__name__)
FRAME_SAMPLING = {"sample_fps", "num_frames", "max_frames", "max_prompt_tokens"}
"""What of a VideoConfig decides which frames a prompt has."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def build_model(config: ModelConfig, data: DataConfig) -> tuple[GroundingModel, Any]:
    """A fresh grounder on the configured backbone, weights that are trained in float32, and the processor with the run's
    pixel budget. Raises GrounderError for a grounder that there is none of, and for arguments that it does not take."""
    check_grounder(config.grounder, config.grounder_args)
    check_attention(config.attention, config.dtype)
    mllm = load_mllm(config.backbone, dtype=DTYPES[config.frozen_dtype], attention=config.attention)
    processor = load_processor(config.backbone, max_pixels=data.video.max_pixels)
    grounding_config = GroundingConfig(
        grounder=config.grounder,
        grounder_args=config.args_of_grounder(),
        prompt=data.prompt.model_dump(),
        video=data.video.model_dump(include=FRAME_SAMPLING),
    )
    model = GroundingModel(grounding_config, mllm)
    if config.freeze_vision:
        freeze_vision_tower(mllm)
    logger.info("%s: %.1f M parameters, grounder %.1f M", config.backbone, _millions(model), _millions(model.grounder))
    return model, processor


def start_model(
    config: ModelConfig, data: DataConfig, *, checkpoint: str | None, resumed: Path | None
) -> tuple[GroundingModel, Any]:
    """The model of a supervised run: from `checkpoint`, or fresh on the backbone; resumed: this run's own last step.

    With LoRA a resumed run takes the weights that it began with, and the adapters and the grounder of its last step.
    """
    start = checkpoint if config.lora is not None else resumed or checkpoint
    model, processor = build_model(config, data) if start is None else continue_model(config, data, start)
    if config.lora is not None:
        add_lora(model, config.lora, resumed=resumed)
    return model, processor


def continue_model(config: ModelConfig, data: DataConfig, folder: str | Path) -> tuple[GroundingModel, Any]:
    """A checkpoint folder's model to be trained further. Raises ConfigError where another grounder or prompt is asked for."""
    check_attention(config.attention, config.dtype)
    model, processor = load_checkpoint(folder, dtype=config.frozen_dtype, attention=config.attention)
    if "grounder" in config.model_fields_set and config.grounder != model.config.grounder:
        raise ConfigError(f"model.grounder: {folder} has {model.config.grounder}, got {config.grounder}")
    trained = PromptConfig(**(model.config.prompt or {}))
    if data.prompt != trained:
        raise ConfigError(f"data.prompt: {folder} was trained with {trained}, got {data.prompt}")
    model.config.video = data.video.model_dump(include=FRAME_SAMPLING)
    if config.freeze_vision:
        freeze_vision_tower(model.mllm)
    return model.train(), processor


def _millions(module: torch.nn.Module) -> float:
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6


def load_checkpoint(folder: str | Path, *, dtype: str, attention: str = "sdpa") -> tuple[GroundingModel, Any]:
    """A checkpoint folder's model (in eval mode) and processor. Raises CheckpointError."""
    check_checkpoint(folder)
    model = GroundingModel.from_pretrained(folder, dtype=DTYPES[dtype], attn_implementation=attention)
    return model, load_processor(str(Path(folder) / MLLM_FOLDER))


def as_trained(data: DataConfig, config: GroundingConfig) -> DataConfig:
    """The data config with prompt and frame sampling as the checkpoint was trained; frame sampling that was set stays,
    and a `sample_fps` that was set takes the place of a trained `num_frames`.

    Raises ValueError for a prompt or a pixel budget that was set and is not the checkpoint's.
    """
    trained_prompt = PromptConfig(**(config.prompt or {}))
    if data.prompt.model_fields_set and data.prompt != trained_prompt:
        raise ValueError(f"data.prompt: the checkpoint was trained with {trained_prompt}, got {data.prompt}")
    if data.video.max_pixels is not None:
        raise ValueError("data.video.max_pixels: fixed by the checkpoint's processor, set it for SFT")
    was_set = data.video.model_fields_set
    if "sample_fps" in was_set:
        was_set = was_set | {"num_frames"}
    trained = {key: value for key, value in (config.video or {}).items() if key not in was_set}
    video = data.video.model_copy(update=trained)
    return data.model_copy(update={"prompt": trained_prompt, "video": video})


def save_checkpoint(
    model: GroundingModel, processor: Any, folder: str | Path, *, state: dict[str, torch.Tensor] | None = None
) -> None:
    """Write a checkpoint folder; the processor goes to the MLLM it belongs to. `state`: gathered from all ranks.

    With LoRA the MLLM's weights are the merged ones, and the adapters are beside them.
    """
    state = model.state_dict() if state is None else state
    model.save_pretrained(folder, state_dict=merged_state(model, state))
    save_adapters(state, Path(folder))
    processor.save_pretrained(Path(folder) / MLLM_FOLDER)


def make_optimizer(model: GroundingModel, optim: OptimConfig) -> torch.optim.AdamW:
    """AdamW on the trainable parameters: a learning rate for the LLM, for the vision tower and for the grounder."""
    groups = _parameter_groups(model, optim)
    return torch.optim.AdamW(groups, betas=(0.9, optim.adam_beta2), weight_decay=optim.weight_decay)


def _parameter_groups(model: GroundingModel, optim: OptimConfig) -> list[dict]:
    has_vision_rate = optim.vision_learning_rate is not None
    vision = {id(parameter) for parameter in vision_tower(model.mllm).parameters()} if has_vision_rate else set()
    grounder = {id(parameter) for parameter in model.grounder.parameters()}
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if id(p) not in grounder | vision], "lr": optim.learning_rate},
        {"params": [p for p in trainable if id(p) in vision], "lr": optim.vision_learning_rate},
        {"params": [p for p in trainable if id(p) in grounder], "lr": optim.grounder_learning_rate},
    ]
    return [group for group in groups if group["params"]]
