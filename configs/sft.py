"""Supervised multi-task training."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from configs.base import Config
from configs.checkpoints import CheckpointConfig
from configs.cluster import RayConfig
from configs.data import AnnotationErrorConfig, DataConfig, ExposureConfig, FrameChoiceConfig
from configs.model import LossConfig, ModelConfig
from configs.optim import OptimConfig, check_vision_rate
from configs.run import RunConfig


class ValidationConfig(Config):
    """The supervised loss on samples that are not trained on; the checkpoint with the lowest is kept."""

    every_steps: Annotated[int, Field(ge=1)] | None = None
    split: str = "validation"
    max_samples: Annotated[int, Field(ge=1)] = 128


class UnreadableVideosConfig(Config):
    """What a video does that cannot be read when its turn comes; `data.prepare --check-videos` finds such files before."""

    policy: Literal["error", "skip"] = "error"
    """End the run with its name, or let its row add nothing to any loss: each process names the file in its log
    once, and rows of training are counted in the metrics, data/unreadable/missing and data/unreadable/undecodable."""
    max_share: Annotated[float, Field(ge=0, le=1)] = 0.01
    """With `skip`: the run ends once it has skipped more than this share of the rows of all its steps together, counted
    from its last start on."""


class SFTConfig(Config):
    """One supervised run: `python -m sft.train --config configs/sft/bridge_2b.yaml`."""

    run: RunConfig
    data: DataConfig
    model: ModelConfig = ModelConfig()
    checkpoint: str | None = None
    """Checkpoint folder to start from, of an earlier stage; None starts from `model.backbone` with a fresh grounder.
    Backbone and grounder are then the checkpoint's, and `model.backbone` and the grounder's section are not used; `data.prompt`
    has to be what it learned, another one is an error."""
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    frames: FrameChoiceConfig = FrameChoiceConfig()
    exposure: ExposureConfig = ExposureConfig()
    annotation_error: AnnotationErrorConfig = AnnotationErrorConfig()
    unreadable_videos: UnreadableVideosConfig = UnreadableVideosConfig()
    checkpoints: CheckpointConfig = CheckpointConfig()
    validation: ValidationConfig = ValidationConfig()
    max_steps: Annotated[int, Field(ge=1)] = 1000
    per_device_train_batch_size: Annotated[int, Field(ge=1)] = 4
    gradient_accumulation_steps: Annotated[int, Field(ge=1)] = 1
    micro_batches: Literal["as_drawn", "by_length"] = "as_drawn"
    """How a step's samples are put into micro-batches: as they were drawn, `per_device_train_batch_size` in each, or
    neighbours in length together, few long ones or many short ones, so that there is little padding and ranks have as much
    to do (data/batching.py). Then that is their mean number; the samples of a step are the same. Not with ZeRO
    stage 3."""
    dataloader_num_workers: Annotated[int, Field(ge=0)] = 0
    deepspeed: str | None = None
    """Path of a DeepSpeed JSON, for example configs/deepspeed/zero2.json."""

    @model_validator(mode="after")
    def _trained_vision(self) -> "SFTConfig":
        check_vision_rate(self.optim, freeze_vision=self.model.freeze_vision)
        return self

    @model_validator(mode="after")
    def _whole_intervals(self) -> "SFTConfig":
        every = self.checkpoints.every_steps
        if every is not None and every % self.run.log_every:
            raise ValueError(
                f"checkpoints.every_steps: expected a multiple of run.log_every={self.run.log_every}, so that what is "
                f"logged after a resume is a mean over the same steps; got {every}"
            )
        return self


class RaySFTConfig(SFTConfig):
    """The same on Ray: `python -m sft.ray_train`. Where ranks run is no part of the run, and not in its config.yaml."""

    ray: RayConfig = RayConfig()

    def of_run(self) -> SFTConfig:
        """The config of the run itself."""
        return SFTConfig.model_validate(self.model_dump(mode="json", exclude={"ray"}, exclude_unset=True))
