"""Sources `hcstvg_v1` and `hcstvg_v2`: frames from 1, boxes as xywh, tubes and boxes that leave their clip."""

import json
from pathlib import Path
from typing import Any

import pytest

from configs.data import DataConfig
from configs.sources import HcstvgV1Source, HcstvgV2Source
from data.annotations import AnnotationError, Split
from data.sources import hcstvg, load_samples
from data.types import FrameSpan

NAME = "55_vfjywN5CN0Y.mp4"
CAPTION = "The woman in red clothes turns in a circle."
V1_RECORD: dict[str, Any] = {
    "bbox": [[100, 50, 30.5, 200], [102, 50, 30, 200], [104, 50, 30, 200]],
    "st_time": 8.914734192388288,
    "ed_time": 17.544734192388397,
    "img_num": 600,
    "caption": CAPTION,
    "width": 640,
    "height": 360,
    "st_frame": 268,
}
V2_RECORD: dict[str, Any] = {
    "bbox": V1_RECORD["bbox"],
    "st_time": 8.914734192388288,
    "ed_time": 17.544734192388397,
    "img_num": 600,
    "img_size": [360, 640, 3],
    "English": CAPTION,
    "Chinese": "红衣女子转了一圈",
    "st_frame": 268,
}


def read_v1(folder: Path, tree: Any, split: str = "train", videos: str = "") -> Split:
    (folder / f"{split}.json").write_text(json.dumps(tree))
    return hcstvg.load_v1(HcstvgV1Source(annotations=str(folder), videos=videos), split)


def test_literal_record(tmp_path: Path) -> None:
    """Frame 268 of 1, 2, ... is frame 267 of 0, 1, ...: at 600 frames in 20 s, 267 / 30 = 8.9 s. Three boxes, three frames."""
    (sample,) = read_v1(tmp_path, {NAME: V1_RECORD}, videos=str(tmp_path / "videos")).samples
    assert (sample.sample_id, sample.task, sample.query) == (NAME, "stvg", CAPTION)
    assert (sample.fps, sample.width, sample.height) == (30.0, 640, 360)
    assert (sample.clip, sample.span) == (FrameSpan(0, 600), FrameSpan(267, 270))
    assert sample.span_sec == pytest.approx((8.9, 9.0))
    assert sample.boxes_xyxy_px == ((100, 50, 130.5, 250), (102, 50, 132, 250), (104, 50, 134, 250))
    assert (sample.query_type, sample.source) == ("declarative", "hcstvg_v1")
    assert sample.video_path == str(tmp_path / "videos" / NAME)


@pytest.mark.parametrize("file", ["val_v2.json", "valv2.json"])
def test_v2_says_the_same_with_other_keys(tmp_path: Path, file: str) -> None:
    """`img_size` has the height first."""
    (tmp_path / file).write_text(json.dumps({NAME: V2_RECORD}))
    source = HcstvgV2Source(annotations=str(tmp_path))
    (second,) = load_samples(DataConfig(source=source), "val")
    (first,) = read_v1(tmp_path, {NAME: V1_RECORD}).samples
    assert second.source == "hcstvg_v2"
    for field in ("sample_id", "query", "fps", "width", "height", "clip", "span", "boxes_xyxy_px"):
        assert getattr(second, field) == getattr(first, field)


def test_v2_test_has_only_queries(tmp_path: Path) -> None:
    """Two entries of query_v2.json. Size and frame rate are not known: the clock counts milliseconds of 20 s."""
    queries = {
        "3_5MxjqHfkWFI.mkv": "The man in blue clothes stands up and raises his hand.",
        "20_D8Vhxbho1fY.mp4": "The man in black clothes goes to the little boy, picks him up, and goes into another room.",
    }
    (tmp_path / "query_v2.json").write_text(json.dumps(queries))
    split = hcstvg.load_v2(HcstvgV2Source(annotations=str(tmp_path)), "test")
    assert {sample.video_path: sample.query for sample in split.samples} == queries
    for sample in split.samples:
        assert sample.span is None and sample.boxes_xyxy_px is None and not sample.is_probed
        assert sample.duration_sec == 20


def test_videos_are_found_in_numbered_folders(tmp_path: Path) -> None:
    """By name, or by stem where the copy has another container."""
    places = [tmp_path / "videos" / "7" / NAME, tmp_path / "videos" / "8" / "9_other.mkv"]
    for place in places:
        place.parent.mkdir(parents=True)
        place.touch()
    (tmp_path / "videos" / "8" / "9_other.txt").touch()
    split = read_v1(tmp_path, {NAME: V1_RECORD, "9_other.mp4": V1_RECORD}, videos=str(tmp_path / "videos"))
    assert [sample.video_path for sample in split.samples] == [str(place) for place in places]


@pytest.mark.parametrize(
    ("box_xywh", "kept_xyxy", "flags"),
    [
        ([0, 0, 640, 360], (0, 0, 640, 360), set()),
        ([600, 300, 50, 80], (600, 300, 640, 360), {"boxes_clipped"}),
        ([-10.5, -3, 40, 40], (0, 0, 29.5, 37), {"boxes_clipped"}),
        ([100, 50, 0, 0], (100, 50, 100, 50), set()),
        ([-40, 0, -27, -47], None, {"impossible_boxes"}),  # of 55_8JSxLhDMGtE
        ([50, 50, -1, 10], None, {"impossible_boxes"}),
        ([640, 50, 10, 10], None, {"impossible_boxes"}),
        ([10, -20, 10, 20], None, {"impossible_boxes"}),
    ],
)
def test_boxes_that_leave_the_image(
    tmp_path: Path, box_xywh: list[float], kept_xyxy: tuple[float, ...] | None, flags: set[str]
) -> None:
    """The image is 640 x 360. The box comes first, a good one after it."""
    split = read_v1(tmp_path, {NAME: V1_RECORD | {"bbox": [box_xywh, [1, 2, 3, 4]]}})
    assert split.samples[0].boxes_xyxy_px == (kept_xyxy, (1, 2, 4, 6))
    assert set(split.flags) == flags and split.rejected == []


def test_tube_without_a_possible_box(tmp_path: Path) -> None:
    split = read_v1(tmp_path, {NAME: V1_RECORD | {"bbox": [[-40, 0, -27, -47]]}})
    assert split.samples[0].boxes_xyxy_px == (None,)
    assert dict(split.flags) == {"impossible_boxes": [NAME], "no_boxes": [NAME]}


@pytest.mark.parametrize(
    ("st_frame", "expected", "flags"), [(598, FrameSpan(597, 600), set()), (599, FrameSpan(598, 600), {NAME})]
)
def test_tube_past_the_clip_is_cut(tmp_path: Path, st_frame: int, expected: FrameSpan, flags: set[str]) -> None:
    """Three boxes from the last but one of 600 frames: the third is left out."""
    split = read_v1(tmp_path, {NAME: V1_RECORD | {"st_frame": st_frame}})
    (sample,) = split.samples
    assert sample.span == expected and len(sample.boxes_xyxy_px or ()) == len(expected)
    assert set(split.flags["tube_past_clip_end"]) == flags


@pytest.mark.parametrize(("st_frame", "field"), [(0, "st_frame"), (601, "st_frame"), (8.9, "st_frame")])
def test_tube_that_starts_outside_of_the_clip(tmp_path: Path, st_frame: float, field: str) -> None:
    split = read_v1(tmp_path, {"bad.mp4": V1_RECORD | {"st_frame": st_frame}, NAME: V1_RECORD})
    assert [sample.sample_id for sample in split.samples] == [NAME]
    assert [(error.record, error.field) for error in split.rejected] == [("record 'bad.mp4'", field)]


def test_video_that_is_there_twice(tmp_path: Path) -> None:
    """JSON keeps the last of two equal keys; here it is an error, and the first is read."""
    record = json.dumps(V1_RECORD)
    (tmp_path / "train.json").write_text(f'{{"{NAME}": {record}, "{NAME}": {record}}}')
    split = hcstvg.load_v1(HcstvgV1Source(annotations=str(tmp_path)), "train")
    assert len(split.samples) == 1 and split.num_records == 2
    assert str(split.rejected[0]).endswith(f"record '{NAME}', field sample_id: '{NAME}' is there twice")


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"test\.json: no such annotation file"):
        hcstvg.load_v1(HcstvgV1Source(annotations=str(tmp_path)), "test")
    with pytest.raises(AnnotationError, match=r"expected one of val_v2\.json, valv2\.json"):
        hcstvg.load_v2(HcstvgV2Source(annotations=str(tmp_path)), "val")
