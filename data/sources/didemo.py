"""DiDeMo (1708.01641), as in LisaAnne/LocalizingMoments/data.

    {annotations}/{split}_data.json, splits train, val and test
      [{"num_segments": 6, "description": "someone kicks the bug towards some rocks.",
        "dl_link": "https://www.flickr.com/video_download.gne?id=4253489686",
        "times": [[4, 4], [4, 4], [0, 0], [4, 4], [0, 0], [0, 0], [4, 4]],
        "video": "26292851@N04_4253489686_265c3c8051.m4v", "annotation_id": 1}, ...]

`times` has one answer for each of four or more annotators: the first and the last chunk of 5 s, both inclusive, so that
[1, 4] is 5 s to 25 s. The last chunk of a video is often shorter, and a longer video was shown up to 30 s: the clip is
`5 * num_segments` seconds, of which the video file may have less. `windows_sec` has all annotators' intervals, equal
ones too: the official score of an answer is the mean IoU with the three that fit it best (utils/eval.py, `eval_predictions`).
The span that is trained on is the interval that most annotators gave; of equals the one that this score likes best, then
the earliest (our choice).
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from configs.sources import DidemoSource
from data.annotations import FieldError, RawRecord, Split, parse_raw, read_json
from data.raw_fields import Text
from data.sources.seconds import Sentence, add_unprobed
from data.sources.videos import VideoFolder

CHUNK_SEC = 5
Chunk = Annotated[int, Field(ge=0, le=5)]
Chunks = Annotated[list[Chunk], Field(min_length=2, max_length=2)]
"""First and last chunk, inclusive."""


class Description(RawRecord):
    """A record of the file."""

    num_segments: Annotated[int, Field(ge=1, le=6)]
    description: Sentence
    times: Annotated[list[Chunks], Field(min_length=1)]
    video: Text
    annotation_id: int


def load(config: DidemoSource, split: str) -> Split:
    """All descriptions of a split. Raises AnnotationError."""
    path = Path(config.annotations) / f"{split}_data.json"
    read, videos = Split(), VideoFolder(config.videos)
    for index, raw in enumerate(read_json(path, list)):
        with read.record(path, f"record {index}"):
            record = parse_raw(Description, raw)
            _check_times(record.times)
            add_unprobed(
                read,
                windows_sec=[(first * CHUNK_SEC, (last + 1) * CHUNK_SEC) for first, last in record.times],
                trained_window=consensus(record.times),
                duration_sec=record.num_segments * CHUNK_SEC,
                field="times",
                sample_id=f"{config.type}-{split}-{record.annotation_id}",
                query=record.description,
                video_path=videos.path_of(record.video, field="video"),
                source=config.type,
            )
    read.flag_duplicates()
    return read


def _check_times(times: list[list[int]]) -> None:
    for first, last in times:
        if last < first:
            raise FieldError("times", f"expected first chunk <= last chunk, got {first}, {last}")


def consensus(times: list[list[int]]) -> int:
    """Index of the most frequent interval; of equals the one with the best official score, then the earliest."""

    def preference(index: int) -> tuple[int, float, list[int]]:
        return -times.count(times[index]), -official_score(times[index], times), times[index]

    return min(range(len(times)), key=preference)


def official_score(answer: list[int], times: list[list[int]]) -> float:
    """Mean of the three best IoUs with the annotators' intervals, chunks inclusive (utils/eval.py of the authors)."""
    best = sorted((_chunk_iou(answer, annotated) for annotated in times), reverse=True)[:3]
    return sum(best) / len(best)


def _chunk_iou(a: list[int], b: list[int]) -> float:
    """As the authors write it: the union is the hull, gap included."""
    shared = max(0, min(a[1], b[1]) + 1 - max(a[0], b[0]))
    return shared / (max(a[1], b[1]) + 1 - min(a[0], b[0]))
