"""Scores by the canonical protocol, controls, intervals, and predictions on disk."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import Tiny

from configs.run import read_metrics
from data.encoding import EncodedPrompt, text_ids
from data.types import FrameSpan, GroundingSample
from evaluation.metrics import best_constant, interval, paired_difference, score, summarize
from evaluation.predict import SPEED, predict_all, seconds_per_sample, with_wrong_queries
from evaluation.predictions import Prediction, read_predictions
from evaluation.predictor import Predictor
from evaluation.run import markdown_table

BOX = (20.0, 10.0, 40.0, 30.0)
SAMPLE = GroundingSample(
    sample_id="a",
    task="stvg",
    query="the red circle",
    video_path="a.mp4",
    fps=10.0,
    width=100,
    height=50,
    clip=FrameSpan(100, 140),
    span=FrameSpan(110, 130),
    boxes_xyxy_px=(BOX,) * 20,
)


def prediction(text: str, frames: list[int], box: tuple[float, float, float, float] = BOX) -> Prediction:
    boxes = dict.fromkeys(frames, box)
    return Prediction("a", SAMPLE.query, text, "", None, boxes, boxes)


def test_a_perfect_prediction_scores_one_from_two_boxes() -> None:
    """Frames are absolute, times count from the clip: 1.0 - 3.0 s are frames 110 to 129; boxes are held to the ends."""
    scores = score([SAMPLE], [prediction("<time> 1.0 - 3.0 </time>", [112, 124])])
    assert [scores.tiou[0], scores.viou[0], scores.gt_viou[0], scores.parsed[0]] == pytest.approx([1, 1, 1, 1])


def test_by_hand() -> None:
    """0 - 2 s: frames 100-119 against 110-129: 10 of 30. Half-shifted box: IoU 1/3, so vIoU 1/9."""
    scores = score([SAMPLE], [prediction("<time> 0.0 - 2.0 </time>", [100, 119], (30.0, 10.0, 50.0, 30.0))])
    assert scores.tiou[0] == pytest.approx(1 / 3)
    assert scores.viou[0] == pytest.approx(1 / 9)
    assert scores.gt_viou[0] == pytest.approx(1 / 3)


@pytest.mark.parametrize("text", ["", "1.0 - 3.0", "<time> 3.0 - 1.0 </time>", "<time> 1.0 - 3.0 </time> or so"])
def test_failures_score_zero_and_stay_in_the_denominator(text: str) -> None:
    samples = [SAMPLE, replace(SAMPLE, sample_id="b")]
    good = replace(prediction("<time> 1.0 - 3.0 </time>", [112]), sample_id="b")
    summary = summarize(score(samples, [prediction(text, []), good]), num_resamples=200, seed=0)
    assert (summary["n"], summary["m_vIoU"], summary["parse_rate"]) == (2, pytest.approx(0.5), 0.5)


def test_a_frame_without_an_annotated_box_counts_in_the_union() -> None:
    """One of 20 boxes is missing: vIoU 19/20, gt_vIoU over the 19."""
    holed = replace(SAMPLE, boxes_xyxy_px=(None, *(BOX,) * 19))
    scores = score([holed], [prediction("<time> 1.0 - 3.0 </time>", [112])])
    assert scores.viou[0] == pytest.approx(0.95)
    assert scores.gt_viou[0] == pytest.approx(1.0)


def test_thresholds_are_strict() -> None:
    """vIoU exactly 0.5 is not above 0.5."""
    columns = score([SAMPLE], [prediction("<time> 1.0 - 2.0 </time>", [112])]).columns()
    assert columns["m_vIoU"][0] == pytest.approx(0.5)
    assert (columns["vIoU@0.3"][0], columns["vIoU@0.5"][0]) == (1.0, 0.0)


def test_predictions_of_other_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="do not belong"):
        score([replace(SAMPLE, sample_id="b")], [prediction("", [])])


def test_best_constant_is_the_best() -> None:
    """Two clips with the same true share of the clip: the constant finds it, and the box that both share."""
    other = replace(SAMPLE, sample_id="b", clip=FrameSpan(0, 40), span=FrameSpan(10, 30))
    scores = best_constant([SAMPLE, other])
    assert scores.tiou == pytest.approx([1.0, 1.0])
    assert scores.viou == pytest.approx([1.0, 1.0])


def test_wrong_queries_keep_the_video_and_change_the_sentence(tiny: Tiny) -> None:
    samples = tiny.of_task("stvg")
    wrong = with_wrong_queries(samples, seed=0)
    assert all(a.query != b.query and a.video_path == b.video_path for a, b in zip(samples, wrong, strict=True))
    assert {sample.query for sample in wrong} <= {sample.query for sample in samples}
    with pytest.raises(ValueError, match="two different queries"):
        with_wrong_queries([SAMPLE, SAMPLE], seed=0)


def test_interval_by_theory() -> None:
    """Mean of 400 standard normals: half-width near 1.96 / 20 = 0.098, and it contains the mean."""
    values = np.random.default_rng(0).normal(size=400)
    low, high = interval(values, num_resamples=2000, seed=0)
    assert low < values.mean() < high
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.1)
    assert interval(np.ones(5), num_resamples=200, seed=0) == [1.0, 1.0]


def test_paired_difference_sees_what_two_intervals_do_not() -> None:
    """The same 100 scores, all 0.01 better: the difference is certain although the scores spread widely."""
    spread = np.random.default_rng(0).uniform(size=100)
    ones = np.ones(100)
    from evaluation.metrics import Scores

    better, worse = (Scores(values, values, values, ones) for values in (spread + 0.01, spread))
    difference = paired_difference(better, worse, num_resamples=500, seed=0)["m_tIoU"]
    assert difference["mean"] == pytest.approx(0.01)
    assert difference["ci95"] == pytest.approx([0.01, 0.01])


def test_predictor_on_true_answers(tiny: Tiny, tmp_path: Path) -> None:
    """Decodes boxes in the answered span only, reports failures, and survives the disk."""
    samples = tiny.of_task("stvg")[:2]
    texts = ["<time> 1.0 - 2.0 </time>", "the red circle"]
    answers = [text_ids(tiny.processor, text) for text in texts]
    predictions = Predictor(tiny.model, tiny.encoder, lambda prompts: answers)(samples)
    assert [p.text for p in predictions] == texts
    assert sorted(predictions[0].boxes) == [4, 5, 6, 7]
    assert (predictions[0].span, predictions[0].failure) == ((4, 8), "")
    assert (predictions[1].span, predictions[1].failure, predictions[1].boxes) == (None, "grammar", {})
    assert sorted(predictions[1].boxes_in_true_span) == list(range(samples[1].span.start, samples[1].span.end))
    predictor = Predictor(tiny.model, tiny.encoder, lambda prompts: answers)
    assert predict_all(predictor, samples, tmp_path / "p.jsonl", batch_size=2, title="") == predictions
    assert read_predictions(tmp_path / "p.jsonl") == predictions


def test_an_interrupted_prediction_goes_on(tiny: Tiny, tmp_path: Path) -> None:
    """Batches that were written are not asked again; a line that was cut off is; the file is the uninterrupted one."""
    samples = tiny.of_task("stvg")[:5]
    answer = text_ids(tiny.processor, "<time> 1.0 - 2.0 </time>")
    asked: list[int] = []

    def generate(prompts: list[EncodedPrompt]) -> list[list[int]]:
        asked.append(len(prompts))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return [answer] * len(prompts)

    predictor = Predictor(tiny.model, tiny.encoder, generate)
    path = tmp_path / "p.jsonl"
    with pytest.raises(KeyboardInterrupt):
        predict_all(predictor, samples, path, batch_size=2, title="")
    assert not path.exists()
    with (tmp_path / ".partial-p.jsonl").open("a") as stream:
        stream.write('{"sample_id": "cut o')
    resumed = predict_all(predictor, samples, path, batch_size=2, title="")
    assert asked == [2, 2, 1, 1]
    assert resumed == predict_all(predictor, samples, tmp_path / "whole.jsonl", batch_size=2, title="")
    assert path.read_text() == (tmp_path / "whole.jsonl").read_text()
    notes = [row for row in read_metrics(tmp_path / SPEED) if row["predictions"] == "p.jsonl"]
    assert [row["samples"] for row in notes] == [2, 2, 1]
    assert seconds_per_sample(path) == pytest.approx(sum(row["seconds"] for row in notes) / 5)
    assert seconds_per_sample(tmp_path / "other.jsonl") is None


def test_batched_predictions_equal_single(tiny: Tiny) -> None:
    samples = tiny.of_task("stvg")[:3]
    answers = [text_ids(tiny.processor, f"<time> {i}.0 - {i + 1}.5 </time>") for i in range(3)]
    by_id = dict(zip([s.sample_id for s in samples], answers, strict=True))
    together = Predictor(tiny.model, tiny.encoder, lambda prompts: answers)(samples)
    for sample, expected in zip(samples, together, strict=True):
        alone = Predictor(tiny.model, tiny.encoder, lambda prompts, s=sample: [by_id[s.sample_id]])([sample])[0]
        assert alone.text == expected.text
        for frame, box in alone.boxes.items():
            assert box == pytest.approx(expected.boxes[frame], abs=1e-3)


def test_the_table_shows_every_row() -> None:
    row = summarize(score([SAMPLE], [prediction("<time> 1.0 - 2.0 </time>", [112])]), num_resamples=200, seed=0)
    table = markdown_table({"right_query": row, "constant": row})
    assert table.splitlines()[2].startswith("| right query | 1 | 0.500 [0.500, 0.500] |")
    assert "best constant" in table
