"""VidSTG as the preprocessing of TubeDETR and of STCAT wrote it: one record for each sentence, boxes included.

TubeDETR (2203.16434, preproc/preproc_vidstg.py), {annotations}/{split}.json:
    {"videos": [{"original_video_id": "10712559773", "frame_count": 596, "fps": 29.97, "width": 640, "height": 360,
       "start_frame": 496, "end_frame": 595, "tube_start_frame": 510, "tube_end_frame": 556, "video_id": 0,
       "video_path": "0042/10712559773.mp4", "caption": "who is watching the ball?", "type": "person",
       "target_id": 2, "qtype": "interrogative"}, ...],
     "trajectories": {"10712559773": {"2": {"510": {"bbox": [118, 75, 101, 187], ...}, ...}}}}
Boxes are xywh, frames absolute. `end_frame` is VidSTG's used_segment.end_fid, so inclusive; `tube_end_frame` exclusive.

STCAT (2209.13306, datasets/vidstg.py), {annotations}/{split}.json, its folder vstg_annos; CGSTVG and TA-STVG use it too:
    {"0": {"id": 0, "vid": "10712559773", "fps": 29.97, "width": 640, "height": 360, "frame_count": 100,
       "used_segment": {"begin_fid": 496, "end_fid": 595}, "ori_temp_gt": {"begin_fid": 510, "end_fid": 556},
       "temp_gt": {"begin_fid": 14, "end_fid": 60}, "qtype": "declar", "target_category": "child",
       "sentence": {"description": "the child ... is watching the ball.", "type": "person", "target_id": 2},
       "target_bboxs": [{"xmin": 118, "ymin": 75, "xmax": 219, "ymax": 262}, {}, ...]}}
`frame_count` is that of the segment. `used_segment` and `ori_temp_gt` are VidSTG's own, absolute, and what is read.
`temp_gt` counts from the segment's start and STCAT takes its end as inclusive; only its begin is checked.
`target_bboxs` begin at ori_temp_gt.begin_fid and hold one box too many, that of frame end_fid, unless the video ends
there: the span is [begin_fid, end_fid) as in the other layouts, and the box too many is dropped. {} is a missing box.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from configs.sources import VidstgSource
from data.annotated_boxes import add_tube, xywh_to_xyxy
from data.annotations import (
    FieldError,
    RawRecord,
    Split,
    errors_of,
    frame_span,
    media_path,
    parse_raw,
    read_json,
    read_json_pairs,
)
from data.raw_fields import FourPx, Fps, FrameCount, FrameIndex, SidePx, Text
from data.sources.videos import VideoFolder
from data.sources.vidor import Bbox
from data.types import BoxPx, FrameSpan, GroundingSample, QueryType


class _TubedetrFile(RawRecord):
    videos: list[Any]
    trajectories: dict[str, Any]


class _TubedetrVideo(RawRecord):
    original_video_id: Text
    video_id: int
    frame_count: FrameCount
    fps: Fps
    width: SidePx
    height: SidePx
    start_frame: FrameIndex
    end_frame: FrameIndex
    tube_start_frame: FrameIndex
    tube_end_frame: FrameIndex
    video_path: Text
    caption: Text
    target_id: int
    qtype: QueryType


class _XywhEntry(RawRecord):
    bbox: FourPx


def load_tubedetr(config: VidstgSource, split: str) -> Split:
    """All sentences of a split. Raises AnnotationError where its file cannot be read."""
    path, read = Path(config.annotations) / f"{split}.json", Split()
    tree = read_json(path, dict)
    with errors_of(path):
        file = parse_raw(_TubedetrFile, tree)
    for index, raw in enumerate(file.videos):
        with read.record(path, f"videos.{index}"):
            _add_tubedetr(read, raw, file.trajectories, config.videos, split)
    return read


def _add_tubedetr(read: Split, raw: Any, trajectories: dict[str, Any], videos: str, split: str) -> None:
    video = parse_raw(_TubedetrVideo, raw)
    clip = frame_span("end_frame", video.start_frame, video.end_frame + 1, within=FrameSpan(0, video.frame_count))
    span = frame_span("tube_end_frame", video.tube_start_frame, video.tube_end_frame, within=clip)
    question = GroundingSample(
        sample_id=f"{split}-{video.video_id}",
        task="stvg",
        query=video.caption,
        query_type=video.qtype,
        video_path=media_path(videos, video.video_path, field="video_path"),
        fps=video.fps,
        width=video.width,
        height=video.height,
        clip=clip,
        source="vidstg",
    )
    place = f"trajectories.{video.original_video_id}"
    tracks = _entry(trajectories, video.original_video_id, "trajectories", "original_video_id")
    track = _entry(tracks, str(video.target_id), place, "target_id")
    boxes = _tubedetr_boxes(track, span, f"{place}.{video.target_id}")
    _add(read, question, span, boxes)


def _entry(tree: dict[str, Any], key: str, place: str, field: str) -> dict[str, Any]:
    """Raises FieldError: `field` of the record points at nothing."""
    if key not in tree:
        raise FieldError(field, f"expected a key of {place}, got {key!r}")
    if not isinstance(tree[key], dict):
        raise FieldError(f"{place}.{key}", f"expected an object, found a {type(tree[key]).__name__}")
    return tree[key]


def _tubedetr_boxes(track: dict[str, Any], span: FrameSpan, place: str) -> list[BoxPx | None]:
    def box_at(frame: int) -> BoxPx | None:
        raw = track.get(str(frame))
        return None if raw is None else xywh_to_xyxy(parse_raw(_XywhEntry, raw, at=f"{place}.{frame}").bbox)

    return [box_at(frame) for frame in range(span.start, span.end)]


class _Interval(RawRecord):
    begin_fid: FrameIndex
    end_fid: FrameIndex


class _Begin(RawRecord):
    begin_fid: FrameIndex


class _Sentence(RawRecord):
    description: Text


class _StcatRecord(RawRecord):
    id: int
    vid: Text
    fps: Fps
    width: SidePx
    height: SidePx
    used_segment: _Interval
    ori_temp_gt: _Interval
    temp_gt: _Begin
    qtype: Literal["declar", "inter"]
    sentence: _Sentence
    target_bboxs: list[Any]


def load_stcat(config: VidstgSource, split: str) -> Split:
    """All sentences of a split. Raises AnnotationError where its file cannot be read."""
    path, read, videos = Path(config.annotations) / f"{split}.json", Split(), VideoFolder(config.videos)
    for key, raw in read_json_pairs(path):
        with read.record(path, f"record {key!r}"):
            _add_stcat(read, parse_raw(_StcatRecord, raw), videos, split)
    return read


def _add_stcat(read: Split, record: _StcatRecord, videos: VideoFolder, split: str) -> None:
    segment, interval = record.used_segment, record.ori_temp_gt
    clip = frame_span("used_segment", segment.begin_fid, segment.end_fid + 1)
    span = frame_span("ori_temp_gt", interval.begin_fid, interval.end_fid, within=clip)
    if record.temp_gt.begin_fid != span.start - clip.start:
        cause = f"expected {span.start - clip.start}, counted from the segment's start, got {record.temp_gt.begin_fid}"
        raise FieldError("temp_gt.begin_fid", cause)
    question = GroundingSample(
        sample_id=f"{split}-{record.id}",
        task="stvg",
        query=record.sentence.description,
        query_type="declarative" if record.qtype == "declar" else "interrogative",
        video_path=videos.path_of(f"{record.vid}.mp4", field="vid"),
        fps=record.fps,
        width=record.width,
        height=record.height,
        clip=clip,
        source="vidstg",
    )
    _add(read, question, span, _stcat_boxes(record.target_bboxs, span))


def _stcat_boxes(raw: list[Any], span: FrameSpan) -> list[BoxPx | None]:
    if len(raw) not in (len(span), len(span) + 1):
        cause = f"expected {len(span)} boxes, or one more for frame {span.end}, got {len(raw)}"
        raise FieldError("target_bboxs", cause)
    wanted = raw[: len(span)]
    return [None if box == {} else parse_raw(Bbox, box, at=f"target_bboxs.{i}").xyxy for i, box in enumerate(wanted)]


def _add(read: Split, question: GroundingSample, span: FrameSpan, boxes: Sequence[BoxPx | None]) -> None:
    flags = ["span_touches_clip_end"] if span.end == question.clip.end else []
    add_tube(read, question, span, boxes, *flags)
