"""Charades-STA, ActivityNet Captions, QVHighlights, DiDeMo and TACoS: the published layouts, read as published."""

import json
from pathlib import Path
from typing import Any

import pytest
from published import published

from configs.sources import (
    ActivitynetCaptionsSource,
    CharadesStaSource,
    DidemoSource,
    QvhighlightsSource,
    TacosSource,
)
from data.annotations import AnnotationError, MissingFileError, Split
from data.sources import SOURCES
from data.sources.didemo import consensus, official_score
from data.sources.files import only_file
from data.sources.seconds import longest
from data.types import FrameSpan, GroundingSample

CHARADES = {
    "AO8RW": {
        "duration": 33.75,
        "timestamps": [[0.0, 6.9], [30.0, 40.2]],
        "sentences": ["a person is putting a book on a shelf.", "person closes the door."],
    }
}
ACTIVITYNET = {
    "v_QOlSCBRmfWY": {
        "duration": 82.73,
        "timestamps": [[0.83, 19.86], [17.37, 60.81], [56.26, 79.42]],
        "sentences": [
            "A young woman is seen standing in a room and leads into her dancing.",
            " The girl dances around the room while the camera captures her movements.",
            " She continues dancing around the room and ends by laying on the floor.",
        ],
    }
}
QVHIGHLIGHTS = {
    "qid": 8737,
    "query": "A family is playing basketball together on a green court outside.",
    "duration": 126,
    "vid": "bP5KfdFJzC4_660.0_810.0",
    "relevant_windows": [[0, 16]],
    "relevant_clip_ids": [0, 1, 2, 3, 4, 5, 6, 7],
    "saliency_scores": [[4, 1, 1], [4, 1, 1], [4, 2, 1], [4, 3, 2], [4, 3, 2], [4, 3, 3], [4, 3, 3], [4, 3, 2]],
}
DIDEMO = {
    "num_segments": 6,
    "description": "someone kicks the bug towards some rocks.",
    "dl_link": "https://www.flickr.com/video_download.gne?id=4253489686",
    "times": [[4, 4], [4, 4], [0, 0], [4, 4], [0, 0], [0, 0], [4, 4]],
    "video": "26292851@N04_4253489686_265c3c8051.m4v",
    "annotation_id": 1,
}
TACOS = {
    "s34-d28.avi": {
        "timestamps": [[201, 487], [501, 954]],
        "sentences": ["The person gets out a knife.", "The person gets out a wooden plate and a bowl."],
        "fps": 29.4,
        "num_frames": 11800,
    }
}


def load(config: Any, split: str) -> Split:
    return SOURCES[config.type](config, split)


def write_json(folder: Path, name: str, content: Any) -> None:
    (folder / name).write_text(json.dumps(content))


def intervals(split: Split) -> list[tuple[FrameSpan | None, tuple[tuple[float, float], ...]]]:
    return [(sample.span, sample.windows_sec) for sample in split.samples]


def assert_unprobed(sample: GroundingSample, source: str) -> None:
    """Nobody has looked at the video: a frame is a millisecond, there is no size and no box."""
    assert (sample.fps, sample.width, sample.height, sample.is_probed) == (1000, 0, 0, False)
    assert (sample.task, sample.source, sample.clip.start, sample.boxes_xyxy_px) == ("temporal", source, 0, None)


# Charades-STA


@pytest.mark.parametrize("name", ["charades_sta_test.json", "test.json"])
def test_charades_json_cuts_the_span_and_keeps_the_window(tmp_path: Path, name: str):
    write_json(tmp_path, name, CHARADES)
    split = load(CharadesStaSource(annotations=str(tmp_path), videos="charades"), "test")
    first, second = split.samples
    assert_unprobed(first, "charades_sta")
    assert first.sample_id == "charades_sta-test-AO8RW-0" and second.sample_id == "charades_sta-test-AO8RW-1"
    assert first.video_path == "charades/AO8RW.mp4" and first.clip == FrameSpan(0, 33750)
    assert first.query == "a person is putting a book on a shelf."
    assert intervals(split) == [(FrameSpan(0, 6900), ((0.0, 6.9),)), (FrameSpan(30000, 33750), ((30.0, 40.2),))]
    assert split.flags == {"end_past_duration": [second.sample_id]} and split.rejected == []


LINES = """AO8RW 0.0 6.9##a person is putting a book on a shelf.
46GP8 24.3 30.4##person turn a light on.

AO8RW 30.0 33.0##person ## closes the door.
"""


def test_charades_text_without_lengths_ends_clips_with_their_video(tmp_path: Path):
    (tmp_path / "charades_sta_train.txt").write_text(LINES)
    split = load(CharadesStaSource(annotations=str(tmp_path)), "train")
    assert [sample.sample_id for sample in split.samples] == [f"charades_sta-train-{line}" for line in (1, 2, 4)]
    assert [sample.clip for sample in split.samples] == [FrameSpan(0, 33000), FrameSpan(0, 30400), FrameSpan(0, 33000)]
    assert [sample.span for sample in split.samples] == [
        FrameSpan(0, 6900),
        FrameSpan(24300, 30400),
        FrameSpan(30000, 33000),
    ]
    assert split.samples[2].query == "person ## closes the door."
    assert split.flags == {"duration_unknown": [sample.sample_id for sample in split.samples]}


def test_charades_text_takes_lengths_from_the_table_beside_it(tmp_path: Path):
    (tmp_path / "charades_sta_train.txt").write_text(LINES)
    (tmp_path / "Charades_v1_train.csv").write_text('id,script,length\n46GP8,"cooks, and looks",24.83\n')
    split = load(CharadesStaSource(annotations=str(tmp_path)), "train")
    assert split.samples[1].clip == FrameSpan(0, 24830) and split.samples[1].span == FrameSpan(24300, 24830)
    assert split.samples[1].windows_sec == ((24.3, 30.4),)
    assert split.flags["end_past_duration"] == ["charades_sta-train-2"]
    assert split.flags["duration_unknown"] == ["charades_sta-train-1", "charades_sta-train-4"]


@pytest.mark.parametrize("length", ["abc", "", "-3", "nan", "1e9"])
def test_a_bad_length_names_the_table_of_lengths(tmp_path: Path, length: str):
    (tmp_path / "charades_sta_train.txt").write_text(LINES)
    (tmp_path / "Charades_v1_train.csv").write_text(f"id,length\nAO8RW,33.75\n46GP8,{length}\n")
    split = load(CharadesStaSource(annotations=str(tmp_path)), "train")
    (error,) = split.rejected
    assert (Path(error.path).name, error.record, error.field) == ("Charades_v1_train.csv", "46GP8", "length")
    assert [sample.clip.end for sample in split.samples] == [33750, 33750]


@pytest.mark.parametrize("table", ["id,seconds\nAO8RW,33.75\n", "", "id,length\nAO8RW," + "9" * 200_000])
def test_a_broken_table_of_lengths_is_one_error_that_names_it(tmp_path: Path, table: str):
    (tmp_path / "charades_sta_train.txt").write_text(LINES)
    (tmp_path / "Charades_v1_train.csv").write_text(table)
    with pytest.raises(AnnotationError, match=r"Charades_v1_train\.csv"):
        load(CharadesStaSource(annotations=str(tmp_path)), "train")


def test_two_files_for_one_split_are_a_question_and_none_is_missing(tmp_path: Path):
    with pytest.raises(MissingFileError, match=r"charades_sta_test\.txt, charades_sta_test\.json, test\.json"):
        load(CharadesStaSource(annotations=str(tmp_path)), "test")
    for name in ("charades_sta_test.txt", "test.json"):
        write_json(tmp_path, name, {})
    with pytest.raises(AnnotationError, match=r"found charades_sta_test\.txt, test\.json"):
        only_file(tmp_path, ("charades_sta_test.txt", "charades_sta_test.json", "test.json"))


# ActivityNet Captions


def test_activitynet_sentences_lose_their_leading_space(tmp_path: Path):
    write_json(tmp_path, "val_2.json", ACTIVITYNET)
    split = load(ActivitynetCaptionsSource(annotations=str(tmp_path), videos="anet"), "val_2")
    assert [sample.query[:15] for sample in split.samples] == ["A young woman i", "The girl dances", "She continues d"]
    last = split.samples[2]
    assert_unprobed(last, "activitynet_captions")
    assert last.sample_id == "activitynet_captions-val_2-v_QOlSCBRmfWY-2"
    assert last.video_path == "anet/v_QOlSCBRmfWY.mp4"
    assert (last.clip, last.span) == (FrameSpan(0, 82730), FrameSpan(56260, 79420))
    assert last.windows_sec == ((56.26, 79.42),) and last.span_sec == (56.26, 79.42)


# QVHighlights


def test_qvhighlights_keeps_every_window_and_trains_on_the_longest(tmp_path: Path):
    several = {**QVHIGHLIGHTS, "qid": 2, "relevant_windows": [[0, 16], [20, 44], [100, 124]]}
    lines = "".join(f"{json.dumps(record)}\n" for record in (QVHIGHLIGHTS, several))
    (tmp_path / "highlight_val_release.jsonl").write_text(lines)
    split = load(QvhighlightsSource(annotations=str(tmp_path), videos="qv"), "val")
    one, three = split.samples
    assert_unprobed(one, "qvhighlights")
    assert one.sample_id == "qvhighlights-val-8737" and one.video_path == "qv/bP5KfdFJzC4_660.0_810.0.mp4"
    assert (one.clip, one.span, one.windows_sec) == (FrameSpan(0, 126000), FrameSpan(0, 16000), ((0.0, 16.0),))
    assert three.windows_sec == ((0.0, 16.0), (20.0, 44.0), (100.0, 124.0))
    assert three.span == FrameSpan(20000, 44000), "of the two that are 24 s, the first"


def test_the_same_question_twice_is_kept_and_flagged(tmp_path: Path):
    lines = "".join(f"{json.dumps({**QVHIGHLIGHTS, 'qid': qid})}\n" for qid in (1, 2))
    (tmp_path / "highlight_val_release.jsonl").write_text(lines)
    split = load(QvhighlightsSource(annotations=str(tmp_path)), "val")
    assert len(split.samples) == 2 and split.flags == {"duplicate": ["qvhighlights-val-2"]}


def test_qvhighlights_test_split_has_no_answers(tmp_path: Path):
    hidden = {key: QVHIGHLIGHTS[key] for key in ("qid", "query", "duration", "vid")}
    (tmp_path / "highlight_test_release.jsonl").write_text(json.dumps(hidden))
    (tmp_path / "highlight_test_with_gt.jsonl").write_text(json.dumps(QVHIGHLIGHTS))
    config = QvhighlightsSource(annotations=str(tmp_path))
    assert intervals(load(config, "test")) == [(None, ())]
    assert intervals(load(config, "test_with_gt")) == [(FrameSpan(0, 16000), ((0.0, 16.0),))]


@pytest.mark.parametrize(("windows", "index"), [([], 0), ([(0, 1)], 0), ([(0, 1), (5, 7)], 1), ([(3, 5), (0, 2)], 0)])
def test_longest_window(windows: list[tuple[float, float]], index: int):
    assert longest(windows) == index


# DiDeMo


def test_didemo_chunks_are_inclusive_and_all_annotators_are_kept(tmp_path: Path):
    write_json(tmp_path, "val_data.json", [DIDEMO, {**DIDEMO, "annotation_id": 2, "times": [[1, 4]] * 4}])
    split = load(DidemoSource(annotations=str(tmp_path), videos="didemo"), "val")
    first, second = split.samples
    assert_unprobed(first, "didemo")
    assert first.sample_id == "didemo-val-1" and first.video_path == f"didemo/{DIDEMO['video']}"
    # Chunk 4 is 20 s to 25 s; four of seven annotators say so.
    assert (first.clip, first.span) == (FrameSpan(0, 30000), FrameSpan(20000, 25000))
    assert first.windows_sec == tuple((5.0 * chunk, 5.0 * chunk + 5) for chunk in (4, 4, 0, 4, 0, 0, 4))
    # [1, 4] is 5 s to 25 s, as the authors' README says.
    assert second.span == FrameSpan(5000, 25000)
    assert split.flags == {} and split.rejected == []


@pytest.mark.parametrize(
    ("times", "chosen", "why"),
    [
        ([[0, 0], [2, 3], [2, 3], [5, 5]], [2, 3], "two agree"),
        ([[0, 0]] * 3 + [[4, 4]] * 4, [4, 4], "four against three, both with a score of 1"),
        ([[4, 4], [0, 0], [4, 4], [0, 0]], [0, 0], "two and two: the earliest"),
        # IoUs of [1, 2]: itself 1, [1, 3] 2/3, [0, 2] 2/3 -> 7/9; of [1, 3]: 1, 2/3, 2/4 -> 13/18.
        ([[1, 3], [0, 2], [1, 2], [5, 5]], [1, 2], "all differ: the one in the middle"),
        ([[3, 4]], [3, 4], "one annotator"),
    ],
)
def test_didemo_trains_on_what_most_annotators_say(times: list[list[int]], chosen: list[int], why: str):
    assert times[consensus(times)] == chosen, why


def test_didemo_official_score_is_the_mean_of_the_best_three():
    # IoU of [1, 2] with [1, 3] is 2 chunks of 3; with [0, 2] 2 of 3; with [5, 5] 0 of 5.
    assert official_score([1, 2], [[1, 3], [0, 2], [1, 2], [5, 5]]) == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)


# TACoS


def test_tacos_timestamps_are_frames(tmp_path: Path):
    write_json(tmp_path, "val.json", TACOS)
    split = load(TacosSource(annotations=str(tmp_path), videos="tacos"), "val")
    first = split.samples[0]
    assert_unprobed(first, "tacos")
    assert first.sample_id == "tacos-val-s34-d28.avi-0" and first.video_path == "tacos/s34-d28.avi"
    # 201 / 29.4 = 6.8367 s, 487 / 29.4 = 16.5646 s, 11800 / 29.4 = 401.3605 s.
    assert (first.clip, first.span) == (FrameSpan(0, 401361), FrameSpan(6837, 16565))
    assert first.windows_sec[0] == pytest.approx((6.836735, 16.564626))


# All of them


def test_a_video_is_found_in_a_sub_folder_and_another_container(tmp_path: Path):
    write_json(tmp_path, "val_2.json", ACTIVITYNET)
    video = tmp_path / "videos" / "part1" / "v_QOlSCBRmfWY.mkv"
    video.parent.mkdir(parents=True)
    video.touch()
    config = ActivitynetCaptionsSource(annotations=str(tmp_path), videos=str(tmp_path / "videos"))
    assert {sample.video_path for sample in load(config, "val_2").samples} == {str(video)}


PUBLISHED_COUNTS = [
    (CharadesStaSource, "charades/charades_sta_test.json", "test", 3720, {"end_past_duration": 562}),
    (ActivitynetCaptionsSource, "activitynet/val_2.json", "val_2", 17031, {"end_past_duration": 111}),
    (QvhighlightsSource, "qvhighlights/highlight_val_release.jsonl", "val", 1550, {}),
]


@pytest.mark.parametrize(("config", "name", "split", "num_samples", "flags"), PUBLISHED_COUNTS)
def test_published_files_are_read_whole(config: type, name: str, split: str, num_samples: int, flags: dict[str, int]):
    read = load(config(annotations=str(published(name).parent)), split)
    assert len(read.samples) == num_samples and read.rejected == []
    assert {flag: len(ids) for flag, ids in read.flags.items()} == flags
    assert all(sample.span is not None and sample.windows_sec for sample in read.samples)
