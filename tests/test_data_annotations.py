"""How annotation files are read and how they fail: one error that says file, record, field and what is expected."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from data.annotations import (
    AnnotationError,
    FieldError,
    RawRecord,
    Split,
    frame_span,
    json_lines,
    media_path,
    parse_json_line,
    parse_raw,
    read_json,
    read_json_pairs,
)
from data.raw_fields import FourPx, Fps, FrameCount, Text
from data.types import FrameSpan, GroundingSample


def make_sample(sample_id: str, **changes: Any) -> GroundingSample:
    """A temporal sample."""
    fields: dict[str, Any] = {
        "task": "temporal",
        "query": "a man runs",
        "video_path": "v.mp4",
        "fps": 10.0,
        "width": 64,
        "height": 64,
        "clip": FrameSpan(0, 100),
        "span": FrameSpan(10, 20),
    }
    return GroundingSample(sample_id=sample_id, **fields | changes)


class _Raw(RawRecord):
    count: FrameCount = 1
    fps: Fps = 1.0
    name: Text = "x"
    box: FourPx = (0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("count", 5),
        ("fps", 29.97),
        ("fps", 25),
        ("name", "红衣"),
        ("box", [1, -2.5, 3, 4]),
        ("box", (1, 2, 3, 4)),
    ],
)
def test_raw_fields_accept(field: str, value: Any) -> None:
    parse_raw(_Raw, {field: value, "unknown": None})


@pytest.mark.parametrize(
    ("field", "value", "place"),
    [
        ("count", True, "count"),
        ("count", 5.0, "count"),
        ("count", "5", "count"),
        ("count", 0, "count"),
        ("count", 10**30, "count"),
        ("fps", True, "fps"),
        ("fps", float("nan"), "fps"),
        ("fps", float("inf"), "fps"),
        ("fps", 0, "fps"),
        ("fps", 1e308, "fps"),
        ("fps", 10**400, "fps"),
        ("name", " \n", "name"),
        ("name", "\ud800", "name"),
        ("name", b"x", "name"),
        ("box", "1234", "box"),
        ("box", [1, 2, 3], "box.3"),
        ("box", [1, 2, 3, 4, 5], "box"),
        ("box", [1, 2, None, 4], "box.2"),
        ("box", [1, 2, 3, 1e7], "box.3"),
        ("box", {"0": 1}, "box"),
    ],
)
def test_raw_fields_refuse(field: str, value: Any, place: str) -> None:
    with pytest.raises(FieldError) as caught:
        parse_raw(_Raw, {field: value}, at="records.7")
    assert caught.value.field == f"records.7.{place}"
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("record", [None, [], 5, "x"])
def test_record_that_is_no_object(record: Any) -> None:
    with pytest.raises(FieldError) as caught:
        parse_raw(_Raw, record)
    assert caught.value.field == "(record)"


def test_found_value_is_shortened() -> None:
    """Neither a long value nor a deep one makes a long message."""
    deep: Any = []
    for _ in range(500):
        deep = [deep]
    for value in ("x" * 10**6, list(range(10**5)), deep):
        with pytest.raises(FieldError) as caught:
            parse_raw(_Raw, {"count": value})
        assert len(caught.value.cause) < 200


@pytest.mark.parametrize(
    ("error", "field", "cause"),
    [
        (FieldError("span", "expected two frames"), "span", "expected two frames"),
        (KeyError("vid"), "vid", "is missing"),
        (TypeError("'int' object is not iterable"), "(record)", "'int' object is not iterable"),
        (AnnotationError("tracks.json", "no such file", field="tid"), "tid", "no such file"),
    ],
)
def test_errors_inside_of_a_record(error: Exception, field: str, cause: str) -> None:
    split = Split()
    with split.record("a.json", "record 3"):
        raise error
    with split.record("a.json", "record 4"):
        split.add(make_sample("good"))
    (rejected,) = split.rejected
    assert (rejected.record, rejected.field, rejected.cause) == ("record 3", field, cause)
    file = "tracks.json" if isinstance(error, AnnotationError) else "a.json"
    assert str(rejected) == f"{file}, record 3, field {field}: {cause}"
    assert (split.num_records, len(split.samples)) == (2, 1)


def test_error_of_a_sample_names_its_field() -> None:
    split = Split()
    with split.record("a.json", "line 1"):
        split.add(make_sample("s", span=FrameSpan(90, 101)))
    assert split.rejected[0].field == "span" and "is not inside the clip" in split.rejected[0].cause


def test_what_is_no_error_of_a_record_gets_out() -> None:
    """A bug or a full disk is not the record's fault."""
    with pytest.raises(OSError, match="full"), Split().record("a.json", "record 0"):
        raise OSError("disk full")


def test_validation_errors_are_typed() -> None:
    """Also one of a model that was not read through `parse_raw`."""
    split = Split()
    with split.record("a.json", "record 0"):
        _Raw.model_validate({"count": "x"})
    assert split.rejected[0].field == "count"
    assert not isinstance(split.rejected[0], ValidationError)


def test_ids_are_unique_also_over_joined_splits() -> None:
    first, second = Split(), Split()
    first.add(make_sample("a"), "flag")
    second.add(make_sample("b"), "flag")
    with second.part("a.json", "record 1"):
        second.add(make_sample("b"))
    first.extend(second)
    assert [sample.sample_id for sample in first.samples] == ["a", "b"]
    assert first.flags == {"flag": ["a", "b"]} and [error.field for error in first.rejected] == ["sample_id"]
    with pytest.raises(FieldError, match="'b' is there twice"):
        first.extend(second)


def test_duplicates_share_video_sentence_and_span() -> None:
    split = Split()
    split.add(make_sample("a"))
    split.add(make_sample("other video", video_path="w.mp4"))
    split.add(make_sample("other sentence", query="a man sits"))
    split.add(make_sample("other span", span=FrameSpan(10, 21)))
    split.add(make_sample("b"))
    split.add(make_sample("c", fps=20.0))
    split.flag_duplicates()
    assert split.flags == {"duplicate": ["b", "c"]}


@pytest.mark.parametrize(("start", "end"), [(5, 5), (6, 5), (-1, 5)])
def test_empty_span(start: int, end: int) -> None:
    with pytest.raises(FieldError, match="field temporal_gt: expected frames 0 <= start < end"):
        frame_span("temporal_gt", start, end)


def test_span_stays_within() -> None:
    clip = FrameSpan(10, 20)
    assert frame_span("span", 10, 20, within=clip) == clip
    for start, end in [(9, 20), (10, 21), (30, 40)]:
        with pytest.raises(FieldError, match=r"expected frames inside of \[10, 20\), got"):
            frame_span("span", start, end, within=clip)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "not valid JSON"),
        (b'[{"a": 1}, {"a"', "not valid JSON"),
        (b'["\xff"]', "not UTF-8 at byte 2"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[" + b"1" * 5000 + b"]", "not valid JSON: Exceeds the limit"),
        (b"null", "expected a list, found a NoneType"),
        (b"{}", "expected a list, found a dict"),
    ],
)
def test_file_that_is_no_list(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(AnnotationError, match=expected) as caught:
        read_json(path, list)
    assert caught.value.path == str(path)


def test_folder_and_missing_file(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="expected a file, found a folder"):
        read_json(tmp_path, list)
    for path in (tmp_path / "none.json", tmp_path / "none" / "a.json"):
        with pytest.raises(AnnotationError, match="no such annotation file"):
            read_json(path, list)
    with pytest.raises(AnnotationError, match="cannot be read: File name too long"):
        read_json(tmp_path / ("x" * 300), list)


def test_a_repeated_key_is_named(tmp_path: Path) -> None:
    """At any depth; the same key in two objects is none."""
    path = tmp_path / "a.json"
    path.write_text('{"1": {"0": 5}, "2": {"0": 5, "7": [1], "0": 6}}')
    with pytest.raises(AnnotationError, match=r"a\.json, field 0: the key is there twice in one object"):
        read_json(path, dict)
    path.write_text('[{"a": 1}, {"a": 1}]')
    assert read_json(path, list) == [{"a": 1}, {"a": 1}]


def test_equal_keys_stay_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": {"x": 1}, "b": 2, "a": {"x": 3, "y": {}}}')
    assert read_json_pairs(path) == [("a", {"x": 1}), ("b", 2), ("a", {"x": 3, "y": {}})]
    path.write_text("{}")
    assert read_json_pairs(path) == []
    path.write_text('[{"a": 1}]')
    with pytest.raises(AnnotationError, match="expected a dict, found a list"):
        read_json_pairs(path)


def test_lines_fail_one_by_one(tmp_path: Path) -> None:
    """Numbers are those of the file; blank lines are left out; \\r\\n ends a line too."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\r\n\n{"a": \xff}\n[1]\n{"a": "\xe2\x80\xa8"}')
    found = {}
    for name, line in json_lines(path):
        try:
            found[name] = parse_json_line(line)
        except FieldError as error:
            found[name] = str(error)
    assert found == {
        "line 1": {"a": 1},
        "line 3": "field (line): not UTF-8 at byte 6",
        "line 4": "field (line): expected an object, found a list",
        "line 5": {"a": "\u2028"},
    }
    assert parse_json_line(json.dumps({"a": 1})) == {"a": 1}


@pytest.mark.parametrize("relative", ["../a.mp4", "a/../../b.mp4", "/etc/passwd", "", " ", "a\0b", "\ud800.mp4"])
def test_path_that_leaves_its_folder(relative: str) -> None:
    with pytest.raises(FieldError, match="field video_path: expected a path inside of the video folder"):
        media_path("videos", relative, field="video_path")


def test_path_inside_its_folder() -> None:
    assert media_path("videos", "0042/a b..mp4") == "videos/0042/a b..mp4"
    assert media_path("", "a.mp4") == "a.mp4"
