"""Charades-STA (TALL, 1705.02101): sentences with an interval in seconds, as text or as JSON.

    {annotations}/charades_sta_{split}.txt (jiyanggao/TALL), splits train and test
      AO8RW 0.0 6.9##a person is putting a book on a shelf.
    or {annotations}/charades_sta_{split}.json or {split}.json (www-Ye/Time-R1, OpenGVLab/VideoChat-R1)
      {"AO8RW": {"duration": 33.75, "timestamps": [[0.0, 6.9]],
                 "sentences": ["a person is putting a book on a shelf."]}, ...}

The video is `{videos}/AO8RW.mp4`. Traps: many ends lie past the duration: `windows_sec` keeps them, flagged
"end_past_duration", the span is cut. A few train intervals are reversed, and rejected. `val.json` of the JSON form is the
test split. The text has no durations; they are read from Charades' own `Charades_v1_{split}.csv` (columns `id` and
`length`) if it lies beside it. Where it does not, the clip ends with the last interval of its video, flagged
"duration_unknown", until the video file has been looked at.
"""

from dataclasses import replace
from pathlib import Path

from configs.sources import CharadesStaSource
from data.annotations import AnnotationError, FieldError, RawRecord, Split, parse_raw, read_text
from data.raw_fields import SecondsPair, Text
from data.sources.files import only_file, read_csv
from data.sources.moments import Layout, read_moments
from data.sources.seconds import MAX_SEC, Sentence, add_unprobed
from data.sources.videos import VideoFolder
from data.types import FrameSpan

DURATION_UNKNOWN = "duration_unknown"


class TextLine(RawRecord):
    """A line `video start end##sentence`."""

    video: Text
    interval: SecondsPair
    sentence: Sentence


def load(config: CharadesStaSource, split: str) -> Split:
    """All sentences of a split. Raises AnnotationError."""
    names = (f"charades_sta_{split}.txt", f"charades_sta_{split}.json", f"{split}.json")
    path = only_file(config.annotations, names)
    if path.suffix == ".json":
        return read_moments(path, Layout(config.type), videos=config.videos, split_name=split)
    return _read_lines(path, config, split)


def _read_lines(path: Path, config: CharadesStaSource, split_name: str) -> Split:
    split, videos = Split(), VideoFolder(config.videos)
    lengths = _Lengths(path.with_name(f"Charades_v1_{split_name}.csv"))
    for number, text in enumerate(read_text(path).split("\n"), start=1):
        if text.strip():
            with split.record(path, f"line {number}"):
                line = _parse_line(text)
                duration_sec = lengths.of(line.video)
                sample = add_unprobed(
                    split,
                    windows_sec=[line.interval],
                    duration_sec=duration_sec or line.interval[1],
                    field="interval",
                    sample_id=f"{config.type}-{split_name}-{number}",
                    query=line.sentence,
                    video_path=videos.path_of(f"{line.video}.mp4", field="video"),
                    source=config.type,
                )
                if duration_sec is None:
                    split.flags[DURATION_UNKNOWN].append(sample.sample_id)
    _end_clips_with_their_video(split)
    split.flag_duplicates()
    return split


def _parse_line(text: str) -> TextLine:
    place, mark, sentence = text.partition("##")
    parts = place.split()
    if not mark or len(parts) != 3:
        raise FieldError("(line)", f"expected `video start end##sentence`, got {text[:80]!r}")
    interval = [_to_number(part, "interval") for part in parts[1:]]
    return parse_raw(TextLine, {"video": parts[0], "interval": interval, "sentence": sentence})


def _to_number(text: str | None, field: str) -> float:
    try:
        return float(text or "")
    except ValueError:
        raise FieldError(field, f"expected seconds, got {text!r:.80}") from None


class _Lengths:
    """Lengths of videos, from Charades' table where that is there."""

    def __init__(self, path: Path) -> None:
        rows = read_csv(path, ("id", "length")) if path.is_file() else []
        self.path, self.length_of_video = path, {row["id"]: row["length"] for row in rows}

    def of(self, video: str) -> float | None:
        """Seconds, or None where the table lacks the video. Raises AnnotationError, which names the table."""
        if video not in self.length_of_video:
            return None
        try:
            length_sec = _to_number(self.length_of_video[video], "length")
        except FieldError as error:
            raise AnnotationError(self.path, error.cause, record=video, field=error.field) from None
        if not 0 < length_sec <= MAX_SEC:
            raise AnnotationError(self.path, f"expected seconds, got {length_sec}", record=video, field="length")
        return length_sec


def _end_clips_with_their_video(split: Split) -> None:
    """Where a video's length is unknown, give its samples one clip, up to the last end among them."""
    unknown, last_end = set(split.flags.get(DURATION_UNKNOWN, ())), {}
    for sample in split.samples:
        last_end[sample.video_path] = max(sample.clip.end, last_end.get(sample.video_path, 0))
    split.samples[:] = [
        replace(sample, clip=FrameSpan(0, last_end[sample.video_path])) if sample.sample_id in unknown else sample
        for sample in split.samples
    ]
