"""VidSTG (STGRN, 2001.06891): sentences on VidOR videos, from its own annotation files.

    {annotations}/{split}_annotations.json, a list of
      {"vid": "10712559773", "fps": 29.97, "frame_count": 596, "width": 640, "height": 360,
       "used_segment": {"begin_fid": 496, "end_fid": 595}, "temporal_gt": {"begin_fid": 510, "end_fid": 556},
       "captions": [{"description": "the child ... is watching the ball.", "type": "person", "target_id": 2}],
       "questions": [{"description": "who is watching the ball?", "type": "person", "target_id": 2}],
       "subject/objects": [{"tid": 2, "category": "child"}, {"tid": 7, "category": "ball/sports_ball"}],
       "used_relation": {"subject_tid": 2, "object_tid": 7, "predicate": "watch", "begin_fid": 510, "end_fid": 556}}

Traps: `used_segment.end_fid` is inclusive but `temporal_gt.end_fid` exclusive, and both count from the start of the
whole video. Captions are declarative sentences, questions interrogative ones. Boxes are only in VidOR
(data/sources/vidor.py): without `tracks` every box is None and every sample flagged `no_boxes`.

Flags, beside those of data/annotated_boxes.py: `duplicate` (video, sentence and span are those of an earlier sample),
`span_touches_clip_end` (the samples) and `record_touches_clip_end` (their records). A sentence that cannot be used
costs only itself. The files of TubeDETR and STCAT are read by data/sources/vidstg_processed.py.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from configs.sources import VidstgSource
from data.annotated_boxes import add_tube
from data.annotations import AnnotationError, FieldError, RawRecord, Split, frame_span, parse_raw, read_json
from data.raw_fields import Fps, FrameCount, FrameIndex, SidePx, Text
from data.sources import vidstg_processed
from data.sources.videos import VideoFolder
from data.sources.vidor import TrackFolder, VideoTracks
from data.types import FrameSpan, GroundingSample, QueryType


class Interval(RawRecord):
    """Absolute frames; whether the end is inclusive depends on the field."""

    begin_fid: FrameIndex
    end_fid: FrameIndex


class _Sentence(RawRecord):
    description: Text
    target_id: int


class _Object(RawRecord):
    tid: int


class _Record(RawRecord):
    vid: Text
    fps: Fps
    frame_count: FrameCount
    width: SidePx
    height: SidePx
    used_segment: Interval
    temporal_gt: Interval
    captions: list[Any]
    questions: list[Any]
    objects: list[_Object] = Field(alias="subject/objects")

    @property
    def clip(self) -> FrameSpan:
        """Raises FieldError."""
        segment, video = self.used_segment, FrameSpan(0, self.frame_count)
        return frame_span("used_segment", segment.begin_fid, segment.end_fid + 1, within=video)

    @property
    def span(self) -> FrameSpan:
        """Raises FieldError."""
        return frame_span("temporal_gt", self.temporal_gt.begin_fid, self.temporal_gt.end_fid, within=self.clip)

    def sentences(self) -> Iterator[tuple[str, QueryType, Any]]:
        """(field, kind, raw sentence). Raises FieldError where there is none."""
        for number, raw in enumerate(self.captions):
            yield f"captions.{number}", "declarative", raw
        for number, raw in enumerate(self.questions):
            yield f"questions.{number}", "interrogative", raw
        if not self.captions and not self.questions:
            raise FieldError("captions", "expected at least one caption or question")


def load(config: VidstgSource, split: str) -> Split:
    """All sentences of a split ("train", "val" or "test"). Raises AnnotationError where its file cannot be read."""
    read = LAYOUTS[config.layout](config, split)
    read.flag_duplicates()
    return read


@dataclass(frozen=True)
class _Parsed:
    """A record, and what comes of it."""

    name: str
    key: str
    record: _Record
    outcome: Split


def _load_official(config: VidstgSource, split: str) -> Split:
    path = Path(config.annotations) / f"{split}_annotations.json"
    outcomes, by_video = [], defaultdict(list)
    for index, raw in enumerate(read_json(path, list)):
        outcomes.append(Split())
        with outcomes[-1].record(path, f"record {index}"):
            record = parse_raw(_Record, raw)
            by_video[record.vid].append(_Parsed(f"record {index}", f"{split}-{index}", record, outcomes[-1]))
    tracks, videos = TrackFolder(config.tracks) if config.tracks else None, VideoFolder(config.videos)
    for vid, records in by_video.items():  # records of a video are scattered over the file; its tracks are read once
        video_tracks = tracks and _read_or_error(tracks, vid)
        for parsed in records:
            with parsed.outcome.part(path, parsed.name):
                _add_sentences(path, parsed, video_tracks, videos)
    joined = Split()
    for outcome in outcomes:
        joined.extend(outcome)
    return joined


def _read_or_error(tracks: TrackFolder, vid: str) -> VideoTracks | AnnotationError:
    try:
        return tracks.read(vid)
    except AnnotationError as error:
        return error


def _add_sentences(
    path: Path, parsed: _Parsed, tracks: VideoTracks | AnnotationError | None, videos: VideoFolder
) -> None:
    """Keep what is right about a record. Raises AnnotationError, FieldError for what is wrong with all of it."""
    if isinstance(tracks, AnnotationError):
        raise tracks
    record, split = parsed.record, parsed.outcome
    clip, span = record.clip, record.span
    video = tracks.video_in(videos.root) if tracks else videos.path_of(f"{record.vid}.mp4", field="vid")
    touches = ["span_touches_clip_end"] if span.end == clip.end else []
    for number, (field, query_type, raw) in enumerate(record.sentences()):
        with split.part(path, f"{parsed.name}, {field}"):
            sentence = _known_sentence(raw, record, field)
            question = GroundingSample(
                sample_id=f"{parsed.key}-{number}",
                task="stvg",
                query=sentence.description,
                query_type=query_type,
                video_path=video,
                fps=record.fps,
                width=record.width,
                height=record.height,
                clip=clip,
                source="vidstg",
            )
            boxes = tracks.tube(sentence.target_id, span) if tracks else [None] * len(span)
            add_tube(split, question, span, boxes, *touches)
    if touches and split.samples:
        split.flags["record_touches_clip_end"].append(parsed.name)


def _known_sentence(raw: Any, record: _Record, field: str) -> _Sentence:
    """Raises FieldError where the target is not among the record's objects."""
    sentence = parse_raw(_Sentence, raw, at=field)
    known = [entry.tid for entry in record.objects]
    if sentence.target_id not in known:
        raise FieldError(f"{field}.target_id", f"expected one of the video's objects {known}, got {sentence.target_id}")
    return sentence


LAYOUTS = {
    "official": _load_official,
    "tubedetr": vidstg_processed.load_tubedetr,
    "stcat": vidstg_processed.load_stcat,
}
