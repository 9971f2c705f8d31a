"""Videos with sentences and their intervals, the layout that Charades-STA, ActivityNet Captions and TACoS share:

    {"<video>": {"timestamps": [[start, end], ...], "sentences": ["...", ...], <length of the video>}}

A video is a record, a sentence a part of it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from data.annotations import FieldError, RawRecord, Split, parse_raw, read_json_pairs
from data.raw_fields import SecondsPair, Text
from data.sources.seconds import DurationSec, Sentence, add_unprobed
from data.sources.videos import VideoFolder


class DescribedVideo(RawRecord):
    """A video; its sentences are checked one by one, so that a bad one does not take the others with it."""

    timestamps: Annotated[list[Any], Field(min_length=1)]
    sentences: list[Any]

    @property
    def duration_sec(self) -> float:
        """Length of the video."""
        raise NotImplementedError

    def to_sec(self, timestamp: float) -> float:
        """A timestamp of this layout in seconds."""
        return timestamp


class VideoInSeconds(DescribedVideo):
    """A video whose length and timestamps are seconds."""

    duration: DurationSec

    @property
    def duration_sec(self) -> float:
        return self.duration


class Moment(RawRecord):
    """One sentence of a video; the fields are called as in the file. timestamps: in the unit of the layout."""

    video: Text
    timestamps: SecondsPair
    sentences: Sentence


@dataclass(frozen=True)
class Layout:
    """What differs between the data sets. suffix: of a video file, after the name that the annotations give it."""

    source: str
    schema: type[DescribedVideo] = VideoInSeconds
    suffix: str = ".mp4"


def read_moments(path: Path, layout: Layout, *, videos: str, split_name: str) -> Split:
    """All sentences of a file; ids are `{source}-{split}-{video}-{index of the sentence}`. Raises AnnotationError."""
    split, folder = Split(), VideoFolder(videos)
    for name, raw in read_json_pairs(path):
        with split.record(path, name):
            video = parse_raw(layout.schema, raw)
            _check_lengths(video)
            for index, (timestamps, sentence) in enumerate(zip(video.timestamps, video.sentences, strict=True)):
                with split.part(path, f"{name}, sentence {index}"):
                    moment = parse_raw(Moment, {"video": name, "timestamps": timestamps, "sentences": sentence})
                    start, end = (video.to_sec(timestamp) for timestamp in moment.timestamps)
                    add_unprobed(
                        split,
                        windows_sec=[(start, end)],
                        duration_sec=video.duration_sec,
                        field="timestamps",
                        sample_id=f"{layout.source}-{split_name}-{name}-{index}",
                        query=moment.sentences,
                        video_path=folder.path_of(name + layout.suffix, field="video"),
                        source=layout.source,
                    )
    split.flag_duplicates()
    return split


def _check_lengths(video: DescribedVideo) -> None:
    num_timestamps, num_sentences = len(video.timestamps), len(video.sentences)
    if num_sentences != num_timestamps:
        raise FieldError("sentences", f"expected one for each of the {num_timestamps} timestamps, got {num_sentences}")
