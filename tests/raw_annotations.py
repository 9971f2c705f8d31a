"""A short valid record of each layout of spatio-temporal annotations, and how its file is written and read.

Every tube has three frames, and the second record is another one than the first.
"""

import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.sources import HcstvgV1Source, HcstvgV2Source, JsonlSource, VidstgSource
from data.annotations import Split
from data.sources import hcstvg, jsonl, vidstg

VIDSTG: dict[str, Any] = {
    "vid": "77",
    "fps": 25.0,
    "frame_count": 50,
    "width": 640,
    "height": 360,
    "used_segment": {"begin_fid": 10, "end_fid": 39},
    "temporal_gt": {"begin_fid": 20, "end_fid": 23},
    "captions": [{"description": "the child is watching the ball.", "type": "person", "target_id": 2}],
    "questions": [],
    "subject/objects": [{"tid": 2, "category": "child"}],
}
TUBEDETR: dict[str, Any] = {
    "original_video_id": "77",
    "video_id": 0,
    "frame_count": 50,
    "fps": 25.0,
    "width": 640,
    "height": 360,
    "start_frame": 10,
    "end_frame": 39,
    "tube_start_frame": 20,
    "tube_end_frame": 23,
    "video_path": "0042/77.mp4",
    "caption": "the child is watching the ball.",
    "target_id": 2,
    "qtype": "declarative",
}
STCAT: dict[str, Any] = {
    "id": 0,
    "vid": "77",
    "fps": 25.0,
    "width": 640,
    "height": 360,
    "used_segment": {"begin_fid": 10, "end_fid": 39},
    "ori_temp_gt": {"begin_fid": 20, "end_fid": 23},
    "temp_gt": {"begin_fid": 10, "end_fid": 13},
    "qtype": "declar",
    "sentence": {"description": "the child is watching the ball.", "type": "person", "target_id": 2},
    "target_bboxs": [{"xmin": 1, "ymin": 2, "xmax": right, "ymax": 40} for right in (30, 31, 32, 33)],
}
HCSTVG_V1: dict[str, Any] = {
    "bbox": [[1, 2, 30, 40], [1.5, 2, 30, 40], [2, 2, 30, 40]],
    "img_num": 500,
    "caption": "The woman in red clothes turns in a circle.",
    "width": 640,
    "height": 360,
    "st_frame": 268,
}
HCSTVG_V2: dict[str, Any] = {
    "bbox": HCSTVG_V1["bbox"],
    "img_num": 500,
    "img_size": [360, 640, 3],
    "English": "The woman in red clothes turns in a circle.",
    "st_frame": 268,
}
JSONL: dict[str, Any] = {
    "sample_id": "0",
    "task": "stvg",
    "query": "the red circle",
    "query_type": "declarative",
    "video_path": "v1.mp4",
    "fps": 8.0,
    "width": 64,
    "height": 64,
    "clip": [0, 64],
    "span": [12, 15],
    "boxes_xyxy_px": [[3.0, 4.0, 20.0, 21.0], None, [3.0, 4.0, 20.0, 21.0]],
    "options": [],
    "choice": None,
    "windows_sec": [[1.5, 1.875]],
    "source": "mine",
}


VIDOR: dict[str, Any] = {
    "video_path": "0042/77.mp4",
    "trajectories": [[{"tid": 2, "bbox": {"xmin": 1, "ymin": 2, "xmax": x, "ymax": 40}}] for x in (30, 31, 32, 33)],
}
VIDSTG_OF_VIDOR: dict[str, Any] = VIDSTG | {
    "frame_count": 4,
    "used_segment": {"begin_fid": 0, "end_fid": 3},
    "temporal_gt": {"begin_fid": 0, "end_fid": 3},
}


def _write_vidor(folder: Path, tracks: Sequence[Any]) -> Path:
    """One record for each track file. -> the last of these."""
    vids = [f"{number}7" for number in range(len(tracks))]
    _write_vidstg(folder, [VIDSTG_OF_VIDOR | {"vid": vid} for vid in vids])
    (folder / "training" / "0042").mkdir(parents=True, exist_ok=True)
    paths = [_dump(folder / "training" / "0042" / f"{vid}.json", tree) for vid, tree in zip(vids, tracks, strict=True)]
    return paths[-1]


def _write_vidstg(folder: Path, records: Sequence[Any]) -> Path:
    return _dump(folder / "val_annotations.json", list(records))


def _write_tubedetr(folder: Path, records: Sequence[Any]) -> Path:
    track = {str(frame): {"bbox": [1, 2, 29, 38]} for frame in range(50)}
    return _dump(folder / "val.json", {"videos": list(records), "trajectories": {"77": {"2": track}}})


def _write_stcat(folder: Path, records: Sequence[Any]) -> Path:
    return _dump(folder / "val.json", {str(number): record for number, record in enumerate(records)})


def _write_hcstvg(file: str) -> Callable[[Path, Sequence[Any]], Path]:
    def write(folder: Path, records: Sequence[Any]) -> Path:
        return _dump(folder / file, {f"{number}_vf.mp4": record for number, record in enumerate(records)})

    return write


def _write_jsonl(folder: Path, records: Sequence[Any]) -> Path:
    path = folder / "val.jsonl"
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return path


def _dump(path: Path, tree: Any) -> Path:
    path.write_text(json.dumps(tree))
    return path


@dataclass(frozen=True)
class Layout:
    """A valid record; `id_field` is what has to differ between two; `name` is what errors call the second one."""

    record: Any
    write: Callable[[Path, Sequence[Any]], Path]
    load: Callable[[Path], Split]
    name: str
    id_field: str = ""

    def records(self) -> tuple[Any, Any]:
        """Two that may stand in one file."""
        first, second = deepcopy(self.record), deepcopy(self.record)
        if self.id_field:
            second[self.id_field] = type(second[self.id_field])(1)
        return first, second


LAYOUTS = {
    "vidor": Layout(
        VIDOR,
        _write_vidor,
        lambda root: vidstg.load(VidstgSource(annotations=str(root), tracks=str(root)), "val"),
        "record 1",
    ),
    "vidstg": Layout(
        VIDSTG, _write_vidstg, lambda root: vidstg.load(VidstgSource(annotations=str(root)), "val"), "record 1"
    ),
    "tubedetr": Layout(
        TUBEDETR,
        _write_tubedetr,
        lambda root: vidstg.load(VidstgSource(layout="tubedetr", annotations=str(root)), "val"),
        "videos.1",
        "video_id",
    ),
    "stcat": Layout(
        STCAT,
        _write_stcat,
        lambda root: vidstg.load(VidstgSource(layout="stcat", annotations=str(root)), "val"),
        "record '1'",
        "id",
    ),
    "hcstvg_v1": Layout(
        HCSTVG_V1,
        _write_hcstvg("val.json"),
        lambda root: hcstvg.load_v1(HcstvgV1Source(annotations=str(root)), "val"),
        "record '1_vf.mp4'",
    ),
    "hcstvg_v2": Layout(
        HCSTVG_V2,
        _write_hcstvg("val_v2.json"),
        lambda root: hcstvg.load_v2(HcstvgV2Source(annotations=str(root)), "val"),
        "record '1_vf.mp4'",
    ),
    "hcstvg_queries": Layout(
        "The man with the gun lowers his gun.",
        _write_hcstvg("query_v2.json"),
        lambda root: hcstvg.load_v2(HcstvgV2Source(annotations=str(root)), "test"),
        "record '1_vf.mp4'",
    ),
    "jsonl": Layout(
        JSONL, _write_jsonl, lambda root: jsonl.load(JsonlSource(root=str(root)), "val"), "line 2", "sample_id"
    ),
}
