"""report.json: everything that is known about a prepared split, counted and measured from its Parquet file.

Statistics are of columns, so a split of any size is measured within a few hundred MB.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

STATISTICS = {
    "clip_sec": "clip, s",
    "span_sec": "span, s",
    "span_share": "span / clip",
    "words": "words in a sentence",
    "fps": "frames per second",
    "width": "width, px",
    "height": "height, px",
    "boxed_share": "frames of the span with a box",
}
"""What is measured of a split, and how the report calls it."""


@dataclass(frozen=True)
class Measures:
    """By sample, in order; nan where a sample has no such thing. N samples."""

    values_N: dict[str, np.ndarray]

    def of(self, name: str) -> np.ndarray:
        """Those that are there."""
        return self.values_N[name][~np.isnan(self.values_N[name])]


def measure(path: Path) -> Measures:
    """Measure the samples of a Parquet file."""
    table = pq.read_table(path, columns=["query", "fps", "width", "height", "clip", "span"])
    fps_N = table["fps"].to_numpy()
    clip_N, span_N = _lengths(table["clip"]), _lengths(table["span"])
    probed_N = table["width"].to_numpy() > 0
    words = [len(query.split()) for query in table["query"].to_pylist()]
    return Measures(
        {
            "clip_sec": clip_N / fps_N,
            "span_sec": span_N / fps_N,
            "span_share": span_N / clip_N,
            "words": np.array(words, float),
            **{name: np.where(probed_N, table[name].to_numpy(), np.nan) for name in ("fps", "width", "height")},
            "boxed_share": _boxed_share(path),
        }
    )


def _lengths(column: pa.ChunkedArray) -> np.ndarray:
    """Frames from start to end; nan for null. -> [N] float."""
    return np.array([np.nan if pair is None else pair[1] - pair[0] for pair in column.to_pylist()], float)


def _boxed_share(path: Path) -> np.ndarray:
    """Share of a sample's frames that have a box; nan for a sample of a task without boxes. -> [N]."""
    shares: list[np.ndarray] = [np.empty(0)]
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(columns=["boxes_xyxy_px"]):
            column = batch.column(0)
            num_frames_N = np.nan_to_num(column.value_lengths().to_numpy(zero_copy_only=False).astype(float))
            has_box_F = np.asarray(column.flatten().is_valid())
            counts_N = np.concatenate([[0], np.cumsum(has_box_F)])[np.cumsum([0, *num_frames_N]).astype(int)]
            with np.errstate(invalid="ignore"):
                shares.append(np.diff(counts_N) / num_frames_N)
    return np.concatenate(shares)


def split_report(path: Path, facts: dict[str, Any], measures: Measures) -> dict[str, Any]:
    """Counts, statistics and facts of one split, as JSON."""
    table = pq.read_table(path, columns=["task", "query_type"])
    kinds = Counter(zip(table["task"].to_pylist(), table["query_type"].to_pylist(), strict=True))
    statistics = {name: _statistics(measures.of(name)) for name in STATISTICS}
    return {
        "records": facts["records"],
        "samples": len(table),
        "by_task": [{"task": task, "query_type": kind, "samples": n} for (task, kind), n in sorted(kinds.items())],
        "effective": _effective(path, facts, measures),
        "statistics": {name: values for name, values in statistics.items() if values is not None},
        **{key: facts[key] for key in ("rejected", "flags", "videos")},
    }


def _statistics(values_N: np.ndarray) -> dict[str, float] | None:
    if not len(values_N):
        return None
    named = {"min": np.min, "median": np.median, "mean": np.mean, "max": np.max}
    return {"samples": len(values_N), **{name: round(float(function(values_N)), 4) for name, function in named.items()}}


def _effective(path: Path, facts: dict[str, Any], measures: Measures) -> dict[str, int]:
    """How many samples can be used for what: scored, trained on with boxes, read."""
    table = pq.read_table(path, columns=["sample_id", "span", "choice", "width"])
    has_answer_N = np.asarray(table["span"].is_valid()) | np.asarray(table["choice"].is_valid())
    probed_N = table["width"].to_numpy() > 0
    bad = {sample_id for row in facts["videos"]["problems"] for sample_id in row["samples"]}
    readable_N = np.array([sample_id not in bad for sample_id in table["sample_id"].to_pylist()], bool)
    return {
        "with an answer": int(has_answer_N.sum()),
        "with a box in some frame": int((np.nan_to_num(measures.values_N["boxed_share"]) > 0).sum()),
        "with frame rate and size of the video": int(probed_N.sum()),
        **(
            {"with a video that was looked at and is right": int(readable_N.sum())}
            if facts["videos"]["looked_at"]
            else {}
        ),
    }
