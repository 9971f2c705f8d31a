"""Source `vidstg`: the three layouts in which VidSTG is passed around give the same clips, spans and boxes."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from published import published

from configs.data import DataConfig
from configs.sources import VidstgSource
from data.annotations import AnnotationError, Split
from data.sources import load_samples, vidstg
from data.types import FrameSpan

VID = "10712559773"
CAPTION = "the child in red clothes and black pants is watching the ball."
RECORD: dict[str, Any] = {
    "vid": VID,
    "fps": 29.97,
    "frame_count": 596,
    "width": 640,
    "height": 360,
    "used_segment": {"begin_fid": 496, "end_fid": 595},
    "temporal_gt": {"begin_fid": 510, "end_fid": 556},
    "captions": [{"description": CAPTION, "type": "person", "target_id": 2}],
    "questions": [{"description": "what is the child watching?", "type": "object", "target_id": 7}],
    "subject/objects": [{"tid": 2, "category": "child"}, {"tid": 7, "category": "ball/sports_ball"}],
    "used_relation": {"subject_tid": 2, "object_tid": 7, "predicate": "watch", "begin_fid": 510, "end_fid": 556},
}


def write_official(folder: Path, *records: Any, split: str = "val") -> VidstgSource:
    """Annotations in VidSTG's layout and the source that reads them."""
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    (folder / "annotations" / f"{split}_annotations.json").write_text(json.dumps(records))
    return VidstgSource(
        annotations=str(folder / "annotations"), tracks=str(folder / "tracks"), videos=str(folder / "videos")
    )


def write_tracks(source: VidstgSource, video: str, tree: Any) -> Path:
    """A track file in VidOR's layout."""
    path = Path(source.tracks) / "training" / "0042" / f"{video}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(tree))
    return path


def entry(tid: int, left: float) -> dict[str, Any]:
    """An object at [left, 75, left + 90, 262]."""
    return {"tid": tid, "bbox": {"xmin": left, "ymin": 75, "xmax": left + 90, "ymax": 262}, "generated": 0}


def tracks_of(num_frames: int = 596, **changes: Any) -> dict[str, Any]:
    """In frame f, tid 2 stands at x = f - 10 and tid 7 at x = 5, listed first; tid 2 is missing in frame 520."""
    frames = [[entry(7, 5)] + ([entry(2, f - 10)] if f != 520 else []) for f in range(num_frames)]
    return {"video_path": f"0042/{VID}.mp4", "trajectories": frames, **changes}


def box_of_tid_2(frame: int) -> tuple[float, float, float, float] | None:
    """What is kept of it: the image is 640 wide, and f - 10 + 90 is more than that from frame 561 on."""
    return None if frame == 520 else (frame - 10.0, 75.0, min(frame + 80.0, 640.0), 262.0)


def spans_and_boxes(split: Split) -> list[Any]:
    return [(s.query, s.query_type, s.clip, s.span, s.boxes_xyxy_px) for s in split.samples]


def test_literal_record(tmp_path: Path) -> None:
    """used_segment 496 .. 595 is inclusive: the clip is [496, 596). temporal_gt 510 .. 556 is exclusive: 46 frames.

    Times are from the clip's start: (510 - 496) / 29.97 and (556 - 496) / 29.97.
    """
    source = write_official(tmp_path, RECORD)
    write_tracks(source, VID, tracks_of())
    caption, question = load_samples(DataConfig(source=source), "val")

    assert (caption.query_type, question.query_type) == ("declarative", "interrogative")
    assert (caption.query, question.query) == (CAPTION, "what is the child watching?")
    assert (caption.sample_id, question.sample_id) == ("val-0-0", "val-0-1")
    for sample in (caption, question):
        assert (sample.task, sample.fps, sample.width, sample.height) == ("stvg", 29.97, 640, 360)
        assert (sample.clip, sample.span) == (FrameSpan(496, 596), FrameSpan(510, 556))
        assert sample.span_sec == pytest.approx((14 / 29.97, 60 / 29.97))
        assert sample.video_path == str(tmp_path / "videos" / "0042" / f"{VID}.mp4")
        assert sample.source == "vidstg"
    assert caption.boxes_xyxy_px == tuple(box_of_tid_2(frame) for frame in range(510, 556))
    assert question.boxes_xyxy_px == ((5.0, 75.0, 95.0, 262.0),) * 46


def test_flags(tmp_path: Path) -> None:
    """To the clip's last frame, 595: tid 2 leaves the image on the right, and its box is missing once."""
    touching = RECORD | {"temporal_gt": {"begin_fid": 510, "end_fid": 596}}
    source = write_official(tmp_path, RECORD, touching, touching)
    write_tracks(source, VID, tracks_of())
    split = vidstg.load(source, "val")
    assert split.samples[2].span == FrameSpan(510, 596) and split.samples[2].boxes_xyxy_px is not None
    assert split.samples[2].boxes_xyxy_px[595 - 510] == (585.0, 75.0, 640.0, 262.0)
    assert dict(split.flags) == {
        "missing_boxes": ["val-0-0", "val-1-0", "val-2-0"],
        "boxes_clipped": ["val-1-0", "val-2-0"],
        "span_touches_clip_end": ["val-1-0", "val-1-1", "val-2-0", "val-2-1"],
        "record_touches_clip_end": ["record 1", "record 2"],
        "duplicate": ["val-2-0", "val-2-1"],
    }


def test_without_tracks_no_frame_has_a_box(tmp_path: Path) -> None:
    """The video is found by its name in any sub-folder, or named where it would be."""
    source = write_official(tmp_path, RECORD).model_copy(update={"tracks": ""})
    split = vidstg.load(source, "val")
    assert split.samples[0].boxes_xyxy_px == (None,) * 46
    assert dict(split.flags) == {"no_boxes": ["val-0-0", "val-0-1"]}
    assert split.samples[0].video_path == str(tmp_path / "videos" / f"{VID}.mp4")
    place = tmp_path / "videos" / "0042" / f"{VID}.mp4"
    place.parent.mkdir(parents=True)
    place.touch()
    assert vidstg.load(source, "val").samples[0].video_path == str(place)


def test_scattered_records_keep_their_order_and_ids(tmp_path: Path) -> None:
    """Records of two videos by turns, one of them without a track file: its records are rejected, each by name."""
    other = RECORD | {"vid": "77"}
    source = write_official(tmp_path, RECORD, other, RECORD, other)
    write_tracks(source, VID, tracks_of())
    split = vidstg.load(source, "val")
    assert [sample.sample_id for sample in split.samples] == ["val-0-0", "val-0-1", "val-2-0", "val-2-1"]
    assert [error.record for error in split.rejected] == ["record 1", "record 3"]
    expected = "tracks, record 1, field vid: expected training/*/77.json or validation/*/77.json, found neither"
    assert expected in str(split.rejected[0])
    assert split.num_records == 4


def test_one_bad_sentence_costs_only_itself(tmp_path: Path) -> None:
    source = write_official(
        tmp_path, RECORD | {"questions": [{"description": "what?", "target_id": 9}, RECORD["questions"][0]]}
    )
    write_tracks(source, VID, tracks_of())
    split = vidstg.load(source, "val")
    assert [sample.sample_id for sample in split.samples] == ["val-0-0", "val-0-2"]
    (error,) = split.rejected
    assert (error.record, error.field) == ("record 0, questions.0", "questions.0.target_id")
    assert error.cause == "expected one of the video's objects [2, 7], got 9"


@pytest.mark.parametrize(
    ("tree", "field"),
    [
        ([], "(file)"),
        ({"trajectories": []}, "video_path"),
        (tracks_of(video_path="../x.mp4"), "video_path"),
        (tracks_of(trajectories={}), "trajectories"),
        (tracks_of(num_frames=555), "trajectories"),
        (tracks_of(trajectories=[5] * 596), "trajectories.510"),
        (tracks_of(trajectories=[[{"tid": 2}]] * 596), "trajectories.510.0.bbox"),
        (tracks_of(trajectories=[[entry(2, float("nan"))]] * 596), "trajectories.510.0.bbox.xmin"),
        (tracks_of(trajectories=[[entry(2, 1e308)]] * 596), "trajectories.510.0.bbox.xmin"),
        (tracks_of(trajectories=[[entry(2, 1), entry(2, 1)]] * 596), "trajectories.510.1.tid"),
    ],
)
def test_bad_track_file(tmp_path: Path, tree: Any, field: str) -> None:
    """It is an error of each sentence (or record) that needs it; another video's record is read."""
    source = write_official(tmp_path, RECORD | {"questions": []}, RECORD | {"vid": "77"})
    path = write_tracks(source, VID, tree)
    write_tracks(source, "77", tracks_of(video_path="0042/77.mp4"))
    split = vidstg.load(source, "val")
    assert [sample.sample_id for sample in split.samples] == ["val-1-0", "val-1-1"]
    (error,) = split.rejected
    assert error.field == field and error.record.startswith("record 0")
    assert error.path == str(path)


def test_impossible_boxes_are_no_boxes(tmp_path: Path) -> None:
    """Of negative width, or wholly left of the image: None and a flag; the span stays."""
    record = RECORD | {"temporal_gt": {"begin_fid": 0, "end_fid": 3}, "used_segment": {"begin_fid": 0, "end_fid": 595}}
    reversed_box = {"tid": 2, "bbox": {"xmin": 20, "ymin": 0, "xmax": 10, "ymax": 5}}
    source = write_official(tmp_path, record | {"questions": []})
    write_tracks(source, VID, tracks_of(trajectories=[[entry(2, 1)], [reversed_box], [entry(2, -90)]]))
    split = vidstg.load(source, "val")
    assert split.samples[0].boxes_xyxy_px == ((1.0, 75.0, 91.0, 262.0), None, None)
    assert dict(split.flags) == {"impossible_boxes": ["val-0-0"]}


TUBEDETR_VIDEO: dict[str, Any] = {
    "original_video_id": VID,
    "frame_count": 596,
    "fps": 29.97,
    "width": 640,
    "height": 360,
    "start_frame": 496,
    "end_frame": 595,
    "tube_start_frame": 510,
    "tube_end_frame": 556,
    "video_path": f"0042/{VID}.mp4",
    "caption": CAPTION,
    "type": "person",
    "target_id": 2,
    "video_id": 0,
    "qtype": "declarative",
}


def write_tubedetr(folder: Path, *videos: Any, trajectories: Any = None) -> VidstgSource:
    """One file as TubeDETR's preproc_vidstg.py writes it: tid 2 of `tracks_of`, as xywh."""
    track = {str(f): {"bbox": [f - 10, 75, 90, 187], "generated": 0} for f in range(596) if f != 520}
    tree = {"videos": videos, "trajectories": {VID: {"2": track}} if trajectories is None else trajectories}
    (folder / "val.json").write_text(json.dumps(tree))
    return VidstgSource(layout="tubedetr", annotations=str(folder), videos=str(folder / "videos"))


@pytest.mark.parametrize(
    ("trajectories", "field"),
    [
        ({}, "original_video_id"),
        ({VID: {}}, "target_id"),
        ({VID: []}, f"trajectories.{VID}"),
        ({VID: {"2": None}}, f"trajectories.{VID}.2"),
        ({VID: {"2": {"511": []}}}, f"trajectories.{VID}.2.511"),
        ({VID: {"2": {"511": {"bbox": [1, 2, 3]}}}}, f"trajectories.{VID}.2.511.bbox.3"),
    ],
)
def test_bad_trajectories_of_tubedetr(tmp_path: Path, trajectories: Any, field: str) -> None:
    split = vidstg.load(write_tubedetr(tmp_path, TUBEDETR_VIDEO, trajectories=trajectories), "val")
    (error,) = split.rejected
    assert (error.path, error.record, error.field) == (str(tmp_path / "val.json"), "videos.0", field)


def test_tubedetr_without_trajectories(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"val\.json, field trajectories: Input should be a valid dictionary"):
        vidstg.load(write_tubedetr(tmp_path, trajectories=[]), "val")


def stcat_record(**changes: Any) -> dict[str, Any]:
    """One record as STCAT's make_data_pairs writes it: 47 boxes for 46 frames, {} where there is none."""
    boxes = [{} if f == 520 else entry(2, f - 10)["bbox"] for f in range(510, 557)]
    return {
        "id": 0,
        "vid": VID,
        "fps": 29.97,
        "width": 640,
        "height": 360,
        "frame_count": 100,
        "used_segment": {"begin_fid": 496, "end_fid": 595},
        "ori_temp_gt": {"begin_fid": 510, "end_fid": 556},
        "temp_gt": {"begin_fid": 14, "end_fid": 60},
        "qtype": "declar",
        "sentence": {"description": CAPTION, "type": "person", "target_id": 2},
        "target_category": "child",
        "target_bboxs": boxes,
        **changes,
    }


def write_stcat(folder: Path, **records: Any) -> VidstgSource:
    (folder / "val.json").write_text(json.dumps(records))
    return VidstgSource(layout="stcat", annotations=str(folder), videos=str(folder / "videos"))


def test_layouts_agree(tmp_path: Path) -> None:
    official = write_official(tmp_path, RECORD | {"questions": []})
    write_tracks(official, VID, tracks_of())
    tubedetr = vidstg.load(write_tubedetr(tmp_path, TUBEDETR_VIDEO), "val")
    stcat = vidstg.load(write_stcat(tmp_path, **{"0": stcat_record()}), "val")
    expected = spans_and_boxes(vidstg.load(official, "val"))
    assert spans_and_boxes(tubedetr) == spans_and_boxes(stcat) == expected
    assert dict(tubedetr.flags) == dict(stcat.flags) == {"missing_boxes": ["val-0"]}
    assert tubedetr.samples[0].video_path == str(tmp_path / "videos" / "0042" / f"{VID}.mp4")
    assert stcat.samples[0].video_path == str(tmp_path / "videos" / f"{VID}.mp4")


def test_stcat_span_that_ends_with_the_video(tmp_path: Path) -> None:
    """end_fid 596 = frame_count: no frame is left for the box too many, and temp_gt ends one frame early, at 99."""
    boxes = [entry(2, 1)["bbox"]] * 86
    record = stcat_record(
        ori_temp_gt={"begin_fid": 510, "end_fid": 596}, temp_gt={"begin_fid": 14, "end_fid": 99}, target_bboxs=boxes
    )
    split = vidstg.load(write_stcat(tmp_path, **{"0": record}), "val")
    assert split.samples[0].span == FrameSpan(510, 596)
    assert split.samples[0].boxes_xyxy_px == ((1.0, 75.0, 91.0, 262.0),) * 86
    assert dict(split.flags) == {"span_touches_clip_end": ["val-0"]}


def test_stcat_key_that_is_there_twice(tmp_path: Path) -> None:
    """Three records, two of them "0" with one id: the first is kept, the second rejected, not lost."""
    source = write_stcat(tmp_path)
    first, again, other = (json.dumps(stcat_record(id=number)) for number in (0, 0, 1))
    path = tmp_path / "val.json"
    path.write_text(f'{{"0": {first}, "0": {again}, "1": {other}}}')
    split = vidstg.load(source, "val")
    assert split.num_records == 3 and [sample.sample_id for sample in split.samples] == ["val-0", "val-1"]
    (error,) = split.rejected
    assert (error.path, error.record, error.field) == (str(path), "record '0'", "sample_id")


def test_missing_annotations_are_named(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"test_annotations\.json: no such annotation file"):
        vidstg.load(write_official(tmp_path), "test")


def test_published_val() -> None:
    """Sentences as the VidSTG README counts them; 744 records end with their segment, 239 sentences are repeated."""
    path = published("vidstg/val_annotations.json")
    split = vidstg.load(VidstgSource(annotations=str(path.parent)), "val")
    records = json.loads(path.read_text())
    counts = Counter(sample.query_type for sample in split.samples)
    assert counts == {"declarative": 3996, "interrogative": 4960} and split.rejected == []
    assert split.num_records == len(records) == 3996
    assert len({sample.sample_id for sample in split.samples}) == 8956
    assert {flag: len(names) for flag, names in split.flags.items()} == {
        "no_boxes": 8956,
        "duplicate": 239,
        "span_touches_clip_end": 1682,
        "record_touches_clip_end": 744,
    }
    spans = iter(split.samples)
    for record in records:
        for sample in (next(spans) for _ in record["captions"] + record["questions"]):
            assert sample.span and sample.clip.start <= sample.span.start < sample.span.end <= sample.clip.end
            assert sample.clip.end <= record["frame_count"]
            assert sample.span == FrameSpan(record["temporal_gt"]["begin_fid"], record["temporal_gt"]["end_fid"])
