"""Where samples come from: one config for each annotation source, told apart by `type`."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

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


class PreparedSource(Config):
    """What `python -m data.prepare --source NAME --out DIR` wrote: a `datasets` folder in Parquet with its report."""

    type: Literal["prepared"] = "prepared"
    root: str
    """The folder."""
    problem_videos: Literal["error", "skip"] = "error"
    """What samples do in training whose video `data.prepare` found missing, broken or another one than annotated: end
    the run as it begins, or be left out and counted in the log. A prediction keeps them: each is a failed answer."""


class AnnotationFiles(Config):
    """Published annotation files and the videos (or images) that they are about."""

    annotations: str
    """Folder with the published annotation files; their names are in the docstring of data/sources/<type>.py."""
    videos: str = ""
    """Folder with the videos or images. Empty where there are none: annotations can be counted and answers scored."""


class VidstgSource(AnnotationFiles):
    """VidSTG sentences with VidOR tracks and videos; see data/sources/vidstg.py."""

    type: Literal["vidstg"] = "vidstg"
    layout: Literal["official", "tubedetr", "stcat"] = "official"
    """Whose files: VidSTG's own, or as TubeDETR's or STCAT's preprocessing wrote them (both hold boxes)."""
    tracks: str = ""
    """VidOR annotation root, holding `{training,validation}/<subdir>/<vid>.json`; the official layout has no boxes
    without it."""


class HcstvgV1Source(AnnotationFiles):
    """HC-STVG version 1; see data/sources/hcstvg.py."""

    type: Literal["hcstvg_v1"] = "hcstvg_v1"


class HcstvgV2Source(AnnotationFiles):
    """HC-STVG version 2; see data/sources/hcstvg.py."""

    type: Literal["hcstvg_v2"] = "hcstvg_v2"


class CharadesStaSource(AnnotationFiles):
    """Charades-STA, text or JSON files; see data/sources/charades_sta.py."""

    type: Literal["charades_sta"] = "charades_sta"


class ActivitynetCaptionsSource(AnnotationFiles):
    """ActivityNet Captions; see data/sources/activitynet_captions.py."""

    type: Literal["activitynet_captions"] = "activitynet_captions"


class QvhighlightsSource(AnnotationFiles):
    """QVHighlights; see data/sources/qvhighlights.py."""

    type: Literal["qvhighlights"] = "qvhighlights"


class DidemoSource(AnnotationFiles):
    """DiDeMo; see data/sources/didemo.py."""

    type: Literal["didemo"] = "didemo"


class TacosSource(AnnotationFiles):
    """TACoS; see data/sources/tacos.py."""

    type: Literal["tacos"] = "tacos"


class NextgqaSource(AnnotationFiles):
    """NExT-GQA, grounded multiple-choice questions; see data/sources/nextgqa.py."""

    type: Literal["nextgqa"] = "nextgqa"


class RefcocoSource(AnnotationFiles):
    """RefCOCO, RefCOCO+ or RefCOCOg on COCO images; see data/sources/refcoco.py."""

    type: Literal["refcoco"] = "refcoco"
    dataset: Literal["refcoco", "refcoco+", "refcocog"] = "refcoco"
    split_by: Literal["unc", "google", "umd"] = "unc"
    """Who split it. RefCOCOg by `google` shares images between train and val: use `umd`."""


AnySource = (
    SyntheticSource
    | JsonlSource
    | PreparedSource
    | VidstgSource
    | HcstvgV1Source
    | HcstvgV2Source
    | CharadesStaSource
    | ActivitynetCaptionsSource
    | QvhighlightsSource
    | DidemoSource
    | TacosSource
    | NextgqaSource
    | RefcocoSource
)
Source = Annotated[AnySource, Field(discriminator="type")]


class MixturePart(Config):
    """One source of a mixture: how often it is drawn, and which of its tasks and splits are used."""

    source: Source
    weight: Annotated[float, Field(ge=0)] = 1.0
    """How often it is drawn, relative to the other parts. 0 leaves it out, and its files are not read."""
    tasks: dict[Task, Annotated[float, Field(ge=0)]] | None = None
    """Weight of each task among the samples drawn from this part; None takes `data.tasks`. A task that `data.tasks`
    leaves out is left out of every part; a task named here of which there is no sample is an error."""
    splits: dict[str, str | None] = {}
    """The part's own name for a split of the run, such as {validation: val}; null where it has none and is left out.
    A split that is not named here has the run's name."""


PartName = Annotated[str, StringConstraints(pattern=r"^[\w-]+$")]


class MixtureSource(Config):
    """Several sources as one: a sample's id is `part/id`, its source the part's name."""

    type: Literal["mixture"] = "mixture"
    parts: Annotated[dict[PartName, MixturePart], Field(min_length=1)]
    """By name: letters, digits, _ and -."""
