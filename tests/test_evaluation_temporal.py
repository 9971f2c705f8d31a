"""Temporal grounding, QVHighlights' mAP, referring expressions and multiple choice, on hand-derived cases."""

from dataclasses import replace

import numpy as np
import pytest

from data.sources.didemo import official_score
from data.types import FrameSpan, GroundingSample
from evaluation.comparison import summarize_task
from evaluation.highlights import MAP_AT, average_precisions, map_columns
from evaluation.predictions import Prediction
from evaluation.rec_qa import qa_columns, rec_columns
from evaluation.task_scores import ScoreError, score_tasks
from evaluation.temporal import answered_window, best_iou, temporal_columns

SAMPLE = GroundingSample(
    sample_id="a",
    task="temporal",
    query="a person puts a book on a shelf",
    video_path="a.mp4",
    fps=10.0,
    width=64,
    height=48,
    clip=FrameSpan(100, 400),
    span=FrameSpan(120, 180),
    windows_sec=((2.0, 8.0),),
)


@pytest.mark.parametrize(
    ("answer", "truth", "expected"),
    [
        ((2.0, 8.0), [(2.0, 8.0)], 1.0),
        ((0.0, 5.0), [(2.0, 8.0)], 3 / 8),
        ((8.0, 9.0), [(2.0, 8.0)], 0.0),
        ((9.0, 3.0), [(2.0, 8.0)], 0.0),  # reversed
        (None, [(2.0, 8.0)], 0.0),
        ((0.0, 4.0), [(6.0, 9.0), (0.0, 8.0), (3.0, 4.0)], 0.5),  # the best of three
        ((0.0, 30.0), [(20.0, 40.0)], 0.25),  # a true end past the video is not cut: 10 of 40
    ],
)
def test_best_iou_by_hand(
    answer: tuple[float, float] | None, truth: list[tuple[float, float]], expected: float
) -> None:
    """Alone, and beside a sample with more windows."""
    assert best_iou([answer], [truth]) == pytest.approx([expected])
    assert best_iou([answer, (1.0, 2.0)], [truth, [(1.0, 2.0)] * 4]) == pytest.approx([expected, 1.0])


def test_recall_counts_equality() -> None:
    """IoU exactly 0.5: 3 s of 6 s. And 0.3 of 10 s, which is 0.3 in float64."""
    columns = temporal_columns([SAMPLE], [Prediction("a", span_sec=(2.0, 5.0))])
    assert {name: values[0] for name, values in columns.items()} == {
        "mIoU": 0.5, "R1@0.3": 1.0, "R1@0.5": 1.0, "R1@0.7": 0.0, "parse_rate": 1.0,
    }  # fmt: skip
    ten = replace(SAMPLE, windows_sec=((0.0, 10.0),))
    assert temporal_columns([ten], [Prediction("a", span_sec=(0.0, 3.0))])["R1@0.3"][0] == 1.0


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [
        (Prediction("a", span_sec=(2.0, 8.04), span=(120, 180)), (2.0, 8.04)),  # as written, not rounded to frames
        (Prediction("a", windows_sec=((1.0, 2.0, 0.1), (3.0, 4.0, 0.9))), (1.0, 2.0)),  # the first of several
        (Prediction("a", span=(120, 180)), (2.0, 8.0)),  # frames of a clip that starts at 100
        (Prediction("a", text="<time> 2.0 - 8.0 </time>"), (2.0, 8.0)),
        (Prediction("a", text="from 2 to 8"), None),
        (Prediction("a", span_sec=(2.0, 8.0), failure="video: gone"), None),
    ],
)
def test_the_answered_window(prediction: Prediction, expected: tuple[float, float] | None) -> None:
    assert answered_window(SAMPLE, prediction) == expected


def test_frames_of_a_video_that_nobody_has_looked_at() -> None:
    """[0, 150] would be read as 0.15 s; with its seconds beside it, it is not read at all."""
    unprobed = replace(SAMPLE, fps=1000.0, width=0, height=0, clip=FrameSpan(0, 30_000), span=FrameSpan(2000, 8000))
    with pytest.raises(ScoreError, match=r"prediction 'a': span \[0, 150\] is in frames .* expected span_sec"):
        answered_window(unprobed, Prediction("a", span=(0, 150)))
    assert answered_window(unprobed, Prediction("a", span=(0, 150), span_sec=(0.0, 5.0))) == (0.0, 5.0)


def test_without_windows_the_truth_is_the_span() -> None:
    sample = replace(SAMPLE, windows_sec=())
    assert temporal_columns([sample], [Prediction("a", span_sec=(2.0, 8.0))])["mIoU"][0] == 1.0


def ap(answers: list[tuple[float, float, float]], truth: list[tuple[float, float]]) -> list[float]:
    """At 0.5, 0.75 and 0.95."""
    values = average_precisions(answers, truth)
    return [values[MAP_AT.index(threshold)] for threshold in (0.5, 0.75, 0.95)]


@pytest.mark.parametrize(
    ("answers", "truth", "expected"),
    [
        ([(0, 10, 0.9)], [(0, 10)], [1, 1, 1]),
        ([], [(0, 10)], [0, 0, 0]),
        ([(0, 8, 0.9)], [(0, 10)], [1, 1, 0]),  # IoU 0.8
        ([(0, 5, 0.9)], [(0, 10)], [1, 0, 0]),  # IoU exactly 0.5 is a hit
        ([(0, 10, 0.9)], [(0, 10), (20, 30)], [0.5, 0.5, 0.5]),  # half of the truth found, all of it right
        ([(50, 60, 0.9), (0, 10, 0.8)], [(0, 10)], [0.5, 0.5, 0.5]),  # wrong one first: precision 1/2 at recall 1
        ([(0, 10, 0.8), (50, 60, 0.9)], [(0, 10)], [0.5, 0.5, 0.5]),  # ranked by score, not by place
        ([(0, 10, 0.9), (50, 60, 0.8)], [(0, 10)], [1, 1, 1]),  # what comes after full recall costs nothing
        ([(0, 10, 0.9), (0, 10, 0.8)], [(0, 10), (20, 30)], [0.5, 0.5, 0.5]),  # a true window is found once
        # Hit, miss, hit: precision 1 at recall 1/2, then 2/3.
        ([(0, 10, 0.9), (50, 60, 0.8), (20, 30, 0.7)], [(0, 10), (20, 30)], [(1 + 2 / 3) / 2] * 3),
        # Miss, hit, hit: precision 1/2 then 2/3, of which the higher counts for both.
        ([(50, 60, 0.9), (0, 10, 0.8), (20, 30, 0.7)], [(0, 10), (20, 30)], [2 / 3] * 3),
        # The first takes the better of two; the second finds the other one at 0.5 (IoU 6/10) alone.
        ([(0, 10, 0.9), (0, 10, 0.8)], [(0, 6), (0, 10)], [1, 0.5, 0.5]),
    ],
)  # fmt: skip
def test_average_precision_by_hand(answers: list, truth: list, expected: list[float]) -> None:
    assert ap(answers, truth) == pytest.approx(expected)


def test_map_averages_thresholds_and_knows_ranges() -> None:
    """IoU 0.8 reaches 7 of the 10 thresholds, .5 .55 ... .8. The 10 s window is short, the 31 s window long."""
    sample = replace(SAMPLE, windows_sec=((0.0, 10.0), (50.0, 81.0)))
    ranked = Prediction("a", windows_sec=((0.0, 8.0, 0.9), (50.0, 81.0, 0.8)))
    row = {name: values[0] for name, values in map_columns([sample], [ranked]).items()}
    # Above 0.8 the first is a miss and the second has precision 1/2 at recall 1/2.
    assert row["mAP"] == pytest.approx(0.7 * 1 + 0.3 * 0.25)
    assert (row["mAP@0.5"], row["mAP@0.75"]) == (1, 1)
    assert row["mAP short"] == pytest.approx(0.7)
    assert row["mAP long"] == pytest.approx(0.5)  # the first, right elsewhere, is a miss among long ones
    assert np.isnan(row["mAP middle"])


def test_only_ten_windows_count() -> None:
    wrong = tuple((100.0 + i, 101.0 + i, 0.1) for i in range(10))
    right = Prediction("a", windows_sec=(*wrong, (2.0, 8.0, 0.9)))
    assert map_columns([SAMPLE], [right])["mAP"][0] == 0
    assert map_columns([SAMPLE], [replace(right, windows_sec=right.windows_sec[1:])])["mAP"][0] == 1


def test_a_single_answer_is_a_ranking_of_one() -> None:
    assert map_columns([SAMPLE], [Prediction("a", span_sec=(2.0, 8.0))])["mAP"][0] == 1
    assert map_columns([SAMPLE], [Prediction("a", failure="grammar")])["mAP"][0] == 0


def test_didemo_is_scored_by_its_three_best_annotators() -> None:
    """Answered 5 to 10 s, chunk 1. IoUs with four people: 1, 1, 1/2 (chunks 1 to 2) and 0, of which the last is left out:
    what the authors' script gives for the same chunks. With two people, both count."""
    windows = ((5.0, 10.0), (5.0, 15.0), (20.0, 25.0), (5.0, 10.0))
    four = replace(SAMPLE, source="didemo", windows_sec=windows)
    two = replace(SAMPLE, sample_id="b", source="didemo", windows_sec=windows[1:3])
    charades = replace(SAMPLE, sample_id="c", source="charades_sta", windows_sec=windows)
    answers = [Prediction(name, span_sec=(5.0, 10.0)) for name in "abc"]
    scores = score_tasks([four, two, charades], answers, protocol="canon")["temporal"].columns
    assert scores["mIoU"] == pytest.approx([2.5 / 3, 0.25, 1.0])
    assert scores["mIoU"][0] == official_score([1, 1], [[1, 1], [1, 2], [4, 4], [1, 1]])
    assert scores["R1@0.7"].tolist() == [1, 0, 1]
    assert np.isnan(scores["mAP"]).tolist() == [True, True, False]
    alone = score_tasks([four, two], answers[:2], protocol="canon")["temporal"].columns
    assert list(alone) == ["mIoU", "R1@0.3", "R1@0.5", "R1@0.7", "parse_rate"]


def test_ranges_are_summarised_over_the_queries_that_have_one() -> None:
    samples = [
        replace(SAMPLE, source="qvhighlights"),
        replace(SAMPLE, sample_id="b", source="qvhighlights", windows_sec=((0.0, 20.0), (40.0, 60.0))),
    ]
    answers = [Prediction("a", span_sec=(2.0, 8.0)), Prediction("b", span_sec=(0.0, 20.0))]
    scores = score_tasks(samples, answers, protocol="canon")["temporal"]
    summary = summarize_task(scores, num_resamples=100, seed=0)["all"]
    assert (summary["n"], summary["mAP"]) == (2, pytest.approx(0.75))
    assert (summary["mAP short_n"], summary["mAP short"]) == (1, 1.0)
    assert (summary["mAP middle_n"], summary["mAP middle"]) == (1, 0.5)
    assert summary["mAP long_n"] == 0 and "mAP long" not in summary


REC = replace(
    SAMPLE, sample_id="r", task="rec", width=100, height=100, clip=FrameSpan(7, 8), span=FrameSpan(7, 8),
    boxes_xyxy_px=((0.0, 0.0, 10.0, 10.0),), windows_sec=(),
)  # fmt: skip


@pytest.mark.parametrize(
    ("boxes", "strict", "loose", "iou"),
    [
        ({7: (0.0, 0.0, 10.0, 10.0)}, 1, 1, 1.0),
        ({7: (0.0, 0.0, 10.0, 5.0)}, 0, 1, 0.5),
        ({7: (0.0, 0.0, 10.0, 5.1)}, 1, 1, 0.51),
        ({7: (5.0, 0.0, 15.0, 10.0)}, 0, 0, 1 / 3),
        ({}, 0, 0, 0.0),
        ({8: (0.0, 0.0, 10.0, 10.0)}, 0, 0, 0.0),  # of another frame
    ],
)
def test_rec_by_hand(boxes: dict, strict: int, loose: int, iou: float) -> None:
    columns = rec_columns([REC], [Prediction("r", boxes=boxes)])
    assert [columns[name][0] for name in ("Acc@0.5", "Acc@0.5 (>=)", "mIoU")] == pytest.approx([strict, loose, iou])
    assert columns["parse_rate"][0] == (7 in boxes)


def test_rec_without_a_true_box_is_an_error() -> None:
    with pytest.raises(ScoreError, match="'r'"):
        score_tasks([replace(REC, boxes_xyxy_px=(None,))], [Prediction("r")], protocol="canon")


@pytest.mark.parametrize(
    ("prediction", "accuracy", "parsed"),
    [
        (Prediction("q", choice="B"), 1, 1),
        (Prediction("q", text="<answer> B </answer>"), 1, 1),
        (Prediction("q", choice="A"), 0, 1),
        (Prediction("q", text="A or B"), 0, 0),
        (Prediction("q", choice="B", failure="prompt: too long"), 0, 0),
    ],
)
def test_qa_by_hand(prediction: Prediction, accuracy: int, parsed: int) -> None:
    sample = replace(SAMPLE, sample_id="q", task="qa", options=("red", "blue"), choice="B", windows_sec=())
    columns = qa_columns([sample], [prediction])
    assert (columns["accuracy"][0], columns["parse_rate"][0]) == (accuracy, parsed)
