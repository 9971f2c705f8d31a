"""What the data of a run is: where samples come from, how videos are read, how prompts are written."""

from typing import Annotated, Literal

from pydantic import Field

from configs.base import Config
from configs.sources import AnySource, MixtureSource, Task
from configs.video import VideoConfig


class PromptConfig(Config):
    """How question and answer are written."""

    prompt_order: Literal["query_video_query", "video_query"] = "query_video_query"
    """With the query only after the video, causal attention leaves every frame token blind to it (NOTES.md)."""
    time_decimals: Annotated[int, Field(ge=0, le=3)] = 1
    """Decimals of a second in the answer."""
    tube_unit: Literal["seconds", "frames"] = "seconds"
    """What the indices of a tube written as text count (grounder `text`): whole seconds of the clip, or the frames that the
    model is shown, from 0."""


class FrameChoiceConfig(Config):
    """Which frames the spatial decoder sees in training (positive/negative frame sampling, QGSL)."""

    num_positive: Annotated[int, Field(ge=1)] = 6
    """Frames drawn inside the true interval."""
    num_negative: Annotated[int, Field(ge=0)] = 2
    """Frames drawn outside of it."""


class ExposureConfig(Config):
    """Exposure perturbation: with teacher forcing the bridging queries read the true interval from the answer.

    A perturbed sample carries a shifted answer that is not scored as text, so that boxes, presence and alignment do
    not come to trust it. Our own choice (NOTES.md).
    """

    probability: Annotated[float, Field(ge=0, le=1)] = 0.3
    max_shift_sec: Annotated[float, Field(ge=0)] = 2.0


class AnnotationErrorConfig(Config):
    """Imprecise annotation, simulated: each end of the interval that SFT's text learns is off by up to this much.

    Annotators of real videos disagree by about a second; the reward of GRPO is exact here. Boxes, presence and
    alignment keep the truth. Our own choice (NOTES.md).
    """

    max_error_sec: Annotated[float, Field(ge=0)] = 0.0


class DataConfig(Config):
    """Samples, videos and prompts of one run."""

    source: Annotated[AnySource | MixtureSource, Field(discriminator="type")]
    video: VideoConfig = VideoConfig()
    prompt: PromptConfig = PromptConfig()
    train_split: str = "train"
    """Split that is trained on. GRPO gains from videos that SFT has not seen: on those it knows by heart, answers of
    one group differ for no reason that carries over (NOTES.md)."""
    tasks: dict[Task, Annotated[float, Field(ge=0)]] = {"stvg": 1.0}
    """Sampling weight of each task; a task of weight 0 is left out."""
    batches: Literal["mixed", "per_task"] = "mixed"
    """Whether the samples of a training step are of any task, or all of one task that is drawn for the step."""
    bad_records: Literal["error", "skip"] = "error"
    """What a record that cannot be used does: end the run, or be left out and counted in the log."""
