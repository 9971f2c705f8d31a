"""Records that are not what they should be: each is one error with file, record and field; its neighbours are read."""

import json
import pickle
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.base import Config
from configs.sources import (
    ActivitynetCaptionsSource,
    CharadesStaSource,
    DidemoSource,
    NextgqaSource,
    QvhighlightsSource,
    RefcocoSource,
    TacosSource,
)
from data.annotations import AnnotationError, Split
from data.sources import SOURCES

Records = list[Any]


def json_list(path: Path, records: Records) -> None:
    path.write_text(json.dumps(records))


def json_lines(path: Path, records: Records) -> None:
    lines = [record if isinstance(record, bytes) else json.dumps(record).encode() for record in records]
    path.write_bytes(b"\n".join(lines) + b"\n")


def text_lines(path: Path, records: Records) -> None:
    path.write_text("\n".join(records))


def videos_by_name(path: Path, records: Records) -> None:
    """Records are videos; a pair (name, video) has another name."""
    named = [record if isinstance(record, tuple) else (f"V{index}", record) for index, record in enumerate(records)]
    path.write_text(json.dumps(dict(named)))


def refs_and_instances(path: Path, records: Records) -> None:
    """Records are refs; a pair (ref, annotation) also changes what instances.json says of its box."""
    path.parent.mkdir(exist_ok=True)
    pairs = [record if isinstance(record, tuple) else (record, {}) for record in records]
    path.write_bytes(pickle.dumps([ref for ref, _ in pairs]))
    boxes = [{"id": i, "image_id": i, "bbox": [1.0, 2.0, 3.0, 4.0], **change} for i, (_, change) in enumerate(pairs)]
    images = [{"id": i, "width": 60, "height": 40} for i in range(len(pairs))]
    path.with_name("instances.json").write_text(json.dumps({"images": images, "annotations": boxes}))


def images_and_annotations(path: Path, records: Records) -> None:
    """Records hold both, told apart by their keys; box_image_id is the image_id of the annotation."""
    images = [{key: record.get(key) for key in ("id", "file_name", "width", "height", "caption")} for record in records]
    boxes = [{"image_id": record.get("box_image_id", record["id"]), "bbox": record["bbox"]} for record in records]
    path.write_text(json.dumps({"images": images, "annotations": boxes}))


@dataclass(frozen=True)
class Layout:
    """A published layout: where its file lies, how records are written to it, and the good record `i`."""

    config: Callable[[str], Config]
    split: str
    file: str
    write: Callable[[Path, Records], None]
    good: Callable[[int], Any]
    name: Callable[[int], str] = "record {}".format
    """What an error calls record `i`."""

    def read(self, folder: Path, records: Records) -> Split:
        self.write(folder / self.file, records)
        config: Any = self.config(str(folder))
        return SOURCES[config.type](config, self.split)


def moment(_: int) -> dict[str, Any]:
    return {"duration": 30.0, "timestamps": [[0.5, 6.9]], "sentences": ["a person sits."]}


LAYOUTS = {
    "charades": Layout(
        lambda folder: CharadesStaSource(annotations=folder), "test", "test.json", videos_by_name, moment, "V{}".format
    ),
    "charades_text": Layout(
        lambda folder: CharadesStaSource(annotations=folder),
        "test",
        "charades_sta_test.txt",
        text_lines,
        lambda i: f"V{i} 0.5 6.9##a person sits.",
        lambda i: f"line {i + 1}",
    ),
    "activitynet": Layout(
        lambda folder: ActivitynetCaptionsSource(annotations=folder),
        "val_2",
        "val_2.json",
        videos_by_name,
        moment,
        "V{}".format,
    ),
    "tacos": Layout(
        lambda folder: TacosSource(annotations=folder),
        "val",
        "val.json",
        videos_by_name,
        lambda i: {"fps": 29.4, "num_frames": 900, "timestamps": [[20, 48]], "sentences": ["He cuts."]},
        "V{}".format,
    ),
    "qvhighlights": Layout(
        lambda folder: QvhighlightsSource(annotations=folder),
        "val",
        "highlight_val_release.jsonl",
        json_lines,
        lambda i: {
            "qid": i,
            "query": "A cat.",
            "duration": 150,
            "vid": f"a{i}_0.0_150.0",
            "relevant_windows": [[0, 8]],
        },
        lambda i: f"line {i + 1}",
    ),
    "didemo": Layout(
        lambda folder: DidemoSource(annotations=folder),
        "val",
        "val_data.json",
        json_list,
        lambda i: {
            "num_segments": 6,
            "description": "a cat",
            "times": [[0, 0]] * 4,
            "video": f"{i}.mov",
            "annotation_id": i,
        },
    ),
    "nextgqa": Layout(
        lambda folder: NextgqaSource(annotations=folder),
        "val",
        "val.json",
        json_list,
        lambda i: {
            "id": i,
            "video": f"{i}.mp4",
            "question": "why?",
            "options": ["(A) a", "(B) b"],
            "duration": 20,
            "glue": [[1, 2.5]],
            "answer": "(B)",
        },
    ),
    "refer": Layout(
        lambda folder: RefcocoSource(annotations=folder),
        "val",
        "refcoco/refs(unc).p",
        refs_and_instances,
        lambda i: {"ann_id": i, "image_id": i, "split": "val", "sentences": [{"sent_id": i, "sent": "a cat"}]},
    ),
    "mdetr": Layout(
        lambda folder: RefcocoSource(annotations=folder),
        "val",
        "finetune_refcoco_val.json",
        images_and_annotations,
        lambda i: {
            "id": i,
            "file_name": f"{i}.jpg",
            "width": 60,
            "height": 40,
            "caption": "a cat",
            "bbox": [1.0, 2.0, 3.0, 4.0],
        },
    ),
}

MISSING = object()


def changed(**changes: Any) -> Callable[[Any], Any]:
    return lambda record: {key: value for key, value in {**record, **changes}.items() if value is not MISSING}


def instead(value: Any) -> Callable[[Any], Any]:
    return lambda record: value


def sentence(**changes: Any) -> Callable[[Any], Any]:
    return lambda record: {**record, "sentences": [changed(**changes)(record["sentences"][0])]}


def in_instances(**changes: Any) -> Callable[[Any], Any]:
    return lambda record: (record, changes)


NAN, HUGE = float("nan"), 10**400

# Layout, what is done to record 1 of three, the field that the error names, the place in the record or another file.
HOSTILE = [
    ("charades", changed(duration=MISSING), "duration", ""),
    ("charades", changed(duration="30.0"), "duration", ""),
    ("charades", changed(duration=NAN), "duration", ""),
    ("charades", changed(duration=30_000_000), "duration", ""),  # not seconds
    ("charades", changed(duration=HUGE), "duration", ""),
    ("charades", changed(timestamps=[]), "timestamps", ""),
    ("charades", changed(timestamps=[[6.9, 0.5]]), "timestamps", ", sentence 0"),
    ("charades", changed(timestamps=[[6.9, 6.9]]), "timestamps", ", sentence 0"),
    ("charades", changed(timestamps=[[-1.0, 6.9]]), "timestamps", ", sentence 0"),
    ("charades", changed(timestamps=[[30.0, 31.0]]), "timestamps", ", sentence 0"),  # after the end
    ("charades", changed(timestamps=[[1.0001, 1.0002]]), "timestamps", ", sentence 0"),
    ("charades", changed(timestamps=[[0.5]]), "timestamps.1", ", sentence 0"),
    ("charades", changed(timestamps=[["0.5", 6.9]]), "timestamps.0", ", sentence 0"),
    ("charades", changed(timestamps=[[0.5, True]]), "timestamps.1", ", sentence 0"),
    ("charades", changed(timestamps=[[0.5, 6.9], [1.0, 2.0]]), "sentences", ""),
    ("charades", changed(sentences=["  "]), "sentences", ", sentence 0"),
    ("charades", changed(sentences=["\ud83d"]), "sentences", ", sentence 0"),
    ("charades", changed(sentences=[5]), "sentences", ", sentence 0"),
    ("charades", instead(None), "(record)", ""),
    ("activitynet", changed(duration=0), "duration", ""),
    ("activitynet", changed(timestamps=None), "timestamps", ""),
    ("activitynet", changed(sentences=MISSING), "sentences", ""),
    ("tacos", changed(fps=0), "fps", ""),
    ("tacos", changed(fps=MISSING), "fps", ""),
    ("tacos", changed(num_frames=-900), "num_frames", ""),
    ("tacos", changed(num_frames=900.5), "num_frames", ""),
    ("tacos", changed(timestamps=[[48, 20]]), "timestamps", ", sentence 0"),
    ("charades_text", instead("V1 0.5 6.9 a person sits."), "(line)", ""),
    ("charades_text", instead("V1 0.5##a person sits."), "(line)", ""),
    ("charades_text", instead("V1 zero 6.9##a person sits."), "interval", ""),
    ("charades_text", instead("V1 0.5 nan##a person sits."), "interval.1", ""),
    ("charades_text", instead("V1 6.9 0.5##a person sits."), "interval", ""),
    ("charades_text", instead("V1 0.5 6.9##"), "sentence", ""),
    ("charades_text", instead("../V1 0.5 6.9##a person sits."), "video", ""),
    ("qvhighlights", changed(qid=MISSING), "qid", ""),
    ("qvhighlights", changed(qid=0), "sample_id", ""),  # twice
    ("qvhighlights", changed(query=None), "query", ""),
    ("qvhighlights", changed(duration=True), "duration", ""),
    ("qvhighlights", changed(vid="../../etc/passwd"), "vid", ""),
    ("qvhighlights", changed(vid="/etc/passwd"), "vid", ""),
    ("qvhighlights", changed(vid="a\0b"), "vid", ""),
    ("qvhighlights", changed(relevant_windows=[]), "relevant_windows", ""),
    ("qvhighlights", changed(relevant_windows=[[0, 8], [9, 8]]), "relevant_windows", ""),
    ("qvhighlights", changed(relevant_windows=[[0, 8, 9]]), "relevant_windows.0", ""),
    ("qvhighlights", instead(b'{"qid": 1, "query": "A'), "(line)", ""),
    ("qvhighlights", instead(b'{"qid": 1, "query": "\xff"}'), "(line)", ""),
    ("qvhighlights", instead(b"[" * 100_000), "(line)", ""),
    ("qvhighlights", instead([1]), "(line)", ""),
    ("didemo", changed(times=[[3, 1]]), "times", ""),
    ("didemo", changed(times=[[0, 6]]), "times.0.1", ""),
    ("didemo", changed(times=[[0.0, 1]]), "times.0.0", ""),
    ("didemo", changed(times=[]), "times", ""),
    ("didemo", changed(num_segments=0), "num_segments", ""),
    ("didemo", changed(annotation_id=2), "sample_id", ""),  # as the next one: which is then the second of two
    ("didemo", changed(video="/etc/passwd"), "video", ""),
    ("nextgqa", changed(answer="(C)"), "answer", ""),
    ("nextgqa", changed(options=["a", "b"]), "options", ""),
    ("nextgqa", changed(options=["(A) a"]), "options", ""),
    ("nextgqa", changed(glue=MISSING), "glue", ""),
    ("nextgqa", changed(glue=[[2.5, 1]]), "glue", ""),
    ("nextgqa", changed(duration="20"), "duration", ""),
    ("refer", changed(ann_id=77), "ann_id", ""),
    ("refer", changed(image_id=77), "image_id", ""),
    ("refer", changed(image_id=-1), "image_id", ""),
    ("refer", changed(split=MISSING), "split", ""),
    ("refer", changed(sentences=[]), "sentences", ""),
    ("refer", sentence(sent=""), "sent", ", sentence 0"),
    ("refer", sentence(sent_id=MISSING), "sent_id", ", sentence 0"),
    ("refer", in_instances(bbox=[1.0, 2.0, -3.0, 4.0]), "bbox", "instances.json"),
    ("refer", in_instances(bbox=[1.0, NAN, 3.0, 4.0]), "bbox.1", "instances.json"),
    ("refer", in_instances(bbox=[70.0, 2.0, 3.0, 4.0]), "bbox", "instances.json"),  # right of the image
    ("refer", in_instances(image_id=0), "image_id", "instances.json"),
    ("mdetr", changed(bbox=[1.0, 2.0, 3.0]), "bbox.3", ""),
    ("mdetr", changed(bbox=[1.0, 2.0, 3e9, 4.0]), "bbox.2", ""),
    ("mdetr", changed(box_image_id=2), "image_id", ""),
    ("mdetr", changed(file_name="../1.jpg"), "file_name", ""),
    ("mdetr", changed(caption=None), "caption", ""),
    ("mdetr", changed(width=0), "width", ""),
]


HOSTILE_IDS = [f"{index}-{layout}-{field}" for index, (layout, _, field, _) in enumerate(HOSTILE)]


@pytest.mark.parametrize(("layout", "spoil", "field", "place"), HOSTILE, ids=HOSTILE_IDS)
def test_a_bad_record_is_one_error_and_its_neighbours_are_read(
    tmp_path: Path, layout: str, spoil: Callable[[Any], Any], field: str, place: str
):
    kind = LAYOUTS[layout]
    split = kind.read(tmp_path, [kind.good(0), spoil(kind.good(1)), kind.good(2)])
    (error,) = split.rejected
    assert len(split.samples) == 2 and split.num_records == 3
    assert error.field == field and len(str(error)) < 1000
    if place == "instances.json":
        assert (Path(error.path).name, error.record) == (place, "image 1, annotation 1")
    else:
        is_second_of_two = layout == "didemo" and field == "sample_id"
        assert Path(error.path) == tmp_path / kind.file
        assert error.record == kind.name(2 if is_second_of_two else 1) + place


def test_a_bad_name_of_a_video_costs_that_video(tmp_path: Path):
    kind = LAYOUTS["charades"]
    for name in ("../../etc/passwd", "/etc/passwd", "a\0b"):
        split = kind.read(tmp_path, [kind.good(0), (name, kind.good(1)), kind.good(2)])
        assert [(error.record, error.field) for error in split.rejected] == [(f"{name}, sentence 0", "video")]
        assert len(split.samples) == 2


def test_a_bad_sentence_leaves_the_others_of_its_video(tmp_path: Path):
    video = {"duration": 30.0, "timestamps": [[0, 1], [3, 2], [4, 5]], "sentences": ["a", "b", "c"]}
    split = LAYOUTS["charades"].read(tmp_path, [video])
    assert [sample.query for sample in split.samples] == ["a", "c"]
    assert [error.record for error in split.rejected] == ["V0, sentence 1"]


def test_one_video_twice_in_a_file_is_reported(tmp_path: Path):
    video = json.dumps(LAYOUTS["charades"].good(0))
    (tmp_path / "test.json").write_text(f'{{"AO8RW": {video}, "AO8RW": {video}}}')
    split = SOURCES["charades_sta"](CharadesStaSource(annotations=str(tmp_path)), "test")
    assert len(split.samples) == 1 and [error.field for error in split.rejected] == ["sample_id"]


@pytest.mark.parametrize("content", [b"", b"{", b'{"V0": ', b"\xff\xfe", b"[" * 100_000, b"9" * 5000, b"null"])
@pytest.mark.parametrize("layout", ["charades", "activitynet", "tacos", "didemo", "nextgqa", "mdetr"])
def test_a_broken_file_is_one_error_that_names_it(tmp_path: Path, layout: str, content: bytes):
    kind = LAYOUTS[layout]
    (tmp_path / kind.file).write_bytes(content)
    config: Any = kind.config(str(tmp_path))
    with pytest.raises(AnnotationError, match=kind.file):
        SOURCES[config.type](config, kind.split)


# Arbitrary JSON in arbitrary fields

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([0.5, 1, 2, "V0", "(A) a"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=8,
)


def kept_fields(kind: Layout) -> list[str]:
    """Fields whose change keeps a record a record of its split."""
    good = kind.good(1)
    return [] if isinstance(good, str) else [field for field in good if field != "split"]


@st.composite
def spoiled_records(draw: st.DrawFn) -> tuple[Layout, Records]:
    """Three records of some layout, the one in the middle with arbitrary JSON in a field, or instead of it."""
    kind = LAYOUTS[draw(st.sampled_from(sorted(set(LAYOUTS) - {"charades_text"})))]
    field, value = draw(st.sampled_from(kept_fields(kind))), draw(json_values)
    is_whole = draw(st.booleans()) and kind.write in (json_list, json_lines, videos_by_name)
    return kind, [kind.good(0), value if is_whole else {**kind.good(1), field: value}, kind.good(2)]


@settings(max_examples=150)
@given(spoiled_records())
def test_arbitrary_json_is_a_sample_or_one_error(spoiled: tuple[Layout, Records]):
    kind, records = spoiled
    with tempfile.TemporaryDirectory() as folder:
        split = kind.read(Path(folder), records)
    assert split.num_records == 3
    assert all(isinstance(error, AnnotationError) and error.record and error.field for error in split.rejected)
    sentences = records[1].get("sentences") if kind.write is refs_and_instances else None
    num_parts = max(len(sentences), 1) if isinstance(sentences, list) else 1
    assert len(split.samples) + len(split.rejected) == 2 + num_parts, "every record is accounted for"
    assert len(split.samples) >= 2


@settings(max_examples=60)
@given(st.text(max_size=40))
def test_arbitrary_text_is_a_sample_or_one_error(line: str):
    kind = LAYOUTS["charades_text"]
    with tempfile.TemporaryDirectory() as folder:
        split = kind.read(Path(folder), [kind.good(0), line.replace("\n", " "), kind.good(2)])
    assert len(split.samples) + len(split.rejected) == split.num_records == (3 if line.strip() else 2)
