"""QVHighlights (2107.09609), as in jayleicn/moment_detr/data.

    {annotations}/highlight_{split}_release.jsonl or highlight_{split}.jsonl, splits train, val, test, test_with_gt
      {"qid": 8737, "query": "A family is playing basketball together on a green court outside.", "duration": 126,
       "vid": "bP5KfdFJzC4_660.0_810.0", "relevant_windows": [[0, 16]], "relevant_clip_ids": [0, 1, 2, 3, 4, 5, 6, 7],
       "saliency_scores": [[4, 1, 1], [4, 1, 1], [4, 2, 1], [4, 3, 2], [4, 3, 2], [4, 3, 3], [4, 3, 3], [4, 3, 2]]}

`vid` is `{YouTube id}_{start}_{end}`, and `{videos}/{vid}.mp4` that piece: windows are seconds of the piece. A query has
several windows in a third of the records: `windows_sec` has them all, the span that is trained on is the longest (our
choice; the earliest listed of equals). Records of the test split have no windows: they are samples without a span.
"""

from typing import Annotated

from pydantic import Field

from configs.sources import QvhighlightsSource
from data.annotations import RawRecord, Split, json_lines, parse_json_line, parse_raw
from data.raw_fields import SecondsPair, Text
from data.sources.files import only_file
from data.sources.seconds import DurationSec, Sentence, add_unprobed, longest
from data.sources.videos import VideoFolder


class Query(RawRecord):
    """A line of the file."""

    qid: int
    query: Sentence
    duration: DurationSec
    vid: Text
    relevant_windows: Annotated[list[SecondsPair], Field(min_length=1)] | None = None


def load(config: QvhighlightsSource, split: str) -> Split:
    """All queries of a split. Raises AnnotationError."""
    path = only_file(config.annotations, (f"highlight_{split}_release.jsonl", f"highlight_{split}.jsonl"))
    read, videos = Split(), VideoFolder(config.videos)
    for name, line in json_lines(path):
        with read.record(path, name):
            query = parse_raw(Query, parse_json_line(line))
            windows_sec = query.relevant_windows or []
            add_unprobed(
                read,
                windows_sec=windows_sec,
                trained_window=longest(windows_sec),
                duration_sec=query.duration,
                field="relevant_windows",
                sample_id=f"{config.type}-{split}-{query.qid}",
                query=query.query,
                video_path=videos.path_of(f"{query.vid}.mp4", field="vid"),
                source=config.type,
            )
    read.flag_duplicates()
    return read
