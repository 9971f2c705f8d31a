"""What the data of a run is: where samples come from, how videos are read, how prompts are written."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from configs.base import Config

Task = Literal["stvg", "temporal", "rec", "qa"]


class SyntheticSource(Config):
    """Short rendered H.264 videos of coloured moving shapes; their tracks are exact. Difficulty is these fields."""

    type: Literal["synthetic"] = "synthetic"
    root: str
    """Folder that holds, or will hold, `{split}.jsonl` and `{split}/*.mp4`."""
    seed: int = 0
    num_videos: dict[str, Annotated[int, Field(ge=1)]] = {"train": 240, "validation": 40, "test": 80}
    """Rendered videos per split; a video carries one sample for each object and task."""
    num_objects: tuple[int, int] = (1, 2)
    """Fewest and most shapes in a video; the others are distractors for the one in question."""
    size_px: Annotated[int, Field(ge=32, multiple_of=2)] = 64
    """Width and height of the video; H.264 wants them even."""
    fps: Annotated[float, Field(gt=0)] = 8.0
    duration_sec: Annotated[float, Field(gt=0)] = 8.0
    min_interval_sec: Annotated[float, Field(gt=0)] = 2.0
    max_interval_sec: Annotated[float, Field(gt=0)] = 6.0
    object_px: tuple[int, int] = (14, 26)
    """Smallest and largest side of a shape."""
    motion_probability: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of shapes that are always visible and *move* in their interval; the rest are *visible* only in it."""
    noise_std: Annotated[float, Field(ge=0)] = 4.0
    """Standard deviation of the pixel noise, of 255."""

    @model_validator(mode="after")
    def _consistent(self) -> "SyntheticSource":
        if not 1 <= self.num_objects[0] <= self.num_objects[1] <= 3:
            raise ValueError(f"num_objects: expected 1 <= fewest <= most <= 3, got {self.num_objects}")
        if self.min_interval_sec * self.fps < 1:
            raise ValueError(f"min_interval_sec: expected at least one frame, 1 / {self.fps} s")
        if not self.min_interval_sec <= self.max_interval_sec < self.duration_sec:
            raise ValueError(
                "expected min_interval_sec <= max_interval_sec < duration_sec, got "
                f"{self.min_interval_sec}, {self.max_interval_sec}, {self.duration_sec}"
            )
        if not 4 <= self.object_px[0] <= self.object_px[1] <= self.size_px // 2:
            raise ValueError(f"object_px: expected 4 <= smallest <= largest <= size_px / 2, got {self.object_px}")
        return self


class JsonlSource(Config):
    """Your own annotations, one JSON object per line; the schema is in data/sources/jsonl.py."""

    type: Literal["jsonl"] = "jsonl"
    root: str
    """Folder with `{split}.jsonl`; relative video paths are resolved against it."""


class VidstgSource(Config):
    """VidSTG sentences with VidOR tracks and videos, in their published layouts; see data/sources/vidstg.py."""

    type: Literal["vidstg"] = "vidstg"
    annotations: str
    """Folder with VidSTG's `{train,val,test}_annotations.json`."""
    tracks: str
    """VidOR annotation root, holding `{training,validation}/<subdir>/<vid>.json`."""
    videos: str
    """VidOR video root, holding `<subdir>/<vid>.mp4` (VidOR's `video_path`)."""


Source = Annotated[SyntheticSource | JsonlSource | VidstgSource, Field(discriminator="type")]


class VideoConfig(Config):
    """How a clip becomes frames; the same pixels and timestamps go to the trainer and to vLLM."""

    decoder: Literal["decord", "pyav"] = "decord"
    sample_fps: Annotated[float, Field(gt=0)] = 2.0
    """Frames per second given to the model (STVG-o1 section 4.1 uses 2)."""
    max_frames: Annotated[int, Field(ge=2)] = 64
    """A longer clip is sampled uniformly with this many frames."""
    max_pixels: Annotated[int, Field(ge=1024)] | None = None
    """Upper bound of frames x height x width after resizing; None keeps the processor's own."""
    cache_gib: Annotated[float, Field(ge=0)] = 2.0
    """Memory of each rank for encoded prompts with their frames, and as much again for decoded clips, which other
    sentences ask about; the latest used ones are kept."""


class PromptConfig(Config):
    """How question and answer are written."""

    prompt_order: Literal["query_video_query", "video_query"] = "query_video_query"
    """With the query only after the video, causal attention leaves every frame token blind to it (NOTES.md)."""
    time_decimals: Annotated[int, Field(ge=0, le=3)] = 1
    """Decimals of a second in the answer."""


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

    source: Source
    video: VideoConfig = VideoConfig()
    prompt: PromptConfig = PromptConfig()
    train_split: str = "train"
    """Split that is trained on. GRPO gains from videos that SFT has not seen: on those it knows by heart, answers of
    one group differ for no reason that carries over (NOTES.md)."""
    tasks: dict[Task, Annotated[float, Field(ge=0)]] = {"stvg": 1.0}
    """Sampling weight of each task; a task of weight 0 is left out."""
