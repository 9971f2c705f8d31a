"""NExT-GQA: its table with its moments, and the one list that VideoChat-R1 made of both."""

import json
from pathlib import Path
from typing import Any

import pytest

from configs.sources import NextgqaSource
from data.annotations import AnnotationError, FieldError, Split
from data.sources.nextgqa import letter_in, letter_of, load, strip_letters
from data.types import FrameSpan

HEADER = "video_id,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4\n"
QUESTION = "how does the man cycling try to sell the watch to the man in the trishaw"
ROW = (
    f"2435100235,1906,640,480,{QUESTION},show him the watch,7,CH,"
    "give him catalogue,show him a video,show him the watch,dismount his bicycle,give him the watch strap\n"
)
OPTIONS = (
    "give him catalogue",
    "show him a video",
    "show him the watch",
    "dismount his bicycle",
    "give him the watch strap",
)
WINDOWS = [[20.9, 22.7], [23.8, 26.0], [34.4, 35.8], [50.5, 57.5], [58.5, 64.3]]
MOMENTS = {"2435100235": {"duration": 64, "location": {"0": [[13.0, 17.6]], "7": WINDOWS}, "fps": 29.97002997002997}}
RECORD = {
    "id": 7,
    "video": "1164/2435100235.mp4",
    "question": QUESTION,
    "options": [f"({letter}) {text}" for letter, text in zip("ABCDE", OPTIONS, strict=True)],
    "duration": 64,
    "glue": WINDOWS,
    "type": "CH",
    "answer": "(C)",
}


def read_table(folder: Path, rows: str = ROW, moments: Any = MOMENTS) -> Split:
    (folder / "val.csv").write_text(HEADER + rows)
    (folder / "gsub_val.json").write_text(json.dumps(moments))
    return load(NextgqaSource(annotations=str(folder), videos="nextqa"), "val")


def read_list(folder: Path, *records: Any) -> Split:
    (folder / "nextgqa_val.json").write_text(json.dumps(records))
    return load(NextgqaSource(annotations=str(folder), videos="nextqa"), "val")


def test_both_layouts_give_the_same_sample(tmp_path: Path):
    for name in ("table", "list"):
        (tmp_path / name).mkdir()
    (from_table,), (from_list,) = (
        read_table(tmp_path / "table").samples,
        read_list(tmp_path / "list", RECORD).samples,
    )
    assert from_table.video_path == "nextqa/2435100235.mp4" and from_list.video_path == "nextqa/1164/2435100235.mp4"
    for sample in (from_table, from_list):
        assert (sample.sample_id, sample.task, sample.source) == ("nextgqa-val-2435100235-7", "qa", "nextgqa")
        assert (sample.query, sample.query_type) == (QUESTION, "interrogative")
        assert (sample.options, sample.choice) == (OPTIONS, "C")
        assert sample.windows_sec == tuple((start, end) for start, end in WINDOWS)
        assert (sample.clip, sample.span, sample.is_probed) == (FrameSpan(0, 64000), None, False)


def test_a_moment_past_the_rounded_duration_is_kept_and_flagged(tmp_path: Path):
    split = read_table(tmp_path)
    assert split.flags == {"end_past_duration": ["nextgqa-val-2435100235-7"]}, "64.3 s of 64 s"
    assert split.rejected == []


def test_the_table_names_a_video_that_lies_in_a_sub_folder(tmp_path: Path):
    video = tmp_path / "videos" / "1164" / "2435100235.mp4"
    video.parent.mkdir(parents=True)
    video.touch()
    read_table(tmp_path)
    (sample,) = load(NextgqaSource(annotations=str(tmp_path), videos=str(tmp_path / "videos")), "val").samples
    assert sample.video_path == str(video)


def test_strip_letters():
    assert strip_letters(["(A) red", "(B)  a (C) blue one "]) == ("red", "a (C) blue one")


@pytest.mark.parametrize("options", [["red", "(B) blue"], ["(A) red", "(C) blue"], ["(A) ", "(B) blue"], ["A. red"]])
def test_options_without_their_letters_are_refused(options: list[str]):
    with pytest.raises(FieldError, match="options"):
        strip_letters(options)


@pytest.mark.parametrize(("answer", "letter"), [("(C)", "C"), ("C", "C"), (" (A) ", "A")])
def test_letter_in(answer: str, letter: str):
    assert letter_in(answer, 5) == letter


@pytest.mark.parametrize("answer", ["(F)", "c", "", "(AB)", "show him the watch"])
def test_an_answer_that_is_no_option_is_refused(answer: str):
    with pytest.raises(FieldError, match="answer"):
        letter_in(answer, 5)


def test_an_answer_text_must_be_one_option():
    assert letter_of("red", ("blue", "red")) == "B"
    for options in (("blue", "green"), ("red", "red")):
        with pytest.raises(FieldError, match="once"):
            letter_of("red", options)


@pytest.mark.parametrize(
    ("moments", "field"),
    [
        ({}, "2435100235"),
        ({"2435100235": {"duration": 64, "location": {"0": WINDOWS}}}, "7"),
        ({"2435100235": {"duration": 64, "location": {"7": [[3, "4"]]}}}, "location.0.1"),
        ({"2435100235": {"duration": 64, "location": {"7": [[4, 3]]}}}, "location"),
        ({"2435100235": {"duration": -1, "location": {"7": WINDOWS}}}, "duration"),
    ],
)
def test_what_is_wrong_in_the_moments_names_their_file(tmp_path: Path, moments: Any, field: str):
    other = ROW.replace("2435100235", "1").replace(",7,CH", ",0,CH")
    moments["1"] = {"duration": 20, "location": {"0": [[1.0, 2.0]]}}
    split = read_table(tmp_path, rows=ROW + other, moments=moments)
    (error,) = split.rejected
    assert Path(error.path).name == "gsub_val.json" and error.record == "2435100235, question 7"
    assert error.field == field
    assert [sample.sample_id for sample in split.samples] == ["nextgqa-val-1-0"]


def test_a_table_without_a_column_is_refused(tmp_path: Path):
    (tmp_path / "val.csv").write_text(HEADER.replace(",a4", "") + ROW)
    (tmp_path / "gsub_val.json").write_text(json.dumps(MOMENTS))
    with pytest.raises(AnnotationError, match="a4: no such column"):
        load(NextgqaSource(annotations=str(tmp_path)), "val")


def test_one_id_twice_costs_the_second(tmp_path: Path):
    split = read_list(tmp_path, RECORD, RECORD)
    assert len(split.samples) == 1 and split.rejected[0].field == "sample_id"
