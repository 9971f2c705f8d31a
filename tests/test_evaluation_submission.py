"""Result files of HC-STVG and QVHighlights: their conventions, and the official formula on what was written."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data.sources.jsonl import write_samples
from data.types import TICKS_PER_SEC, BoxPx, FrameSpan, GroundingSample
from evaluation.predictions import Prediction, write_predictions
from evaluation.submission import main
from evaluation.task_scores import score_tasks

BOX = (20.0, 10.0, 40.0, 30.0)
FAR_BOX = (30.0, 10.0, 50.0, 30.0)
SAMPLE = GroundingSample(
    sample_id="1_a.mp4",
    task="stvg",
    query="the woman turns",
    video_path="/videos/1/1_a.mp4",
    fps=10.0,
    width=100,
    height=50,
    clip=FrameSpan(0, 200),
    span=FrameSpan(110, 130),
    boxes_xyxy_px=(BOX,) * 20,
    source="hcstvg_v1",
)


def written(folder: Path, samples: list[GroundingSample], predictions: list[Prediction]) -> str:
    write_samples(folder / "a.jsonl", samples)
    write_predictions(folder / "p.jsonl", predictions)
    main(
        ["--annotations", str(folder / "a.jsonl"), "--predictions", str(folder / "p.jsonl"), "--out", str(folder / "o")]
    )
    return (folder / "o").read_text()


def test_hcstvg_counts_frames_from_one_with_inclusive_ends(tmp_path: Path) -> None:
    """Frames 110, 111, 112, 113 of ours; known at 111 and at 113, which has moved by 10 px."""
    prediction = Prediction("1_a.mp4", span=(110, 114), boxes={111: BOX, 113: FAR_BOX})
    assert json.loads(written(tmp_path, [SAMPLE], [prediction])) == {
        "1_a.mp4": {
            "st_frame": 111,
            "ed_frame": 114,
            "bbox": {
                "111": [20, 10, 40, 30], "112": [20, 10, 40, 30], "113": [25, 10, 45, 30], "114": [30, 10, 50, 30],
            },
        }
    }  # fmt: skip


def test_failures_and_unanswered_videos_are_left_out(tmp_path: Path) -> None:
    samples = [SAMPLE, replace(SAMPLE, sample_id="b"), replace(SAMPLE, sample_id="c"), replace(SAMPLE, sample_id="d")]
    predictions = [Prediction("1_a.mp4", failure="grammar"), Prediction("b"),
                   Prediction("d", text="<time> 1.0 - 1.2 </time>", boxes={10: BOX})]  # fmt: skip
    results = json.loads(written(tmp_path, samples, predictions))
    assert list(results) == ["d"]
    assert (results["d"]["st_frame"], results["d"]["ed_frame"], list(results["d"]["bbox"])) == (11, 12, ["11", "12"])


def test_unanswered_questions_can_be_submitted(tmp_path: Path) -> None:
    """HC-STVG v2's test split has no public answers."""
    question = replace(SAMPLE, span=None, boxes_xyxy_px=None)
    prediction = Prediction("1_a.mp4", span=(3, 4), boxes={3: BOX})
    assert json.loads(written(tmp_path, [question], [prediction]))["1_a.mp4"]["bbox"] == {"4": [20, 10, 40, 30]}


PREDICTIONS = [
    Prediction("a", span=(105, 125), boxes={105: FAR_BOX, 109: BOX, 124: (20.0, 10.0, 60.0, 30.0)}),
    Prediction("b", span=(110, 130), boxes={119: BOX}),
    Prediction("c", span=(0, 50), boxes={3: BOX}),
    Prediction("d", failure="grammar"),
    Prediction("e", span=(118, 120), boxes={117: BOX, 118: FAR_BOX}),
]


def test_the_official_formula_on_the_file_is_our_protocol(tmp_path: Path) -> None:
    samples = [replace(SAMPLE, sample_id=prediction.sample_id) for prediction in PREDICTIONS]
    holed = (None, *(BOX,) * 18, None)
    samples[0] = replace(samples[0], boxes_xyxy_px=holed)
    results = json.loads(written(tmp_path, samples, PREDICTIONS))
    official = [official_score(sample, results) for sample in samples]
    scores = score_tasks(samples, PREDICTIONS, protocol="hcstvg")["stvg"].columns
    assert scores["m_tIoU"] == pytest.approx([tiou for tiou, _ in official])
    assert scores["m_vIoU"] == pytest.approx([viou for _, viou in official])
    assert [tiou > 0 for tiou, _ in official] == [True, True, False, False, True]


def official_score(sample: GroundingSample, results: dict[str, Any]) -> tuple[float, float]:
    """tIoU and vIoU as eval_hcvg.py defines them: keys that both have, over the frames of the hull."""
    if sample.sample_id not in results:
        return 0.0, 0.0
    assert sample.span is not None and sample.boxes_xyxy_px is not None
    pred = results[sample.sample_id]
    start, end = sample.span.start + 1, sample.span.end
    true = {str(start + i): box for i, box in enumerate(sample.boxes_xyxy_px) if box is not None}
    both = true.keys() & pred["bbox"].keys()
    frames = max(end, pred["ed_frame"]) - min(start, pred["st_frame"]) + 1
    return len(both) / frames, sum(iou(true[key], pred["bbox"][key]) for key in both) / frames


def iou(a: BoxPx, b: BoxPx) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0, width) * max(0, height)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


TEMPORAL = replace(
    SAMPLE, sample_id="qvhighlights-val-2579", task="temporal", boxes_xyxy_px=None, video_path="/v/x_210.0_360.0.mp4"
)


def test_qvhighlights_rows(tmp_path: Path) -> None:
    """Ranked by score; a single answer has score 1; every query is there."""
    ids = [f"qvhighlights-val-{qid}" for qid in (2579, 7, 8, 9)]
    predictions = [
        Prediction(ids[0], windows_sec=((1.0, 2.0, 0.2), (3.0, 4.5, 0.7))),
        Prediction(ids[2], span_sec=(5.0, 6.0)),
        Prediction(ids[3], failure="grammar"),
    ]
    rows = [json.loads(line) for line in written(tmp_path, [replace(TEMPORAL, sample_id=i) for i in ids], predictions).splitlines()]  # fmt: skip
    assert rows[0] == {
        "qid": 2579,
        "query": "the woman turns",
        "vid": "x_210.0_360.0",
        "pred_relevant_windows": [[3.0, 4.5, 0.7], [1.0, 2.0, 0.2]],
    }
    windows = [row["pred_relevant_windows"] for row in rows[1:]]
    assert windows == [[[0.0, 0.0, 0.0]], [[5.0, 6.0, 1.0]], [[0.0, 0.0, 0.0]]]


# As HC-STVG v2's test split is read: 20 s in milliseconds.
UNPROBED = replace(
    SAMPLE,
    fps=float(TICKS_PER_SEC),
    width=0,
    height=0,
    clip=FrameSpan(0, 20 * TICKS_PER_SEC),
    span=None,
    boxes_xyxy_px=None,
)


def test_frames_of_the_video_need_no_frame_rate(tmp_path: Path) -> None:
    """What evaluation.predict wrote after it had looked at the file."""
    prediction = Prediction("1_a.mp4", text="<time> 1.5 - 1.6 </time>", span=(45, 47), boxes={45: BOX})
    result = json.loads(written(tmp_path, [UNPROBED], [prediction]))["1_a.mp4"]
    assert (result["st_frame"], result["ed_frame"]) == (46, 47)


@pytest.mark.parametrize(
    ("samples", "predictions", "message"),
    [
        ([SAMPLE, TEMPORAL], [], "expected samples of stvg alone or of temporal alone, got ['stvg', 'temporal']"),
        ([replace(TEMPORAL, sample_id="t")], [], "sample 't': expected an id that ends with QVHighlights' qid"),
        ([SAMPLE], [Prediction("x", span=(1, 2))], "prediction 'x' is for a sample that the annotations do not have"),
        (
            [SAMPLE],
            [Prediction("1_a.mp4", span=(1, 5), boxes={7: BOX})],
            "prediction '1_a.mp4': expected a box at one frame of its span [1, 5] at least, got boxes at [7]",
        ),
        (
            [SAMPLE],
            [Prediction("1_a.mp4", span=(1, 8_000_000), boxes={7: BOX})],
            "prediction '1_a.mp4': expected a span inside of the clip [0, 200], got [1, 8000000]",
        ),
        (
            [UNPROBED],
            [Prediction("1_a.mp4", text="<time> 1.5 - 3.0 </time>", boxes={45: BOX})],
            "prediction '1_a.mp4': '<time> 1.5 - 3.0 </time>' is in seconds and the annotation has no frame rate; expected",
        ),
        (
            [replace(UNPROBED, task="temporal", sample_id="qvhighlights-val-1")],
            [Prediction("qvhighlights-val-1", span=(0, 150))],
            "prediction 'qvhighlights-val-1': span [0, 150] is in frames and the annotation has no frame rate; expected",
        ),
    ],
)
def test_what_cannot_be_submitted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, samples: Any, predictions: Any, message: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        written(tmp_path, samples, predictions)
    assert ended.value.code == 2
    assert message in caplog.records[-1].getMessage()
    assert not (tmp_path / "o").exists()
