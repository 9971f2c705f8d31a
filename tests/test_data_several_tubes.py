"""Samples of several spans and several objects: what is one, that files keep them, and who refuses them."""

import dataclasses
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from prepared_samples import PROBED, QA, QUESTION, REC, SEVERAL, TEMPORAL

from configs.data import DataConfig
from configs.sources import JsonlSource
from data import parquet
from data.annotations import AnnotationError
from data.sources import jsonl, load_samples
from data.types import BoxPx, FrameSpan, GroundingSample, SampleError, Tube
from evaluation.predictions import Prediction, ScoreError
from evaluation.task_scores import score_tasks

BOX: BoxPx = (1.0, 1.0, 2.0, 2.0)


def tube(start: int, end: int, *, number: int = 0) -> Tube:
    return Tube(FrameSpan(start, end), (BOX,) * (end - start), number)


def test_tubes_of_a_sample() -> None:
    """The one of `span` comes first; a sample of one tube has that alone, one without boxes none."""
    assert PROBED.span is not None and PROBED.boxes_xyxy_px is not None
    first = Tube(PROBED.span, PROBED.boxes_xyxy_px, 0)
    assert PROBED.tubes == (first,)
    assert SEVERAL.tubes == (first, *SEVERAL.more_tubes)
    assert TEMPORAL.tubes == QUESTION.tubes == QA.tubes == ()


@pytest.mark.parametrize(
    "more",
    [
        [tube(7, 9)],  # the first tube is frames 4 to 6, and the next one may begin where it ends
        [tube(4, 7, number=1), tube(4, 7, number=2)],  # other objects at the same time
        [tube(8, 9), tube(10, 16), tube(2, 16, number=1)],
    ],
)
def test_tubes_that_can_be(more: list[Tube]) -> None:
    assert dataclasses.replace(PROBED, more_tubes=tuple(more)).tubes[1:] == tuple(more)


def test_several_objects_in_an_image() -> None:
    others = (Tube(FrameSpan(3, 4), (BOX,), 1), Tube(FrameSpan(3, 4), (BOX,), 2))
    assert [t.object for t in dataclasses.replace(REC, more_tubes=others).tubes] == [0, 1, 2]


@pytest.mark.parametrize(
    ("sample", "more", "cause"),
    [
        (PROBED, tube(6, 9), r"spans FrameSpan\(start=4, end=7\) and FrameSpan\(start=6, end=9\) of object 0 overlap"),
        (PROBED, tube(1, 3), r"span FrameSpan\(start=1, end=3\) is not inside the clip"),
        (PROBED, tube(8, 17, number=1), "is not inside the clip"),
        (PROBED, Tube(FrameSpan(8, 10), (BOX,)), "expected one box .* 2, got 1"),
        (PROBED, Tube(FrameSpan(8, 9), ((2.0, 1.0, 1.0, 2.0),)), "expected boxes as .left, top, right, bottom."),
        (PROBED, tube(8, 9, number=-1), "expected object >= 0, got -1"),
        (QUESTION, tube(8, 9), "more tubes need a first one"),
        (TEMPORAL, tube(8, 9), "more tubes need a first one"),
        (QA, tube(8, 9), "more tubes need a first one"),
    ],
)
def test_tubes_that_cannot_be(sample: GroundingSample, more: Tube, cause: str) -> None:
    with pytest.raises(SampleError, match=cause) as caught:
        dataclasses.replace(sample, more_tubes=(more,))
    assert caught.value.field == "more_tubes"


def test_files_keep_them(tmp_path: Path) -> None:
    """To the last bit, null boxes too."""
    samples = [PROBED, SEVERAL, TEMPORAL]
    jsonl.write_samples(tmp_path / "test.jsonl", [dataclasses.replace(s, video_path="/v.mp4") for s in samples])
    read = jsonl.read_samples(tmp_path / "test.jsonl")
    assert [sample.more_tubes for sample in read] == [(), SEVERAL.more_tubes, ()]
    parquet.write_samples(tmp_path / "test.parquet", samples)
    assert list(parquet.read_samples(tmp_path / "test.parquet")) == samples


def test_files_of_one_tube_are_as_they_were(tmp_path: Path) -> None:
    """A line without the key, and a table from before there was the column."""
    jsonl.write_samples(tmp_path / "test.jsonl", [dataclasses.replace(PROBED, video_path="/v.mp4")])
    assert "more_tubes" not in json.loads((tmp_path / "test.jsonl").read_text())
    pq.write_table(parquet.to_table([PROBED, TEMPORAL]).drop_columns(["more_tubes"]), tmp_path / "old.parquet")
    assert list(parquet.read_samples(tmp_path / "old.parquet")) == [PROBED, TEMPORAL]


@pytest.mark.parametrize(
    ("more", "cause"),
    [
        ({"span": [9, 8], "boxes_xyxy_px": []}, "field more_tubes: expected frames 0 <= start < end"),
        ({"span": [8, 9], "boxes_xyxy_px": [[1, 2, 3]]}, "more_tubes.0.boxes_xyxy_px.0"),
        ({"span": [8, 9], "boxes_xyxy_px": [None], "name": "dog"}, "more_tubes.0.name"),
        ({"boxes_xyxy_px": [None]}, "more_tubes.0.span"),
    ],
)
def test_a_bad_tube_of_a_file_is_named(tmp_path: Path, more: dict, cause: str) -> None:
    path = tmp_path / "test.jsonl"
    jsonl.write_samples(path, [dataclasses.replace(PROBED, video_path="/v.mp4")])
    path.write_text(json.dumps(json.loads(path.read_text()) | {"more_tubes": [more]}) + "\n")
    with pytest.raises(AnnotationError, match=cause.replace(".", r"\.")):
        jsonl.read_samples(path)


def test_training_and_metrics_refuse_them_and_a_question_may_have_them(tmp_path: Path) -> None:
    jsonl.write_samples(tmp_path / "test.jsonl", [dataclasses.replace(SEVERAL, video_path="/v.mp4")])
    config = DataConfig(source=JsonlSource(root=str(tmp_path)))
    with pytest.raises(AnnotationError, match=r"expected one tube, 1 samples have more_tubes, first \['several'\]"):
        load_samples(config, "test")
    assert load_samples(config, "test", labelled=False)[0].more_tubes == SEVERAL.more_tubes
    with pytest.raises(ScoreError, match=r"1 samples have more_tubes: \['several'\]"):
        score_tasks([SEVERAL], [Prediction("several")], protocol="canon")
