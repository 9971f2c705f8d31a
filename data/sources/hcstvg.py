"""HC-STVG (2011.05049), versions 1 and 2: sentences about people in clips of 20 seconds.

Version 1, {annotations}/{train,test}.json:
    {"55_vfjywN5CN0Y.mp4": {"bbox": [[x, y, w, h], ...], "st_time": 8.914734192388288, "ed_time": 17.544734192388397,
       "img_num": 600, "caption": "The woman in red clothes turns in a circle.", "width": 640, "height": 360,
       "st_frame": 268}, ...}
Version 2, {annotations}/{train_v2,val_v2}.json (in some copies {trainv2,valv2}.json): "English" for "caption", and
    "img_size": [360, 640, 3] (height first) for "width" and "height".
Its split "test" has no public answers, query_v2.json:
    {"3_5MxjqHfkWFI.mkv": "The man in blue clothes stands up and raises his hand.", ...}
so its samples have no span, and no size until the video has been looked at.

Traps: `st_frame` counts from 1, and the tube has one box for each frame from there: the span is
[st_frame - 1, st_frame - 1 + len(bbox)). `st_time`, `ed_time` and `ed_frame` disagree with it (tzhhhh123/HC-STVG#9)
and are not read. `img_num` is the number of frames that were extracted from the 20 seconds, so fps = img_num / 20.
Boxes are xywh. Videos lie in numbered sub-folders and are found by name.

Flags, beside those of data/annotated_boxes.py: `tube_past_clip_end` (boxes after the last frame are left out) and
`duplicate`. The sample id is the name of the video, as in the official result file.
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from configs.sources import HcstvgV1Source, HcstvgV2Source
from data.annotated_boxes import add_tube, xywh_to_xyxy
from data.annotations import FieldError, RawRecord, Split, frame_span, parse_raw, read_json_pairs
from data.raw_fields import FourPx, FrameCount, SidePx, Text
from data.sources.files import only_file
from data.sources.videos import VideoFolder
from data.types import TICKS_PER_SEC, FrameSpan, GroundingSample

CLIP_SEC = 20
"""Length of every clip (README of tzhhhh123/HC-STVG)."""


class _Tube(RawRecord):
    bbox: Annotated[list[FourPx], Field(min_length=1)]
    img_num: FrameCount
    st_frame: Annotated[int, Field(ge=1)]


class _V1Record(_Tube):
    caption: Text
    width: SidePx
    height: SidePx

    @property
    def sentence_and_size(self) -> tuple[str, int, int]:
        """(sentence, width, height)."""
        return self.caption, self.width, self.height


class _V2Record(_Tube):
    English: Text
    img_size: Annotated[list[SidePx], Field(min_length=2, max_length=3)]

    @property
    def sentence_and_size(self) -> tuple[str, int, int]:
        """(sentence, width, height)."""
        return self.English, self.img_size[1], self.img_size[0]


class _Query(RawRecord):
    sentence: Text


def load_v1(config: HcstvgV1Source, split: str) -> Split:
    """Splits "train" and "test". Raises AnnotationError where the file cannot be read."""
    return _read_tubes(Path(config.annotations) / f"{split}.json", _V1Record, config)


def load_v2(config: HcstvgV2Source, split: str) -> Split:
    """Splits "train", "val" and "test"; the last has only queries. Raises AnnotationError where the file cannot be read."""
    if split == "test":
        return _read_queries(only_file(config.annotations, ("query_v2.json", "queryv2.json")), config)
    return _read_tubes(only_file(config.annotations, (f"{split}_v2.json", f"{split}v2.json")), _V2Record, config)


def _read_tubes(
    path: Path, schema: type[_V1Record] | type[_V2Record], config: HcstvgV1Source | HcstvgV2Source
) -> Split:
    read, videos = Split(), VideoFolder(config.videos)
    for name, raw in read_json_pairs(path):
        with read.record(path, f"record {name!r}"):
            _add_tube(read, parse_raw(schema, raw), name, videos, config.type)
    read.flag_duplicates()
    return read


def _add_tube(read: Split, record: _V1Record | _V2Record, name: str, videos: VideoFolder, source: str) -> None:
    sentence, width, height = record.sentence_and_size
    question = GroundingSample(
        sample_id=name,
        task="stvg",
        query=sentence,
        video_path=videos.path_of(name, field="video"),
        fps=record.img_num / CLIP_SEC,
        width=width,
        height=height,
        clip=FrameSpan(0, record.img_num),
        source=source,
    )
    start, end = record.st_frame - 1, record.st_frame - 1 + len(record.bbox)
    if start >= record.img_num:
        raise FieldError("st_frame", f"expected one of the {record.img_num} frames, from 1, got {record.st_frame}")
    span = frame_span("st_frame", start, min(end, record.img_num))
    flags = ["tube_past_clip_end"] if end > record.img_num else []
    add_tube(read, question, span, [xywh_to_xyxy(box) for box in record.bbox[: len(span)]], *flags)


def _read_queries(path: Path, config: HcstvgV2Source) -> Split:
    read, videos = Split(), VideoFolder(config.videos)
    for name, raw in read_json_pairs(path):
        with read.record(path, f"record {name!r}"):
            read.add(_question(parse_raw(_Query, {"sentence": raw}).sentence, name, videos, config.type))
    return read


def _question(sentence: str, name: str, videos: VideoFolder, source: str) -> GroundingSample:
    """Nobody says how many frames the clip has: its clock is TICKS_PER_SEC."""
    return GroundingSample(
        sample_id=name,
        task="stvg",
        query=sentence,
        video_path=videos.path_of(name, field="video"),
        fps=float(TICKS_PER_SEC),
        width=0,
        height=0,
        clip=FrameSpan(0, CLIP_SEC * TICKS_PER_SEC),
        source=source,
    )
