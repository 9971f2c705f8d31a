"""RefCOCO: the pickle of `refer`, read without running it, and the JSON of MDETR."""

import json
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import pytest

from configs.sources import RefcocoSource
from data.annotations import AnnotationError, MissingFileError, Split
from data.sources.plain_pickle import read_plain_pickle
from data.sources.refcoco import load
from data.types import FrameSpan

REF = {
    "sent_ids": [0, 1, 2],
    "file_name": "COCO_train2014_000000581857_16.jpg",
    "ann_id": 1719310,
    "ref_id": 0,
    "image_id": 581857,
    "split": "train",
    "sentences": [
        {
            "tokens": ["the", "lady", "with", "the", "blue", "shirt"],
            "raw": "THE LADY WITH THE BLUE SHIRT",
            "sent_id": 0,
            "sent": "the lady with the blue shirt",
        },
        {
            "tokens": ["lady", "with", "back", "to", "us"],
            "raw": "lady w back to us",
            "sent_id": 1,
            "sent": "lady with back to us",
        },
        {"tokens": ["blue", "shirt"], "raw": "blue shirt", "sent_id": 2, "sent": "blue shirt"},
    ],
    "category_id": 1,
}
INSTANCES = {
    "images": [{"id": 581857, "width": 427, "height": 640, "file_name": "COCO_train2014_000000581857.jpg"}],
    "annotations": [{"id": 1719310, "image_id": 581857, "bbox": [103.93, 299.99, 134.22, 177.42], "iscrowd": 0}],
    "categories": [{"id": 1, "name": "person"}],
}
# 103.93 + 134.22, 299.99 + 177.42
BOX = (103.93, 299.99, 238.15, 477.41)


def python2_pickle(value: Any) -> bytes:
    """What Python 2's pickle.dump(value, file, 2) writes: byte strings, not text."""

    def encode(part: Any) -> bytes:
        if isinstance(part, dict):
            return b"}(" + b"".join(encode(key) + encode(entry) for key, entry in part.items()) + b"u"
        if isinstance(part, list):
            return b"](" + b"".join(map(encode, part)) + b"e"
        if isinstance(part, str):
            part = part.encode()
        return b"U" + bytes([len(part)]) + part if isinstance(part, bytes) else b"J" + struct.pack("<i", part)

    return b"\x80\x02" + encode(value) + b"."


def read_refer(folder: Path, refs: bytes, instances: Any = INSTANCES, split: str = "train") -> Split:
    (folder / "refcoco").mkdir(exist_ok=True)
    (folder / "refcoco" / "refs(unc).p").write_bytes(refs)
    (folder / "refcoco" / "instances.json").write_text(json.dumps(instances))
    return load(RefcocoSource(annotations=str(folder), videos="train2014"), split)


@pytest.mark.parametrize("refs", [python2_pickle([REF]), *(pickle.dumps([REF], protocol) for protocol in range(6))])
def test_refer_gives_a_sample_for_each_sentence(tmp_path: Path, refs: bytes):
    split = read_refer(tmp_path, refs)
    assert [sample.sample_id for sample in split.samples] == ["refcoco-unc-0", "refcoco-unc-1", "refcoco-unc-2"]
    assert [sample.query for sample in split.samples][:2] == ["the lady with the blue shirt", "lady with back to us"]
    for sample in split.samples:
        assert sample.video_path == "train2014/COCO_train2014_000000581857.jpg", "not the file_name of the pickle"
        assert (sample.task, sample.source, sample.fps) == ("rec", "refcoco", 1.0)
        assert (sample.width, sample.height) == (427, 640)
        assert sample.clip == sample.span == FrameSpan(0, 1)
        assert sample.boxes_xyxy_px is not None and sample.boxes_xyxy_px[0] == pytest.approx(BOX)
    assert split.flags == {} and split.rejected == [] and split.num_records == 1


def test_refer_reads_only_the_split_that_is_asked_for(tmp_path: Path):
    other = {**REF, "split": "testA", "sentences": [{**REF["sentences"][0], "sent_id": 9}]}
    refs = python2_pickle([REF, other])
    assert [sample.sample_id for sample in read_refer(tmp_path, refs, split="testA").samples] == ["refcoco-unc-9"]
    with pytest.raises(MissingFileError, match="no record of split 'val'"):
        read_refer(tmp_path, refs, split="val")


def test_refer_sentences_are_utf8(tmp_path: Path):
    sentences = [
        {"sent_id": 1, "sent": "café".encode()},
        {"sent_id": 2, "sent": "café".encode("latin-1")},
        {"sent_id": 3, "sent": "cup", "raw": b"\xff"},
    ]
    split = read_refer(tmp_path, python2_pickle([{**REF, "sentences": sentences}]))
    assert [sample.query for sample in split.samples] == ["café", "cup"], "`raw` is not used, so it does not matter"
    (error,) = split.rejected
    assert (error.record, error.field) == ("record 0, sentence 1", "sent")


def test_mdetr_pairs_images_with_annotations(tmp_path: Path):
    image = {
        "id": 0,
        "file_name": "COCO_train2014_000000581857.jpg",
        "width": 427,
        "height": 640,
        "original_id": 581857,
    }
    content = {
        "images": [{**image, "caption": "the lady with the blue shirt"}, {**image, "id": 1, "caption": " blue shirt "}],
        "annotations": [
            {"id": 0, "image_id": 0, "bbox": [103.93, 299.99, 134.22, 177.42]},
            {"id": 1, "image_id": 1, "bbox": [400, 600, 100, 20.5]},
        ],
    }
    (tmp_path / "finetune_refcoco+_val.json").write_text(json.dumps(content))
    split = load(RefcocoSource(annotations=str(tmp_path), videos="train2014", dataset="refcoco+"), "val")
    first, second = split.samples
    assert first.sample_id == "refcoco+-val-0" and second.sample_id == "refcoco+-val-1"
    assert first.video_path == "train2014/COCO_train2014_000000581857.jpg" and second.query == "blue shirt"
    assert first.boxes_xyxy_px is not None and first.boxes_xyxy_px[0] == pytest.approx(BOX)
    assert second.boxes_xyxy_px == ((400.0, 600.0, 427.0, 620.5),), "cut to the image of 427 x 640"
    assert split.flags == {"boxes_clipped": ["refcoco+-val-1"]}


def test_mdetr_lists_must_pair_up(tmp_path: Path):
    (tmp_path / "finetune_refcoco_val.json").write_text(json.dumps({"images": [], "annotations": [{}]}))
    with pytest.raises(AnnotationError, match="lists of one length"):
        load(RefcocoSource(annotations=str(tmp_path)), "val")


def test_instances_must_hold_lists(tmp_path: Path):
    with pytest.raises(AnnotationError, match=r"instances\.json, field annotations: expected a list, found a dict"):
        read_refer(tmp_path, pickle.dumps([REF]), {"images": [], "annotations": {}})


# The pickle is data, not a program.


class Touch:
    """Unpickled, it would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_pickles_do_what_they_say_when_they_are_run(tmp_path: Path):
    """The control of the tests below."""
    pickle.loads(pickle.dumps(Touch(tmp_path / "made")))
    pickle.loads(b"cos\nmkdir\n(S'%s'\ntR." % str(tmp_path / "made2").encode())
    assert (tmp_path / "made").exists() and (tmp_path / "made2").exists()


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_would_run_code_is_refused_and_not_run(tmp_path: Path, protocol: int):
    made = tmp_path / "made"
    with pytest.raises(AnnotationError, match=r"refs\(unc\)\.p: not a plain pickle: it asks for \w+\.mkdir"):
        read_refer(tmp_path, pickle.dumps([REF, {**REF, "sentences": [Touch(made)]}], protocol))
    assert not made.exists()


@pytest.mark.parametrize(
    "program",
    [
        b"cos\nmkdir\n(S'%s'\ntR.",  # GLOBAL, REDUCE
        b"(S'%s'\nios\nmkdir\n.",  # INST
        b"(cos\nmkdir\nS'%s'\no.",  # OBJ
        b"\x80\x04\x8c\x02os\x8c\x05mkdir\x93(S'%s'\ntR.",  # STACK_GLOBAL
        b'c__builtin__\neval\n(S\'__import__("os").mkdir("%s")\'\ntR.',
        b"P%s\n.",  # persistent id
        b"]\x82\x01.%s",  # extension registry
        b"](S'%s'\nb.",  # BUILD on a list
        b"S'%s'\n)R.",  # REDUCE of a string
    ],
)
def test_no_opcode_gets_around_the_refusal(tmp_path: Path, program: bytes):
    path, made = tmp_path / "refs.p", tmp_path / "made"
    path.write_bytes(program % str(made).encode())
    with pytest.raises(AnnotationError, match="not a plain pickle"):
        read_plain_pickle(path, list)
    assert not made.exists()


@pytest.mark.parametrize("content", [b"", b"\x80\x02](", b"not a pickle", b"\x80\x63N.", b"X\xff\xff\xff\x7fabc"])
def test_a_broken_pickle_is_one_error(tmp_path: Path, content: bytes):
    path = tmp_path / "refs.p"
    path.write_bytes(content)
    with pytest.raises(AnnotationError, match=r"refs\.p: not a plain pickle"):
        read_plain_pickle(path, list)


def test_a_pickle_of_something_else_is_refused(tmp_path: Path):
    (tmp_path / "refs.p").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(AnnotationError, match="expected a list, found a dict"):
        read_plain_pickle(tmp_path / "refs.p", list)
    with pytest.raises(MissingFileError):
        read_plain_pickle(tmp_path / "absent.p", list)
