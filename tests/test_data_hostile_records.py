"""Records that cannot be what they say: each is one error with file, record and field, and its neighbour is read."""

from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
from raw_annotations import LAYOUTS

from data.annotations import AnnotationError

GONE = object()
Place = tuple[str | int, ...]


def put(record: Any, place: Place, value: Any) -> Any:
    """The record with another value at a place (changed in place), or without it."""
    if not place:
        return value
    parent = reduce(lambda tree, key: tree[key], place[:-1], record)
    if value is GONE:
        del parent[place[-1]]
    else:
        parent[place[-1]] = value
    return record


NAN, INF = float("nan"), float("inf")
# layout, where, what is put there, the field that the error names
BAD: list[tuple[str, Place, Any, str]] = [
    # wrong type
    ("vidstg", (), None, "(record)"),
    ("vidstg", (), [], "(record)"),
    ("vidstg", (), "77", "(record)"),
    ("vidstg", ("vid",), 77, "vid"),
    ("vidstg", ("fps",), "25", "fps"),
    ("vidstg", ("fps",), True, "fps"),
    ("vidstg", ("frame_count",), True, "frame_count"),
    ("vidstg", ("used_segment",), [10, 39], "used_segment"),
    ("vidstg", ("captions",), {}, "captions"),
    ("vidstg", ("captions", 0), None, "captions.0"),
    ("vidstg", ("captions", 0, "target_id"), "2", "captions.0.target_id"),
    ("vidstg", ("subject/objects",), None, "subject/objects"),
    ("tubedetr", ("qtype",), "declar", "qtype"),
    ("tubedetr", ("caption",), ["the child"], "caption"),
    ("stcat", ("qtype",), "declarative", "qtype"),
    ("stcat", ("target_bboxs",), None, "target_bboxs"),
    ("stcat", ("target_bboxs", 1), [1, 2, 30, 40], "target_bboxs.1"),
    ("hcstvg_v1", ("bbox",), {"268": [1, 2, 30, 40]}, "bbox"),
    ("hcstvg_v1", ("bbox", 1), None, "bbox.1"),
    ("hcstvg_v1", ("bbox", 1, 2), "30", "bbox.1.2"),
    ("hcstvg_v1", ("width",), True, "width"),
    ("hcstvg_v2", ("img_size",), 360, "img_size"),
    ("hcstvg_v2", ("img_size",), [360], "img_size"),
    ("hcstvg_v2", ("English",), None, "English"),
    ("hcstvg_queries", (), None, "sentence"),
    ("hcstvg_queries", (), {"English": "The man"}, "sentence"),
    ("jsonl", (), [], "(line)"),
    ("jsonl", (), None, "(line)"),
    ("jsonl", ("sample_id",), 1, "sample_id"),
    ("jsonl", ("width",), 64.0, "width"),
    ("jsonl", ("fps",), "8", "fps"),
    ("jsonl", ("clip",), [False, True], "clip.0"),
    ("jsonl", ("clip",), "0-64", "clip"),
    ("jsonl", ("task",), "rev", "task"),
    ("jsonl", ("boxes_xyxy_px", 0), [3.0, 4.0, True, 21.0], "boxes_xyxy_px.0.2"),
    ("jsonl", ("boxes_xyxy_px", 0), [3.0, 4.0, 20.0], "boxes_xyxy_px.0.3"),
    ("jsonl", ("windows_sec",), [[1.5, None]], "windows_sec.0.1"),
    ("vidor", ("video_path",), 77, "video_path"),
    ("vidor", ("trajectories",), {}, "trajectories"),
    ("vidor", ("trajectories", 1), {"2": []}, "trajectories.1"),
    ("vidor", ("trajectories", 1, 0, "bbox"), [1, 2, 30, 40], "trajectories.1.0.bbox"),
    ("vidor", (), None, "(file)"),
    # missing, empty
    ("vidor", ("trajectories",), [], "trajectories"),
    ("vidor", ("trajectories", 2, 0, "tid"), GONE, "trajectories.2.0.tid"),
    ("vidstg", ("vid",), GONE, "vid"),
    ("vidstg", ("temporal_gt", "end_fid"), GONE, "temporal_gt.end_fid"),
    ("vidstg", ("captions", 0, "description"), " ", "captions.0.description"),
    ("vidstg", ("captions",), [], "captions"),
    ("tubedetr", ("video_path",), GONE, "video_path"),
    ("stcat", ("sentence", "description"), GONE, "sentence.description"),
    ("stcat", ("target_bboxs", 2, "ymax"), GONE, "target_bboxs.2.ymax"),
    ("stcat", ("target_bboxs",), [], "target_bboxs"),
    ("hcstvg_v1", ("bbox",), [], "bbox"),
    ("hcstvg_v1", ("caption",), GONE, "caption"),
    ("hcstvg_v2", ("img_size",), GONE, "img_size"),
    ("hcstvg_queries", (), "", "sentence"),
    ("jsonl", ("video_path",), GONE, "video_path"),
    ("jsonl", ("video_path",), "", "video_path"),
    ("jsonl", ("query",), "\n", "query"),
    ("jsonl", ("boxes_xyxy_px",), GONE, "boxes_xyxy_px"),
    ("jsonl", ("span",), [], "span.0"),
    # NaN, infinity, negative or reversed sizes
    ("vidstg", ("fps",), NAN, "fps"),
    ("vidstg", ("width",), -640, "width"),
    ("tubedetr", ("fps",), INF, "fps"),
    ("vidor", ("trajectories", 0, 0, "bbox", "xmin"), NAN, "trajectories.0.0.bbox.xmin"),
    ("stcat", ("target_bboxs", 0, "xmin"), NAN, "target_bboxs.0.xmin"),
    ("hcstvg_v1", ("bbox", 0, 0), NAN, "bbox.0.0"),
    ("hcstvg_v2", ("bbox", 2, 3), -INF, "bbox.2.3"),
    ("hcstvg_v2", ("img_size", 0), 0, "img_size.0"),
    ("jsonl", ("fps",), 0.0, "fps"),
    ("jsonl", ("fps",), -8.0, "fps"),
    ("jsonl", ("height",), -1, "height"),
    ("jsonl", ("height",), 0, "height"),
    ("jsonl", ("boxes_xyxy_px", 0, 1), INF, "boxes_xyxy_px.0.1"),
    ("jsonl", ("boxes_xyxy_px", 0, 2), 2.0, "boxes_xyxy_px"),
    ("jsonl", ("windows_sec",), [[1.0, NAN]], "windows_sec.0.1"),
    # spans: inverted, empty, outside of the clip, in seconds, of another length than the boxes
    ("vidstg", ("temporal_gt",), {"begin_fid": 23, "end_fid": 20}, "temporal_gt"),
    ("vidstg", ("temporal_gt",), {"begin_fid": 20, "end_fid": 20}, "temporal_gt"),
    ("vidstg", ("temporal_gt", "end_fid"), 41, "temporal_gt"),
    ("vidstg", ("temporal_gt", "begin_fid"), 9, "temporal_gt"),
    ("vidstg", ("temporal_gt", "begin_fid"), -20, "temporal_gt.begin_fid"),
    ("vidstg", ("temporal_gt",), {"begin_fid": 0.8, "end_fid": 0.92}, "temporal_gt.begin_fid"),
    ("vidstg", ("used_segment", "end_fid"), 50, "used_segment"),
    ("tubedetr", ("end_frame",), 50, "end_frame"),
    ("tubedetr", ("tube_end_frame",), 0.92, "tube_end_frame"),
    ("tubedetr", ("tube_end_frame",), 20, "tube_end_frame"),
    ("stcat", ("ori_temp_gt",), {"begin_fid": 10, "end_fid": 13}, "temp_gt.begin_fid"),
    ("stcat", ("ori_temp_gt", "end_fid"), 25, "target_bboxs"),
    ("stcat", ("used_segment",), {"begin_fid": 39, "end_fid": 10}, "used_segment"),
    ("hcstvg_v1", ("st_frame",), 8.9, "st_frame"),
    ("hcstvg_v1", ("st_frame",), 0, "st_frame"),
    ("hcstvg_v1", ("st_frame",), 501, "st_frame"),
    ("jsonl", ("span",), [15, 12], "span"),
    ("jsonl", ("span",), [1.5, 1.875], "span.0"),
    ("jsonl", ("span",), [62, 65], "span"),
    ("jsonl", ("span",), [12, 16], "boxes_xyxy_px"),
    ("jsonl", ("windows_sec",), [[2.0, 1.0]], "windows_sec"),
    # names of nothing, names that are taken
    ("vidstg", ("captions", 0, "target_id"), 9, "captions.0.target_id"),
    ("tubedetr", ("target_id",), 9, "target_id"),
    ("tubedetr", ("original_video_id",), "78", "original_video_id"),
    ("tubedetr", ("video_id",), 0, "sample_id"),
    ("stcat", ("id",), 0, "sample_id"),
    ("jsonl", ("sample_id",), "0", "sample_id"),
    ("jsonl", ("choise",), "A", "choise"),
    # huge numbers
    ("vidstg", ("frame_count",), 10**30, "frame_count"),
    ("vidstg", ("temporal_gt", "end_fid"), 10**9, "temporal_gt.end_fid"),
    ("vidstg", ("fps",), 1e308, "fps"),
    ("tubedetr", ("frame_count",), 10**9, "frame_count"),
    ("stcat", ("target_bboxs", 0, "xmax"), 1e308, "target_bboxs.0.xmax"),
    ("stcat", ("used_segment", "end_fid"), 10**12, "used_segment.end_fid"),
    ("hcstvg_v1", ("img_num",), 10**9, "img_num"),
    ("hcstvg_v1", ("st_frame",), 10**30, "st_frame"),
    ("hcstvg_v1", ("bbox", 0), [1e308, 0, 1e308, 1], "bbox.0.0"),
    ("hcstvg_v2", ("img_size", 1), 10**400, "img_size.1"),
    ("jsonl", ("clip", 1), 10**30, "clip.1"),
    ("jsonl", ("fps",), 10**400, "fps"),
    ("jsonl", ("boxes_xyxy_px", 2, 2), 1e308, "boxes_xyxy_px.2.2"),
    # paths and text
    ("vidor", ("video_path",), "0042/../../77.mp4", "video_path"),
    ("vidstg", ("vid",), "../77", "vid"),
    ("vidstg", ("vid",), "a\0b", "vid"),
    ("tubedetr", ("video_path",), "0042/../../77.mp4", "video_path"),
    ("tubedetr", ("video_path",), "/etc/passwd", "video_path"),
    ("stcat", ("vid",), "..\ud800", "vid"),
    ("jsonl", ("video_path",), "../v1.mp4", "video_path"),
    ("jsonl", ("video_path",), "/v\0.mp4", "video_path"),
    ("jsonl", ("query",), "half a pair \udc00", "query"),
]


@pytest.mark.parametrize(("layout", "place", "value", "field"), BAD, ids=lambda value: str(value)[:40])
def test_bad_record(tmp_path: Path, layout: str, place: Place, value: Any, field: str) -> None:
    """A good record, then the bad one."""
    form = LAYOUTS[layout]
    good, bad = form.records()
    path = form.write(tmp_path, [good, put(bad, place, value)])
    split = form.load(tmp_path)
    (error,) = split.rejected
    assert error.path == str(path)
    assert error.record == form.name or error.record == f"{form.name}, captions.0"
    assert error.field == field
    assert error.cause and len(str(error)) < len(str(path)) + 300
    assert len(split.samples) == 1 and split.num_records == 2


@pytest.mark.parametrize("layout", LAYOUTS)
def test_good_records(tmp_path: Path, layout: str) -> None:
    """Both are read as they are: what the others are about is the change."""
    form = LAYOUTS[layout]
    form.write(tmp_path, form.records())
    split = form.load(tmp_path)
    assert len(split.samples) == 2 and split.rejected == []
    assert set(split.flags) <= {"no_boxes", "duplicate"}


def with_long_number(content: bytes) -> bytes:
    """Python converts integers of up to 4300 digits."""
    before, brace, after = content.rpartition(b"}")
    return before + b', "x": ' + b"1" * 5000 + brace + after


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout not in ("jsonl", "vidor")])
@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda content: content[: len(content) // 2], "not valid JSON"),
        (lambda content: content.replace(b"the ", b"the \xff").replace(b"The ", b"The \xff"), "not UTF-8"),
        (lambda content: b"", "not valid JSON"),
        (lambda content: b"5", "expected a"),
        (with_long_number, "not valid JSON"),
        (lambda content: b"[" * 10**5, "not valid JSON"),
    ],
    ids=["cut off", "not UTF-8", "empty", "a number", "5000 digits", "deep"],
)
def test_bad_file(tmp_path: Path, layout: str, damage: Any, expected: str) -> None:
    """One JSON tree is read or not; the error names the file."""
    form = LAYOUTS[layout]
    path = form.write(tmp_path, form.records())
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(AnnotationError, match=expected) as caught:
        form.load(tmp_path)
    assert caught.value.path == str(path)


@pytest.mark.parametrize(
    "line", [b'{"sample_id": "1"', b"\xff\xfe{}", b"{} {}", b"[" * 10**5, b'{"fps": ' + b"1" * 5000 + b"}", b"NaN"]
)
def test_bad_line(tmp_path: Path, line: bytes) -> None:
    """Of a JSONL file only that line is lost."""
    form = LAYOUTS["jsonl"]
    path = form.write(tmp_path, form.records())
    path.write_bytes(line + b"\n" + path.read_bytes())
    split = form.load(tmp_path)
    assert [(error.path, error.record, error.field) for error in split.rejected] == [(str(path), "line 1", "(line)")]
    assert len(split.samples) == 2


def places_of(tree: Any, before: Place = ()) -> Sequence[Place]:
    """Every place of a JSON tree."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [before, *(place for key, value in items for place in places_of(value, (*before, key)))]


NASTY = [GONE, None, True, NAN, INF, 0, -1, 10**9, 10**30, 10**400, 1e308, "", "..", "/", "\0", "\ud800", [], {}, [[]]]
JSON_VALUES = st.sampled_from(NASTY) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=6,
)

BUSY = [hypothesis.HealthCheck.too_slow]
"""A machine with other work is no reason to fail."""


def check_any_value(layout: str, folder: Path, data: st.DataObject) -> None:
    """Nothing but errors of records comes of it, each record is a sample or an error, and the good one is a sample."""
    form = LAYOUTS[layout]
    good, bad = form.records()
    place = data.draw(st.sampled_from(places_of(bad)))
    value = data.draw(JSON_VALUES if place else JSON_VALUES.filter(lambda value: value is not GONE))
    folder.mkdir(exist_ok=True)
    form.write(folder, [good])
    unchanged = form.load(folder)
    form.write(folder, [good, put(bad, place, value)])
    split = form.load(folder)
    first, *others = split.samples
    assert first == unchanged.samples[0]
    assert split.num_records == 2 and len(others) + len(split.rejected) >= 1
    for error in split.rejected:
        assert error.record.startswith(form.name) and error.field and error.cause


@pytest.mark.parametrize("layout", LAYOUTS)
@hypothesis.settings(max_examples=30, suppress_health_check=BUSY)
@hypothesis.given(data=st.data())
def test_any_value_in_any_field(tmp_path_factory: pytest.TempPathFactory, layout: str, data: st.DataObject) -> None:
    check_any_value(layout, tmp_path_factory.getbasetemp() / f"any-{layout}", data)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
@hypothesis.settings(max_examples=500, suppress_health_check=BUSY)
@hypothesis.given(data=st.data())
def test_many_values_in_any_field(tmp_path_factory: pytest.TempPathFactory, layout: str, data: st.DataObject) -> None:
    check_any_value(layout, tmp_path_factory.getbasetemp() / f"many-{layout}", data)
