"""Supervised multi-task training."""

from typing import Annotated, Literal

from pydantic import Field

from configs.base import Config
from configs.data import DataConfig, ExposureConfig, FrameChoiceConfig
from configs.model import LossConfig, ModelConfig
from configs.run import RunConfig


class OptimConfig(Config):
    """AdamW; names as in transformers.TrainingArguments."""

    learning_rate: Annotated[float, Field(gt=0)] = 1e-5
    """Of the MLLM."""
    grounder_learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    """Of the modules that are trained from scratch."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    adam_beta2: Annotated[float, Field(gt=0, lt=1)] = 0.999
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    warmup_steps: Annotated[int, Field(ge=0)] = 50
    lr_scheduler_type: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"


class SFTConfig(Config):
    """One supervised run: `python -m sft.train --config configs/sft/bridge_4b.yaml`."""

    run: RunConfig
    data: DataConfig
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    frames: FrameChoiceConfig = FrameChoiceConfig()
    exposure: ExposureConfig = ExposureConfig()
    max_steps: Annotated[int, Field(ge=1)] = 1000
    per_device_train_batch_size: Annotated[int, Field(ge=1)] = 4
    gradient_accumulation_steps: Annotated[int, Field(ge=1)] = 1
    dataloader_num_workers: Annotated[int, Field(ge=0)] = 0
    deepspeed: str | None = None
    """Path of a DeepSpeed JSON, for example configs/deepspeed/zero2.json."""
