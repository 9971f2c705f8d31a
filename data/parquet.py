"""Samples as an Arrow table and back: one row a sample, boxes as flat columns of floats instead of Python objects.

A row has the fields of GroundingSample, `clip` and `span` as pairs of frames:

    {"sample_id": "val-0-1", "task": "stvg", "query": "who is watching the ball?", "query_type": "interrogative",
     "video_path": "videos/1164/10712559773.mp4", "fps": 29.97, "width": 640, "height": 360, "clip": [496, 596],
     "span": [510, 556], "boxes_xyxy_px": [[118.0, 75.0, 219.0, 262.0], null, ...], "options": [], "choice": null,
     "windows_sec": [], "source": "vidstg", "more_tubes": []}

`datasets.load_dataset` reads the same file without any code of ours.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data.types import BoxPx, FrameSpan, GroundingSample, Tube

Boxes = tuple[BoxPx | None, ...]
PAIR_OF_FRAMES, BOX = pa.list_(pa.int64(), 2), pa.list_(pa.float64(), 4)
TUBE = pa.struct({"span": PAIR_OF_FRAMES, "boxes_xyxy_px": pa.list_(BOX), "object": pa.int64()})
SCHEMA = pa.schema(
    {
        "sample_id": pa.string(),
        "task": pa.string(),
        "query": pa.string(),
        "video_path": pa.string(),
        "fps": pa.float64(),
        "width": pa.int64(),
        "height": pa.int64(),
        "clip": PAIR_OF_FRAMES,
        "query_type": pa.string(),
        "span": PAIR_OF_FRAMES,
        "boxes_xyxy_px": pa.list_(BOX),
        "options": pa.list_(pa.string()),
        "choice": pa.string(),
        "windows_sec": pa.list_(pa.list_(pa.float64(), 2)),
        "source": pa.string(),
        "more_tubes": pa.list_(TUBE),
    }
)
ADDED_LATER = "more_tubes"
"""A column that a file may lack: no sample in it has any."""
ROWS_PER_GROUP = 1000
"""Samples that are held as columns at a time: about 10 MB of boxes for spans of 300 frames."""


def write_samples(path: Path, samples: Sequence[GroundingSample]) -> None:
    """One Parquet file; the same samples give the same bytes."""
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for start in range(0, len(samples), ROWS_PER_GROUP):
            writer.write_table(to_table(samples[start : start + ROWS_PER_GROUP]))


def read_samples(path: Path) -> Iterator[GroundingSample]:
    """Samples of a file, in order. Raises OSError or pyarrow.ArrowInvalid for a file, ValueError for a row."""
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            yield from from_table(file.read_row_group(group))


def to_table(samples: Sequence[GroundingSample]) -> pa.Table:
    """The rows of some samples."""
    columns = [_column(field, [getattr(sample, field.name) for sample in samples]) for field in SCHEMA]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def _column(field: pa.Field, values: list[Any]) -> pa.Array:
    if field.name in ("clip", "span"):
        return pa.array([None if span is None else (span.start, span.end) for span in values], type=field.type)
    if field.name == "boxes_xyxy_px":
        return _boxes_column(values)
    if field.name == "more_tubes":
        return pa.array([[_tube_row(tube) for tube in tubes] for tubes in values], type=field.type)
    return pa.array(values, type=field.type)


def _tube_row(tube: Tube) -> dict[str, Any]:
    return {**asdict(tube), "span": (tube.span.start, tube.span.end)}


def _boxes_column(values: list[Boxes | None]) -> pa.Array:
    """Nested lists of one flat array: N samples have F frames in all, of which some have no box."""
    lengths_N = [0 if boxes is None else len(boxes) for boxes in values]
    boxes_F = [box for boxes in values if boxes is not None for box in boxes]
    absent_F = np.fromiter((box is None for box in boxes_F), bool, len(boxes_F))
    flat = chain.from_iterable((0.0,) * 4 if box is None else box for box in boxes_F)
    coordinates = pa.array(np.fromiter(flat, np.float64, 4 * len(boxes_F)))
    frames = pa.FixedSizeListArray.from_arrays(coordinates, type=BOX, mask=pa.array(absent_F))
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths_N)]), pa.int32())
    missing = pa.array([boxes is None for boxes in values], pa.bool_())
    return pa.ListArray.from_arrays(offsets, frames, mask=missing)


def from_table(table: pa.Table) -> Iterator[GroundingSample]:
    """The samples of some rows. Raises ValueError where a row is not one, or a column is missing."""
    known = {*table.column_names, ADDED_LATER}
    if missing := [field.name for field in fields(GroundingSample) if field.name not in known]:
        raise ValueError(f"no column {missing[0]!r}, its columns are {table.column_names}")
    plain = [name for name in SCHEMA.names if name != "boxes_xyxy_px" and name in table.column_names]
    rows = table.select(plain).to_pylist()
    for row, boxes in zip(rows, _boxes_of(table.column("boxes_xyxy_px")), strict=True):
        yield _sample(row, boxes)


def _sample(row: dict[str, Any], boxes: Boxes | None) -> GroundingSample:
    values = {
        **row,
        "clip": FrameSpan(*row["clip"]),
        "span": None if row["span"] is None else FrameSpan(*row["span"]),
        "boxes_xyxy_px": boxes,
        "options": tuple(row["options"]),
        "windows_sec": tuple((start, end) for start, end in row["windows_sec"]),
        "more_tubes": tuple(map(_tube, row.get("more_tubes", ()))),
    }
    return GroundingSample(**values)


def _tube(row: dict[str, Any]) -> Tube:
    boxes = tuple(None if box is None else (box[0], box[1], box[2], box[3]) for box in row["boxes_xyxy_px"])
    return Tube(FrameSpan(*row["span"]), boxes, row["object"])


def _boxes_of(column: pa.ChunkedArray) -> Iterator[Boxes | None]:
    """Sentences about the same track follow each other: they share one tuple."""
    before: tuple[np.ndarray, np.ndarray, Boxes] | None = None
    for chunk in column.chunks:
        for boxes in chunk:
            if not boxes.is_valid:
                yield None
                continue
            coordinates_F4, absent_F = _coordinates(boxes.values)
            same = before is not None and np.array_equal(before[0], coordinates_F4)
            if not (same and before is not None and np.array_equal(before[1], absent_F)):
                before = coordinates_F4, absent_F, _as_tuples(coordinates_F4, absent_F)
            yield before[2]


def _coordinates(frames: pa.FixedSizeListArray) -> tuple[np.ndarray, np.ndarray]:
    """-> float64 [F, 4] and bool [F], true where a frame has no box (its coordinates are 0 then)."""
    absent_F = np.asarray(frames.is_null())
    coordinates_F4 = np.zeros((len(frames), 4))
    coordinates_F4[~absent_F] = np.asarray(frames.drop_null().flatten()).reshape(-1, 4)
    return coordinates_F4, absent_F


def _as_tuples(coordinates_F4: np.ndarray, absent_F: np.ndarray) -> Boxes:
    rows = zip(coordinates_F4.tolist(), absent_F.tolist(), strict=True)
    return tuple(None if absent else tuple(box) for box, absent in rows)
