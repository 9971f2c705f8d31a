"""Supervised multi-task training."""

from typing import Annotated

from pydantic import Field

from configs.base import Config
from configs.data import DataConfig, ExposureConfig, FrameChoiceConfig
from configs.model import LossConfig, ModelConfig
from configs.optim import OptimConfig
from configs.run import RunConfig


class SFTConfig(Config):
    """One supervised run: `python -m sft.train --config configs/sft/bridge_2b.yaml`."""

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
