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

from configs.data import JsonlSource
from data.types import FrameSpan, GroundingSample


class AnnotationError(ValueError):
    """An annotation file or record cannot be used; the message names the file, the record and what is expected."""


def load(config: JsonlSource, split: str) -> list[GroundingSample]:
    """All samples of a split."""
    return read_samples(Path(config.root) / f"{split}.jsonl")


def read_samples(path: Path) -> list[GroundingSample]:
    """Parse a file; relative video paths are resolved against its folder."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise AnnotationError(f"{path}: no such annotation file") from None
    return [_parse(line, path, number) for number, line in enumerate(lines, start=1) if line.strip()]


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


def _parse(line: str, path: Path, number: int) -> GroundingSample:
    try:
        record = json.loads(line)
        unknown = set(record) - {field.name for field in fields(GroundingSample)}
        if unknown:
            raise ValueError(f"unknown fields {sorted(unknown)}")
        return _from_record(record, path.parent)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        reason = f"field {error} is missing" if isinstance(error, KeyError) else error
        raise AnnotationError(f"{path}, line {number}: {reason}") from error


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
    }
    return GroundingSample(**values)
