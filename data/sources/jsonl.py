"""The user's own annotations: `{root}/{split}.jsonl`, one JSON object a line, the fields of GroundingSample:

    {"sample_id": "v0001-0", "task": "stvg", "query": "the red circle", "query_type": "declarative",
     "video_path": "train/v0001.mp4", "fps": 8.0, "width": 64, "height": 64, "clip": [0, 64], "span": [12, 40],
     "boxes_xyxy_px": [[3.0, 4.0, 20.0, 21.0], null, ...]}

`clip` and `span` are half-open frames of the file; one box, or null, per frame of the span. `task` is stvg (default),
temporal, rec (a clip of one frame) or qa (`options`, and `choice` as a letter). A relative `video_path` starts at
`root`. A line that does not fit is an AnnotationError with file, line and reason.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from configs.sources import JsonlSource
from data.annotations import FieldError, Split, parse_json_line, read_text
from data.types import FrameSpan, GroundingSample


def load(config: JsonlSource, split: str) -> Split:
    """All samples of a split."""
    return read_split(Path(config.root) / f"{split}.jsonl")


def read_split(path: Path) -> Split:
    """Parse a file; relative video paths are resolved against its folder."""
    split = Split()
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            with split.record(path, f"line {number}"):
                split.add(_parse(line, path))
    return split


def read_samples(path: Path) -> list[GroundingSample]:
    """The samples of a file in which every line has to be right. Raises AnnotationError."""
    split = read_split(path)
    if split.rejected:
        raise split.rejected[0]
    return split.samples


def write_samples(path: Path, samples: Iterable[GroundingSample]) -> None:
    """Write a file that `read_samples` reads back; video paths inside its folder become relative."""
    lines = [json.dumps(_to_record(sample, path.parent)) for sample in samples]
    path.write_text("".join(f"{line}\n" for line in lines))


def _to_record(sample: GroundingSample, folder: Path) -> dict[str, Any]:
    record = asdict(sample)
    video = Path(sample.video_path)
    record["video_path"] = str(video.relative_to(folder) if video.is_relative_to(folder) else video)
    for key in ("clip", "span"):
        span = getattr(sample, key)
        record[key] = None if span is None else [span.start, span.end]
    return record


def _parse(line: str, path: Path) -> GroundingSample:
    record = parse_json_line(line)
    unknown = set(record) - {field.name for field in fields(GroundingSample)}
    if unknown:
        raise FieldError(sorted(unknown)[0], "is not a field of a sample")
    return _from_record(record, path.parent)


def _from_record(record: dict[str, Any], folder: Path) -> GroundingSample:
    boxes = record.get("boxes_xyxy_px")
    values = {
        "task": "stvg",
        **record,
        "video_path": str(folder / record["video_path"]),
        "clip": FrameSpan(*record["clip"]),
        "span": FrameSpan(*record["span"]) if record.get("span") else None,
        "boxes_xyxy_px": None if boxes is None else tuple(None if box is None else tuple(box) for box in boxes),
        "options": tuple(record.get("options", ())),
        "windows_sec": tuple((start, end) for start, end in record.get("windows_sec", ())),
    }
    return GroundingSample(**values)
