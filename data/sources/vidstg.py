"""VidSTG (2001.06891) sentences on VidOR videos and tracks, read from their published layouts.

    {annotations}/{split}_annotations.json, a list of
      {"vid": "10712559773", "fps": 29.97, "frame_count": 596, "width": 640, "height": 360,
       "used_segment": {"begin_fid": 496, "end_fid": 595}, "temporal_gt": {"begin_fid": 510, "end_fid": 556},
       "captions": [{"description": "the child ... the ball.", "type": "person", "target_id": 2}], "questions": [...],
       "subject/objects": [...], "used_relation": {...}}
    {tracks}/{training,validation}/<subdir>/<vid>.json, of which `video_path` and
      "trajectories": [[{"tid": 2, "bbox": {"xmin": 118, "ymin": 75, "xmax": 219, "ymax": 262}, ...}, ...], ...]

Traps: `used_segment.end_fid` is inclusive but `temporal_gt.end_fid` exclusive, and both count from the start of the
whole video. Captions are declarative sentences, questions interrogative ones. Boxes are only in VidOR.
"""

import json
from pathlib import Path
from typing import Any

from configs.sources import VidstgSource
from data.annotations import AnnotationError, Split, read_json
from data.types import BoxPx, FrameSpan, GroundingSample


def load(config: VidstgSource, split: str) -> Split:
    """All sentences of a split ("train", "val" or "test")."""
    path = Path(config.annotations) / f"{split}_annotations.json"
    track_files = {file.stem: file for file in Path(config.tracks).glob("*/*/*.json")}
    read, cached = Split(), ("", {})
    for index, record in enumerate(read_json(path, list)):
        with read.record(path, f"record {index}"):
            if cached[0] != record["vid"]:
                cached = (record["vid"], _read_tracks(config.tracks, track_files, record["vid"]))
            for sample in _samples_of(record, cached[1], Path(config.videos), f"{split}-{index}"):
                read.add(sample)
    return read


def _read_tracks(root: str, track_files: dict[str, Path], video_id: str) -> dict[str, Any]:
    if video_id not in track_files:
        raise AnnotationError(root, f"expected training/*/{video_id}.json or validation/*/{video_id}.json")
    return json.loads(track_files[video_id].read_text())


def _samples_of(record: dict[str, Any], tracks: dict[str, Any], videos: Path, key: str) -> list[GroundingSample]:
    clip = FrameSpan(record["used_segment"]["begin_fid"], record["used_segment"]["end_fid"] + 1)
    span = FrameSpan(record["temporal_gt"]["begin_fid"], record["temporal_gt"]["end_fid"])
    sentences = [("declarative", s) for s in record["captions"]] + [("interrogative", s) for s in record["questions"]]
    return [
        GroundingSample(
            sample_id=f"{key}-{number}",
            task="stvg",
            query=sentence["description"],
            query_type=query_type,  # type: ignore[arg-type]
            video_path=str(videos / tracks["video_path"]),
            fps=record["fps"],
            width=record["width"],
            height=record["height"],
            clip=clip,
            span=span,
            boxes_xyxy_px=_boxes(tracks["trajectories"], span, sentence["target_id"]),
        )
        for number, (query_type, sentence) in enumerate(sentences)
    ]


def _boxes(trajectories: list[list[dict[str, Any]]], span: FrameSpan, target_id: int) -> tuple[BoxPx | None, ...]:
    def box_at(frame: int) -> BoxPx | None:
        for entry in trajectories[frame]:
            if entry["tid"] == target_id:
                box = entry["bbox"]
                return box["xmin"], box["ymin"], box["xmax"], box["ymax"]
        return None

    if span.end > len(trajectories):
        raise ValueError(f"the span ends at frame {span.end}, the track file has {len(trajectories)} frames")
    return tuple(box_at(frame) for frame in range(span.start, span.end))
