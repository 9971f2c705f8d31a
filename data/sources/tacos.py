"""TACoS (Regneri et al., TACL 2013) in the JSON of 2D-TAN (microsoft/VideoX, 2D-TAN/data/TACoS).

    {annotations}/{split}.json, splits train, val and test
      {"s34-d28.avi": {"timestamps": [[201, 487], [501, 954], ...],
        "sentences": ["The person gets out a knife.", "The person gets out a wooden plate and a bowl.", ...],
        "fps": 29.4, "num_frames": 11800}, ...}

Trap: timestamps are frames. Divided by `fps` they are seconds of the video, as 2D-TAN evaluates them; 201 is 6.84 s.
The video is `{videos}/s34-d28.avi`.
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from configs.sources import TacosSource
from data.annotations import Split
from data.sources.moments import DescribedVideo, Layout, read_moments


class TacosVideo(DescribedVideo):
    """A video whose timestamps are frames."""

    fps: Annotated[float, Field(gt=0, le=1000)]
    num_frames: Annotated[int, Field(gt=0, le=10_000_000)]

    @property
    def duration_sec(self) -> float:
        return self.num_frames / self.fps

    def to_sec(self, timestamp: float) -> float:
        return timestamp / self.fps


def load(config: TacosSource, split: str) -> Split:
    """All sentences of a split ("train", "val" or "test"). Raises AnnotationError."""
    path = Path(config.annotations) / f"{split}.json"
    return read_moments(path, Layout(config.type, TacosVideo, suffix=""), videos=config.videos, split_name=split)
