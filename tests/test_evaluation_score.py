"""`python -m evaluation.score` on files: every task, failures, what does not belong together, comparisons."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from configs.base import ConfigError
from data.annotations import AnnotationError
from data.sources.jsonl import write_samples
from data.types import BoxPx, FrameSpan, GroundingSample
from evaluation import score
from evaluation.annotation_files import read_annotations
from evaluation.benchmarks import BENCHMARKS
from evaluation.metrics import score as canonical_score
from evaluation.metrics import score_chunk, summarize
from evaluation.predictions import Prediction, read_predictions, write_predictions
from evaluation.protocols import Protocol, score_tube

BOX = (20.0, 10.0, 40.0, 30.0)
STVG = GroundingSample(
    sample_id="a",
    task="stvg",
    query="the red circle",
    video_path="/videos/a.mp4",
    fps=10.0,
    width=100,
    height=50,
    clip=FrameSpan(100, 140),
    span=FrameSpan(110, 130),
    boxes_xyxy_px=(BOX,) * 20,
)
TEMPORAL = replace(STVG, sample_id="t", task="temporal", boxes_xyxy_px=None)
REC = replace(STVG, sample_id="r", task="rec", clip=FrameSpan(0, 1), span=FrameSpan(0, 1), boxes_xyxy_px=(BOX,))
QA = replace(STVG, sample_id="q", task="qa", span=None, boxes_xyxy_px=None, options=("red", "blue"), choice="B")
RIGHT = Prediction("a", span=(110, 130), boxes={112: BOX})


def run(folder: Path, samples: list[GroundingSample], predictions: list[Prediction], *arguments: str) -> dict[str, Any]:
    """The metrics.json of a run on files."""
    write_samples(folder / "a.jsonl", samples)
    write_predictions(folder / "p.jsonl", predictions)
    files = ["--predictions", str(folder / "p.jsonl"), "--annotations", str(folder / "a.jsonl")]
    protocol = [] if "--protocol" in arguments else ["--protocol", "canon"]
    score.main([*files, *protocol, "--resamples", "100", "--out", str(folder / "out"), *arguments])
    return json.loads((folder / "out" / "metrics.json").read_text())


def error_of(caplog: pytest.LogCaptureFixture, *arguments: Any) -> str:
    with pytest.raises(SystemExit) as ended:
        run(*arguments)
    assert ended.value.code == 2
    return caplog.records[-1].getMessage()


def test_each_task_by_its_own_metrics(tmp_path: Path) -> None:
    predictions = [
        Prediction("q", choice="B"),
        replace(RIGHT, boxes_in_true_span={112: BOX}),
        Prediction("t", span_sec=(1.0, 2.0)),
        Prediction("r", boxes={0: (20.0, 10.0, 40.0, 20.0)}),
    ]
    tasks = run(tmp_path, [STVG, TEMPORAL, REC, QA], predictions)["tasks"]
    means = {task: {key: row for key, row in tasks[task]["all"].items() if "ci95" not in key} for task in tasks}
    ones = dict.fromkeys(["m_tIoU", "m_vIoU", "vIoU@0.3", "vIoU@0.5", "gt_vIoU", "parse_rate", "coverage"], 1.0)
    assert means["stvg"] == pytest.approx({"n": 1, **ones})
    # 1 .. 2 s of the true 1 .. 3 s.
    assert means["temporal"] == {"n": 1, "mIoU": 0.5, "R1@0.3": 1, "R1@0.5": 1, "R1@0.7": 0, "parse_rate": 1}
    # The upper half of the box: IoU exactly 0.5 is a hit for >= alone.
    assert means["rec"] == {"n": 1, "Acc@0.5": 0, "Acc@0.5 (>=)": 1, "mIoU": 0.5, "parse_rate": 1}
    assert means["qa"] == {"n": 1, "accuracy": 1, "parse_rate": 1}


def test_failures_count_as_zero_and_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = [replace(STVG, sample_id=name) for name in "abcdef"]
    predictions = [
        RIGHT,
        Prediction("b", text="two seconds", failure="grammar"),
        Prediction("c", text="no answer"),
        Prediction("e", text="<time> 9.0 - 9.5 </time>"),
        Prediction("f", span=(130, 110)),
    ]
    summary = run(tmp_path, samples, predictions)["tasks"]["stvg"]
    reasons = ["grammar", "grammar", "no prediction", "outside the clip", "reversed"]
    assert summary["failures"] == dict(zip("bcdef", reasons, strict=True))
    assert (summary["all"]["n"], summary["all"]["m_vIoU"]) == (6, pytest.approx(1 / 6))
    assert summary["all"]["parse_rate"] == pytest.approx(2 / 6)
    report = capsys.readouterr().out
    assert "Failures, each counted as 0 (2 grammar, 1 no prediction, 1 outside the clip, 1 reversed): 5" in report
    assert "- d: no prediction" in report


def test_failures_of_the_other_tasks(tmp_path: Path) -> None:
    samples = [TEMPORAL, REC, QA, replace(QA, sample_id="q2"), replace(QA, sample_id="q3")]
    predictions = [Prediction("t"), Prediction("r", text="<box> </box>"), Prediction("q", text="B"),
                   Prediction("q2", text="<answer> B </answer>"), Prediction("q3", failure="video: gone", choice="B")]  # fmt: skip
    tasks = run(tmp_path, samples, predictions)["tasks"]
    assert tasks["temporal"]["failures"] == {"t": "grammar"}
    assert tasks["rec"]["failures"] == {"r": "no answer"}
    assert tasks["qa"]["failures"] == {"q": "grammar", "q3": "video: gone"}
    assert tasks["qa"]["all"]["accuracy"] == pytest.approx(1 / 3)


def test_query_types_are_rows_of_their_own(tmp_path: Path) -> None:
    samples = [STVG, replace(STVG, sample_id="b", query_type="interrogative")]
    summary = run(tmp_path, samples, [RIGHT])["tasks"]["stvg"]
    assert [summary[name]["m_tIoU"] for name in ("all", "declarative", "interrogative")] == [0.5, 1.0, 0.0]


@pytest.mark.parametrize(
    ("protocol", "expected"), [("canon", 1.0), ("tubedetr", 1.0), ("stcat", 0.95), ("hcstvg", 1.0)]
)
def test_the_protocol_is_that_of_the_command(tmp_path: Path, protocol: str, expected: float) -> None:
    """A perfect tube of 20 frames of HC-STVG is 19/20 by STCAT, 1 by its VidSTG rule."""
    sample = replace(STVG, source="hcstvg_v1")
    summary = run(tmp_path, [sample], [RIGHT], "--protocol", protocol)["tasks"]["stvg"]["all"]
    assert (summary["m_tIoU"], summary["m_vIoU"]) == pytest.approx((expected, expected))
    by_vidstg = run(tmp_path, [sample], [RIGHT], "--protocol", protocol, "--dataset", "vidstg")
    assert by_vidstg["tasks"]["stvg"]["all"]["m_vIoU"] == pytest.approx(1.0)


@pytest.mark.parametrize("source", ["", "my_part"])
def test_stcat_asks_for_the_data_set_of_an_unknown_source(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, source: str
) -> None:
    """A mixture's samples have the name of their part as source."""
    sample = replace(STVG, source=source)
    message = error_of(caplog, tmp_path, [sample], [RIGHT], "--protocol", "stcat")
    assert f"sample 'a': protocol stcat differs by data set and source {source!r} is none of ['vidstg'" in message
    summary = run(tmp_path, [sample], [RIGHT], "--protocol", "stcat", "--dataset", "hcstvg")["tasks"]["stvg"]["all"]
    assert summary["m_vIoU"] == pytest.approx(0.95)
    vidstg = run(tmp_path, [replace(STVG, source="vidstg")], [RIGHT], "--protocol", "stcat")["tasks"]["stvg"]["all"]
    assert vidstg["m_vIoU"] == pytest.approx(1.0)


def test_boxes_beyond_the_image_are_clipped_by_canon_alone(tmp_path: Path) -> None:
    """True box 20 px wide of which 10 are outside of the image; the prediction is the part inside."""
    sample = replace(STVG, boxes_xyxy_px=((90.0, 10.0, 110.0, 30.0),) * 20)
    prediction = replace(RIGHT, boxes={112: (90.0, 10.0, 100.0, 30.0)})
    vious = [run(tmp_path, [sample], [prediction], "--protocol", name)["tasks"]["stvg"]["all"]["m_vIoU"]
             for name in ("canon", "hcstvg")]  # fmt: skip
    assert vious == pytest.approx([1.0, 0.5])


def test_equal_to_the_evaluation_of_a_checkpoint_whatever_the_order(tmp_path: Path) -> None:
    """600 samples, more than two chunks, answered in another order, some not at all."""
    rng = np.random.default_rng(0)
    samples, predictions = [], []
    for number in range(600):
        start, length = int(rng.integers(100, 130)), int(rng.integers(1, 10))
        boxes = tuple((float(x), 5.0, float(x) + 30.0, 40.0) for x in rng.uniform(0, 60, length))
        span = FrameSpan(start, start + length)
        samples.append(replace(STVG, sample_id=str(number), span=span, boxes_xyxy_px=boxes))
        first = int(rng.integers(100, 130))
        answer = Prediction(
            str(number), span=(first, first + 5), boxes={first + 1: BOX, first + 4: (0.0, 0.0, 50.0, 50.0)}
        )
        predictions.append(answer if number % 7 else Prediction(str(number), failure="grammar"))
    metrics = run(tmp_path, samples, [predictions[i] for i in rng.permutation(600)])["tasks"]["stvg"]["all"]
    expected = summarize(canonical_score(samples, predictions), num_resamples=100, seed=0)
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value, abs=1e-7), name


def test_boxes_outside_of_the_predicted_span_are_ignored(tmp_path: Path) -> None:
    """Frames 108 and 133 have boxes, the span is [110, 130): none of them counts, as if there were no box."""
    prediction = replace(RIGHT, boxes={108: BOX, 133: BOX})
    for protocol in get_args(Protocol):
        means = run(tmp_path, [STVG], [prediction], "--protocol", protocol, "--dataset", "vidstg")["tasks"]["stvg"]
        assert (means["all"]["m_vIoU"], means["all"]["coverage"]) == (0, 0)


def test_files_and_score_tube_have_one_definition() -> None:
    """Random tubes: boxes in and out of the span and of the image, at some frames, with and without conditioned ones."""
    rng = np.random.default_rng(3)
    samples, predictions = [], []
    for number in range(40):
        moved = [
            tuple(float(value) for value in row) for row in rng.uniform(-20, 120, (60, 2, 2)).cumsum(1).reshape(-1, 4)
        ]
        start, end = sorted(int(frame) for frame in rng.choice(np.arange(100, 141), 2, replace=False))
        frames = sorted(int(frame) for frame in rng.choice(np.arange(95, 150), 8, replace=False))
        samples.append(replace(STVG, sample_id=str(number), boxes_xyxy_px=tuple(map(ordered, moved[:20]))))
        boxes = {frame: ordered(moved[20 + i]) for i, frame in enumerate(frames)}
        conditioned = {} if number % 2 else {frame: ordered(moved[40 + i]) for i, frame in enumerate(range(110, 118))}
        predictions.append(Prediction(str(number), span=(start, end), boxes=boxes, boxes_in_true_span=conditioned))
    for protocol in get_args(Protocol):
        scores, _ = score_chunk(protocol, samples, predictions, dataset="vidstg")
        for b, (sample, prediction) in enumerate(zip(samples, predictions, strict=True)):
            one = score_tube(
                protocol, gt_span=(110, 130), gt_boxes=dict(enumerate(sample.boxes_xyxy_px or (), start=110)),  # type: ignore[arg-type]
                pred_span=prediction.span, pred_boxes=prediction.boxes, clip=sample.clip, fps=sample.fps,
                dataset="vidstg", pred_boxes_in_gt=prediction.boxes_in_true_span, size=(sample.width, sample.height),
            )  # fmt: skip
            assert (scores.tiou[b], scores.viou[b], scores.gt_viou[b]) == pytest.approx(
                (one.tiou, one.viou, one.gt_viou), abs=1e-5
            ), (protocol, b)
        assert scores.viou.max() > 0


def ordered(box: Sequence[float]) -> BoxPx:
    """Left before right, top above bottom."""
    (left, right), (top, bottom) = sorted(box[::2]), sorted(box[1::2])
    return left, top, right, bottom


def test_compare_is_paired(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = [STVG, replace(STVG, sample_id="b"), TEMPORAL]
    halves = [replace(RIGHT, span=(110, 120)), Prediction("b", span=(110, 120), boxes={112: BOX})]
    write_predictions(tmp_path / "other.jsonl", halves)
    ours = [RIGHT, replace(RIGHT, sample_id="b"), Prediction("t", span_sec=(1.0, 3.0))]
    compared = run(tmp_path, samples, ours, "--compare", str(tmp_path / "other.jsonl"))["compare"]["tasks"]
    assert compared["stvg"]["all"]["m_tIoU"] == {"mean": 0.5, "ci95": [0.5, 0.5]}
    assert compared["temporal"]["all"]["mIoU"] == {"mean": 1.0, "ci95": [1.0, 1.0]}
    assert "| all | +50.00 [+50.00, +50.00] |" in capsys.readouterr().out


def test_published_numbers_stand_beside_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, [STVG], [RIGHT], "--benchmark", "hcstvg_v1_test")
    report = capsys.readouterr().out
    assert "| TubeDETR | 43.7 | 32.4 | 49.8 | 23.5 | tubedetr | STVG-o1 (2511.21375); own README |" in report
    assert "| **this file** (n 1) | **100.00** | **100.00** |" in report
    assert (tmp_path / "out" / "report.md").read_text() == report


def test_published_numbers_are_per_cents_with_a_source() -> None:
    for rows in BENCHMARKS.values():
        assert len({(row.system, row.group) for row in rows}) == len(rows)
        for row in rows:
            assert row.source and row.protocol and row.values
            assert all(0 <= value <= 100 for value in row.values.values())


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        ([RIGHT, Prediction("zz"), Prediction("yy")], "2 predictions are for samples that the annotations do not have: ['zz', 'yy']"),
        ([RIGHT, RIGHT], "line 2: sample_id 'a' is there twice"),
    ],
)  # fmt: skip
def test_predictions_of_other_samples(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, predictions: list[Prediction], message: str
) -> None:
    assert message in error_of(caplog, tmp_path, [STVG], predictions)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"sample_id": "a", "span": [1, 2', "line 2: Invalid JSON"),
        ('{"sample_id": "a", "span": [1, 2.5]}', "line 2: field span.1"),
        ('{"sample_id": "a", "boxes": {"7": [1, 2, 3]}}', "line 2: field boxes.7"),
        ('{"sample_id": "a", "boxes": {"7": [1, 2, 3, NaN]}}', "line 2: field boxes.7"),
        ('{"sample_id": "a", "answer": "B"}', "line 2: field answer"),
        ('{"span": [1, 2]}', "line 2: field sample_id"),
        ("[]", "line 2:"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture, line: str, message: str) -> None:
    write_samples(tmp_path / "a.jsonl", [STVG])
    (tmp_path / "p.jsonl").write_text(f'{{"sample_id": "b"}}\n{line}\n')
    with pytest.raises(SystemExit):
        score.main(["--predictions", str(tmp_path / "p.jsonl"), "--annotations", str(tmp_path / "a.jsonl"), "--protocol", "canon"])  # fmt: skip
    assert f"p.jsonl, {message}" in caplog.records[-1].getMessage()


def test_samples_without_a_truth_cannot_be_scored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    question = replace(STVG, span=None, boxes_xyxy_px=None)
    assert "1 samples have no true answer to be scored against: ['a']" in error_of(
        caplog, tmp_path, [question], [RIGHT]
    )


def test_bad_annotations_end_the_run_or_are_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    write_samples(tmp_path / "a.jsonl", [STVG])
    with (tmp_path / "a.jsonl").open("a") as stream:
        stream.write('{"sample_id": "broken"}\n')
    write_predictions(tmp_path / "p.jsonl", [RIGHT])
    command = [
        "--predictions",
        str(tmp_path / "p.jsonl"),
        "--annotations",
        str(tmp_path / "a.jsonl"),
        "--protocol",
        "canon",
    ]
    with pytest.raises(SystemExit):
        score.main(command)
    assert "a.jsonl, line 2, field" in caplog.records[-1].getMessage()
    score.main([*command, "--bad-records", "skip"])
    assert "Annotations left out: 1" in capsys.readouterr().out


def test_published_annotation_files_are_read_by_their_source(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Charades-STA as text; the end lies past any video and is not cut."""
    (tmp_path / "charades_sta_test.txt").write_text("AO8RW 0.0 6.9##a person is putting a book on a shelf.\n")
    split = read_annotations(tmp_path, "charades_sta", "test", [])
    assert split.samples[0].windows_sec == ((0.0, 6.9),)
    write_predictions(tmp_path / "p.jsonl", [Prediction(split.samples[0].sample_id, span_sec=(0.0, 6.9))])
    score.main(["--predictions", str(tmp_path / "p.jsonl"), "--annotations", str(tmp_path), "--source", "charades_sta",
                "--protocol", "canon", "--benchmark", "charades_sta", "--resamples", "100"])  # fmt: skip
    assert "| all | 1 | 100.00 [100.00, 100.00] |" in capsys.readouterr().out
    for wrong, message in (("tracks", "expected key=value"), ("trackz=1", "trackz")):
        with pytest.raises(ConfigError, match=message):
            read_annotations(tmp_path, "vidstg", "test", [wrong])


def test_a_folder_of_jsonl_files_is_told_to_name_one(tmp_path: Path) -> None:
    write_samples(tmp_path / "heldout.jsonl", [STVG])
    with pytest.raises(
        AnnotationError, match=rf"data\.prepare.*, or name the \.jsonl file, such as {tmp_path}/heldout"
    ):
        read_annotations(tmp_path, None, "test", [])


def test_predictions_that_are_not_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_samples(tmp_path / "a.jsonl", [STVG])
    with pytest.raises(SystemExit):
        score.main(["--predictions", str(tmp_path / "none"), "--annotations", str(tmp_path / "a.jsonl"), "--protocol", "canon"])  # fmt: skip
    assert "none: no such predictions file" in caplog.records[-1].getMessage()


def test_written_predictions_are_read_back(tmp_path: Path) -> None:
    ours = [replace(RIGHT, windows_sec=((1.0, 2.0, 0.5),)), Prediction("q", choice="B")]
    write_predictions(tmp_path / "p.jsonl", ours)
    assert read_predictions(tmp_path / "p.jsonl") == ours
