"""The optimizer of either stage."""

from typing import Annotated, Literal

from pydantic import Field

from configs.base import Config


class OptimConfig(Config):
    """AdamW; names as in transformers.TrainingArguments."""

    learning_rate: Annotated[float, Field(gt=0)] = 1e-5
    """Of the MLLM."""
    vision_learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Of the MLLM's vision tower and its mergers, where they are trained; None: `learning_rate`."""
    grounder_learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    """Of the modules that are trained from scratch."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    adam_beta2: Annotated[float, Field(gt=0, lt=1)] = 0.999
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    warmup_steps: Annotated[int, Field(ge=0)] = 50
    lr_scheduler_type: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"


class RFTOptimConfig(OptimConfig):
    """The same with the defaults of reinforcement fine-tuning: learning rates a tenth, no warm-up."""

    learning_rate: Annotated[float, Field(gt=0)] = 1e-6
    grounder_learning_rate: Annotated[float, Field(gt=0)] = 1e-5
    warmup_steps: Annotated[int, Field(ge=0)] = 0


def check_vision_rate(optim: OptimConfig, *, freeze_vision: bool) -> None:
    """Raises ValueError for a learning rate of a vision tower that is not trained."""
    if optim.vision_learning_rate is not None and freeze_vision:
        raise ValueError(
            f"optim.vision_learning_rate: the vision tower is frozen, set freeze_vision=false or leave it out; got "
            f"{optim.vision_learning_rate}"
        )
