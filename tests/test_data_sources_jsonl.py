"""Source `jsonl`: the user's own annotations are read as documented, exactly or not at all, and written back."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from configs.data import DataConfig
from configs.sources import JsonlSource
from data.annotations import AnnotationError
from data.sources import jsonl, load_samples
from data.sources.jsonl import read_samples, read_split, write_samples
from data.types import FrameSpan, GroundingSample

RECORD: dict[str, Any] = {
    "sample_id": "v1",
    "task": "stvg",
    "query": "the red circle",
    "video_path": "v1.mp4",
    "fps": 8.0,
    "width": 64,
    "height": 64,
    "clip": [0, 64],
    "span": [12, 14],
    "boxes_xyxy_px": [[3.0, 4.0, 20.0, 21.0], None],
}


def make_samples(folder: Path) -> list[GroundingSample]:
    """One of each task."""
    stvg = GroundingSample(
        sample_id="v1-0",
        task="stvg",
        query='the "röd" circle',
        video_path=str(folder / "train" / "v1.mp4"),
        fps=29.97,
        width=64,
        height=48,
        clip=FrameSpan(10, 64),
        query_type="interrogative",
        span=FrameSpan(12, 15),
        boxes_xyxy_px=((3.0, 4.0, 20.125, 21.0), None, (3.5, 4.0, 20.0, 21.0)),
        source="vidstg",
    )
    moment, windows = FrameSpan(12, 13), ((0.5, 1.0), (2.0, 7.25))
    return [
        stvg,
        dataclasses.replace(stvg, sample_id="v1-1", task="temporal", boxes_xyxy_px=None, windows_sec=windows),
        dataclasses.replace(
            stvg, sample_id="v1-2", task="rec", clip=moment, span=moment, boxes_xyxy_px=((1.0, 2.0, 3.0, 4.0),)
        ),
        dataclasses.replace(
            stvg, sample_id="v1-3", task="qa", span=None, boxes_xyxy_px=None, options=("x", "y"), choice="B"
        ),
        dataclasses.replace(stvg, sample_id="v2-0", video_path="/elsewhere/v2.mp4"),
        dataclasses.replace(stvg, sample_id="v2-1", span=None, boxes_xyxy_px=None, width=0, height=0),
    ]


def test_round_trip(tmp_path: Path) -> None:
    samples = make_samples(tmp_path)
    write_samples(tmp_path / "train.jsonl", samples)
    assert read_samples(tmp_path / "train.jsonl") == samples
    write_samples(tmp_path / "none.jsonl", [])
    assert read_samples(tmp_path / "none.jsonl") == []


def test_folder_can_be_moved(tmp_path: Path) -> None:
    """Paths inside of the folder are written relative to it, others absolute."""
    (tmp_path / "old").mkdir()
    write_samples(tmp_path / "old" / "train.jsonl", make_samples(tmp_path / "old"))
    (tmp_path / "old").rename(tmp_path / "new")
    assert read_samples(tmp_path / "new" / "train.jsonl") == make_samples(tmp_path / "new")


def test_a_path_from_the_working_folder_stays_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """videos/v1.mp4 seen from `tmp_path`, written to a file in another folder."""
    monkeypatch.chdir(tmp_path)
    Path("lists").mkdir()
    sample = dataclasses.replace(make_samples(tmp_path)[0], video_path="videos/v1.mp4")
    write_samples(Path("lists/train.jsonl"), [sample])
    assert read_samples(Path("lists/train.jsonl"))[0].video_path == str(tmp_path / "videos" / "v1.mp4")


def test_documented_record(tmp_path: Path) -> None:
    """The record of the module's docstring, shortened to two frames; `task` may be left out."""
    (tmp_path / "train.jsonl").write_text(
        '{"sample_id": "v0001-0", "query": "the red circle", "query_type": "declarative",\t'
        '"video_path": "train/v0001.mp4", "fps": 8.0, "width": 64, "height": 64, "clip": [0, 64], "span": [12, 14], '
        '"boxes_xyxy_px": [[3.0, 4.0, 20.0, 21.0], null]}\n\n'
    )
    (sample,) = load_samples(DataConfig(source=JsonlSource(root=str(tmp_path))), "train")
    assert sample.task == "stvg"
    assert sample.video_path == str(tmp_path / "train" / "v0001.mp4")
    assert sample.boxes_xyxy_px == ((3.0, 4.0, 20.0, 21.0), None)
    assert sample.span_sec == (12 / 8, 14 / 8)


def test_every_field_is_documented() -> None:
    """The table in the docstring names each field of a sample."""
    rows = [line.split("|")[1] for line in (jsonl.__doc__ or "").splitlines() if line.startswith("|")]
    named = {name.strip() for row in rows for name in row.split(",")} - {"field", "---"}
    assert named == {field.name for field in dataclasses.fields(GroundingSample)}


@pytest.mark.parametrize(
    ("change", "field", "expected"),
    [
        ({"spam": 1}, "spam", "Extra inputs are not permitted"),
        ({"span": [14, 12]}, "span", "expected frames 0 <= start < end"),
        ({"span": [12, 12]}, "span", "expected frames 0 <= start < end"),
        ({"span": [12, 65]}, "span", "is not inside the clip"),
        ({"span": []}, "span", "is missing"),
        ({"span": None}, "boxes_xyxy_px", "boxes without a span"),
        ({"boxes_xyxy_px": [[3.0, 4.0, 20.0, 21.0]]}, "boxes_xyxy_px", "per frame of the span, 2, got 1"),
        ({"boxes_xyxy_px": None}, "boxes_xyxy_px", "expected one box"),
        ({"task": "rec"}, "clip", "expected a clip of one frame"),
        ({"task": "qa", "choice": "C", "options": ["x", "y"]}, "choice", "choice 'C' is not one of"),
        ({"query": " "}, "query", "expected text that is not empty"),
        ({"fps": 0.0}, "fps", "greater than 0"),
        ({"fps": "8"}, "fps", "valid number, got '8'"),
        ({"width": 0}, "width", "expected width >= 1, got 0"),
        ({"video_path": "../v1.mp4"}, "video_path", "inside of the video folder, got '../v1.mp4'"),
    ],
)
def test_file_line_and_field_are_named(tmp_path: Path, change: dict[str, Any], field: str, expected: str) -> None:
    """A bad third line, after a good one and an empty one."""
    path = tmp_path / "train.jsonl"
    path.write_text(f"{json.dumps(RECORD)}\n\n{json.dumps(RECORD | {'sample_id': 'v2'} | change)}\n")
    with pytest.raises(AnnotationError, match=expected) as caught:
        read_samples(path)
    assert str(caught.value).startswith(f"{path}, line 3, field {field}")


def test_other_lines_are_read(tmp_path: Path) -> None:
    """Of four lines one is not UTF-8, one is cut off and one has the id of the first; ids and numbers say which."""
    path = tmp_path / "train.jsonl"
    good = json.dumps(RECORD).encode()
    path.write_bytes(b"\n".join([good, b'{"sample_id": "\xff"}', good[:40], good]))
    split = read_split(path)
    assert [sample.sample_id for sample in split.samples] == ["v1"] and split.num_records == 4
    assert [(error.record, error.field) for error in split.rejected] == [
        ("line 2", "(line)"),
        ("line 3", "(line)"),
        ("line 4", "sample_id"),
    ]


def test_question_without_an_answer(tmp_path: Path) -> None:
    """Neither span nor boxes: it can be asked; its true interval is an error that names it."""
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps({key: value for key, value in RECORD.items() if key not in ("span", "boxes_xyxy_px")}))
    (sample,) = read_samples(path)
    assert sample.span is None and sample.boxes_xyxy_px is None
    with pytest.raises(ValueError, match=r"'v1' \(stvg\) has no span"):
        _ = sample.span_sec


@pytest.mark.parametrize("line", ["{bad", "[1]", "5", "{}", "null", "[" * 5000, '{"fps": ' + "1" * 5000 + "}"])
def test_line_that_is_no_record(tmp_path: Path, line: str) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(f"{line}\n")
    with pytest.raises(AnnotationError, match="line 1, field"):
        read_samples(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"test\.jsonl: no such annotation file"):
        load_samples(DataConfig(source=JsonlSource(root=str(tmp_path))), "test")


def test_load_samples_keeps_weighted_tasks(tmp_path: Path) -> None:
    """Weight 0 or none leaves a task out; nothing left is an error that says which tasks there are."""
    write_samples(tmp_path / "train.jsonl", make_samples(tmp_path))
    source = JsonlSource(root=str(tmp_path))
    kept = load_samples(DataConfig(source=source, tasks={"stvg": 0.0, "qa": 1.0, "rec": 2.0}), "train")
    assert [sample.task for sample in kept] == ["rec", "qa"]
    with pytest.raises(AnnotationError, match="its tasks are"):
        load_samples(DataConfig(source=source, tasks={"stvg": 0.0}), "train")
