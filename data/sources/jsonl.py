"""The user's own annotations: `{root}/{split}.jsonl`, one JSON object a line, the fields of GroundingSample:

    {"sample_id": "v0001-0", "task": "stvg", "query": "the red circle", "query_type": "declarative",
     "video_path": "train/v0001.mp4", "fps": 8.0, "width": 64, "height": 64, "clip": [0, 64], "span": [12, 40],
     "boxes_xyxy_px": [[3.0, 4.0, 20.0, 21.0], null, ...]}

| field | type | meaning |
|---|---|---|
| sample_id | text | unique in the file |
| task | stvg (default), temporal, rec or qa | rec: a clip of one frame, which is the span too |
| query | text | the sentence or question |
| query_type | declarative (default) or interrogative | |
| video_path | text | absolute, or from `root` on, without `..` |
| fps | number | frames per second of the file |
| width, height | integers | of the video in pixels; 0 where unknown: temporal, qa, and samples without a span |
| clip | two integers | half-open frames of the file that the model is given |
| span | two integers or null | half-open frames of the file: the answer; null where nobody has answered |
| boxes_xyxy_px | list or null | stvg, rec: for each frame of the span left, top, right, bottom in pixels, or null |
| options, choice | list of texts, a letter | qa: the options, and the right one as "A", "B", ... |
| windows_sec | list of two numbers each | temporal: all true intervals in seconds of the clip, where there are several |
| source | text | where it came from; for reports |
| more_tubes | list of `{"span": [20, 30], "boxes_xyxy_px": [...], "object": 1}` | stvg, rec: further spans of the object of `span`, which is object 0, and other objects; a question alone, since training and metrics take one |

Other fields, and values of other types (true for 1, "8" for 8.0), are errors. A line that does not fit is an
AnnotationError with file, line, field and what is expected; the other lines are read.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from configs.sources import JsonlSource
from data.annotations import (
    FieldError,
    RawRecord,
    Split,
    frame_span,
    json_lines,
    media_path,
    parse_json_line,
    parse_raw,
)
from data.raw_fields import MAX_SIDE_PX, FourPx, Fps, SecondsPair, Text, TickPair
from data.types import FrameSpan, GroundingSample, QueryType, Task, Tube

_Side = Annotated[int, Field(ge=0, le=MAX_SIDE_PX)]


class _Tube(RawRecord):
    model_config = ConfigDict(extra="forbid")

    span: TickPair
    boxes_xyxy_px: list[FourPx | None]
    object: int = 0


class _Record(RawRecord):
    model_config = ConfigDict(extra="forbid")

    sample_id: Text
    task: Task = "stvg"
    query: Text
    query_type: QueryType = "declarative"
    video_path: Text
    fps: Fps
    width: _Side
    height: _Side
    clip: TickPair
    span: TickPair | None = None
    boxes_xyxy_px: list[FourPx | None] | None = None
    options: list[Text] = []
    choice: Text | None = None
    windows_sec: list[SecondsPair] = []
    source: str = ""
    more_tubes: list[_Tube] = []


def load(config: JsonlSource, split: str) -> Split:
    """All samples of a split."""
    return read_split(Path(config.root) / f"{split}.jsonl")


def read_split(path: Path) -> Split:
    """Parse a file; relative video paths are resolved against its folder."""
    split = Split()
    for name, line in json_lines(path):
        with split.record(path, name):
            split.add(_from_record(parse_raw(_Record, parse_json_line(line)), path.parent))
    return split


def read_samples(path: Path) -> list[GroundingSample]:
    """The samples of a file in which every line has to be right. Raises AnnotationError."""
    split = read_split(path)
    if split.rejected:
        raise split.rejected[0]
    return split.samples


def write_samples(path: Path, samples: Iterable[GroundingSample]) -> None:
    """Write a file that `read_samples` reads back; video paths inside its folder become relative, others absolute."""
    lines = [json.dumps(_to_record(sample, path.parent)) for sample in samples]
    path.write_text("".join(f"{line}\n" for line in lines))


def _to_record(sample: GroundingSample, folder: Path) -> dict[str, Any]:
    record = asdict(sample)
    video = Path(sample.video_path)
    record["video_path"] = str(video.relative_to(folder) if video.is_relative_to(folder) else video.absolute())
    for key in ("clip", "span"):
        span: FrameSpan | None = getattr(sample, key)
        record[key] = None if span is None else [span.start, span.end]
    record["more_tubes"] = [{**asdict(tube), "span": [tube.span.start, tube.span.end]} for tube in sample.more_tubes]
    return record if sample.more_tubes else {key: value for key, value in record.items() if key != "more_tubes"}


def _from_record(record: _Record, folder: Path) -> GroundingSample:
    boxes = record.boxes_xyxy_px
    values = dict(record) | {
        "video_path": _video_path(record.video_path, folder),
        "clip": frame_span("clip", *record.clip),
        "span": record.span and frame_span("span", *record.span),
        "boxes_xyxy_px": None if boxes is None else tuple(boxes),
        "options": tuple(record.options),
        "windows_sec": tuple(record.windows_sec),
        "more_tubes": tuple(
            Tube(frame_span("more_tubes", *tube.span), tuple(tube.boxes_xyxy_px), tube.object)
            for tube in record.more_tubes
        ),
    }
    return GroundingSample(**values)


def _video_path(path: str, folder: Path) -> str:
    if not path.startswith("/"):
        return media_path(folder, path, field="video_path")
    if "\0" in path:
        raise FieldError("video_path", f"expected a path, got {path!r}")
    return path
