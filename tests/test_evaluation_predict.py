"""Predictions: fields of every task, videos that cannot be read, staleness, and their file."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import Tiny

from configs.data import DataConfig
from configs.evaluation import AnsweringConfig, EvaluationConfig
from configs.sources import JsonlSource
from configs.video import VideoConfig
from data.annotations import AnnotationError
from data.dataset import PromptEncoder
from data.encoding import EncodedPrompt, text_ids
from data.sources import load_samples
from data.sources.jsonl import write_samples
from data.types import TICKS_PER_SEC, FrameSpan, GroundingSample
from evaluation.metrics import score
from evaluation.predict import (
    count_failures,
    end_with_status,
    errors_explained,
    predict,
    predict_all,
    with_wrong_queries,
)
from evaluation.predictions import Prediction, PredictionError, read_predictions, write_predictions
from evaluation.predictor import Predictor
from evaluation.run import evaluate, report
from evaluation.stale import CheckpointError, drop_stale_predictions

TIME = "<time> 1.0 - 2.0 </time>"


def says(tiny: Tiny, *texts: str) -> Callable[[list[EncodedPrompt]], list[list[int]]]:
    """A writer of fixed answers."""
    return lambda prompts: [text_ids(tiny.processor, text) for _, text in zip(prompts, texts, strict=True)]


@pytest.mark.parametrize(
    ("task", "text", "failure", "span", "span_sec", "choice", "num_boxes"),
    [
        # 4 frames a second: 1 to 2 s are frames 4 to 7 of a clip that begins at frame 0, all of them sampled.
        ("stvg", TIME, "", (4, 8), (1.0, 2.0), None, 4),
        ("stvg", "<time> 9.0 - 11.0 </time>", "outside the clip", None, (9.0, 11.0), None, 0),
        ("stvg", "<answer> A </answer>", "grammar", None, None, None, 0),
        ("temporal", TIME, "", (4, 8), (1.0, 2.0), None, 0),
        # Rounded to frames and cut at the clip's end of 4 s, but kept in seconds as written.
        ("temporal", "<time> 1.03 - 7.5 </time>", "", (4, 16), (1.03, 7.5), None, 0),
        ("temporal", "<time> 2.0 - 1.0 </time>", "reversed", None, None, None, 0),
        ("rec", "<box> </box>", "", None, None, None, 1),
        ("rec", TIME, "grammar", None, None, None, 0),
        ("qa", "<answer> B </answer>", "", None, None, "B", 0),
        ("qa", "<answer> Z </answer>", "not an option", None, None, "Z", 0),
        ("qa", "B", "grammar", None, None, None, 0),
    ],
)
def test_fields_of_every_task(
    tiny: Tiny, task: str, text: str, failure: str, span: Any, span_sec: Any, choice: str | None, num_boxes: int
) -> None:
    sample = tiny.of_task(task)[0]
    prediction = Predictor(tiny.model, tiny.encoder, says(tiny, text))([sample])[0]
    assert (prediction.task, prediction.text, prediction.failure) == (task, text, failure)
    assert (prediction.span, prediction.span_sec, prediction.choice) == (span, span_sec, choice)
    assert len(prediction.boxes) == num_boxes
    assert prediction.num_tokens == len(text_ids(tiny.processor, text))
    true = () if sample.span is None or task == "temporal" else range(sample.span.start, sample.span.end)
    assert sorted(prediction.boxes_in_true_span) == list(true)
    if task == "rec":
        assert list(prediction.boxes_in_true_span) == [sample.clip.start]


def test_tasks_answer_together(tiny: Tiny) -> None:
    """One batch of all four, images and videos: each as alone, and rows without boxes do not shift the others'."""
    samples = [tiny.of_task(task)[0] for task in ("qa", "stvg", "temporal", "rec")]
    texts = ["<answer> A </answer>", TIME, TIME, "<box> </box>"]
    together = Predictor(tiny.model, tiny.encoder, says(tiny, *texts))(samples)
    for sample, text, prediction in zip(samples, texts, together, strict=True):
        alone = Predictor(tiny.model, tiny.encoder, says(tiny, text))([sample])[0]
        assert replace(prediction, boxes={}, boxes_in_true_span={}) == replace(alone, boxes={}, boxes_in_true_span={})
        for frame, box in alone.boxes.items():
            assert prediction.boxes[frame] == pytest.approx(box, abs=1e-3)


def test_an_annotation_in_seconds_is_put_on_the_clock_of_its_video(tiny: Tiny) -> None:
    """A temporal sample in ticks of 1 ms, of unknown size, that claims 9 s of a video of 4 s: 1 to 2 s are frames
    4 to 7 of the file."""
    known = tiny.of_task("temporal")[0]
    clip = FrameSpan(0, 9 * TICKS_PER_SEC)
    sample = replace(known, fps=TICKS_PER_SEC, width=0, height=0, clip=clip, span=FrameSpan(8000, 9000))
    prediction = Predictor(tiny.model, tiny.encoder, says(tiny, TIME))([sample])[0]
    assert prediction == Predictor(tiny.model, tiny.encoder, says(tiny, TIME))([known])[0]
    missing = replace(sample, video_path="/nowhere.mp4")
    assert Predictor(tiny.model, tiny.encoder, says(tiny))([missing])[0].failure == "video: no such file"


def test_a_span_between_two_sampled_frames_has_the_box_of_the_nearest(tiny: Tiny) -> None:
    """Two frames of 16 are seen. 1 to 1.5 s are frames 4 and 5: the box of the nearer frame is written at one of them,
    and scores what that box scores at every frame of the span."""
    video = tiny.data.video.model_copy(update={"num_frames": 2})
    encoder = PromptEncoder(tiny.processor, tiny.data.model_copy(update={"video": video}))
    sample = replace(tiny.of_task("stvg")[0], span=FrameSpan(4, 6), boxes_xyxy_px=((0.0, 0.0, 64.0, 64.0),) * 2)
    seen = encoder(sample).clip.frame_idx_T.tolist()
    assert len(seen) == 2 and not {4, 5} & set(seen)
    prediction = Predictor(tiny.model, encoder, says(tiny, "<time> 1.0 - 1.5 </time>"))([sample])[0]
    ((frame, box),) = prediction.boxes.items()
    assert prediction.span == (4, 6) and frame in (4, 5)
    assert list(prediction.boxes_in_true_span.values()) == [box]
    everywhere = replace(prediction, boxes={4: box, 5: box})
    assert score([sample], [prediction]).viou[0] == score([sample], [everywhere]).viou[0] > 0


def broken(samples: Sequence[GroundingSample], folder: Path) -> dict[str, GroundingSample]:
    """Cause -> a sample whose video cannot be read."""
    (folder / "text.mp4").write_text("no video")
    cut = Path(samples[0].video_path).read_bytes()[:400]
    (folder / "cut.mp4").write_bytes(cut)
    return {
        "missing": replace(samples[0], sample_id="missing", video_path=str(folder / "none.mp4")),
        "text": replace(samples[1], sample_id="text", video_path=str(folder / "text.mp4")),
        "cut": replace(samples[2], sample_id="cut", video_path=str(folder / "cut.mp4")),
        "size": replace(samples[3], sample_id="size", width=128),
    }


def test_unreadable_videos_in_the_middle_of_a_split(tiny: Tiny, tmp_path: Path) -> None:
    """They fail with a cause, the others of their batch are answered, and a batch of nothing else is not asked."""
    good, bad = tiny.of_task("stvg"), list(broken(tiny.of_task("stvg"), tmp_path).values())
    samples = [good[0], bad[0], bad[1], bad[2], bad[3], good[1], good[2]]
    asked: list[int] = []

    def generate(prompts: list[EncodedPrompt]) -> list[list[int]]:
        asked.append(len(prompts))
        return [text_ids(tiny.processor, TIME)] * len(prompts)

    predictor = Predictor(tiny.model, tiny.encoder, generate)
    predictions = predict_all(predictor, samples, tmp_path / "p.jsonl", batch_size=2, title="")
    assert [p.sample_id for p in predictions] == [s.sample_id for s in samples]
    assert [p.failure.partition(":")[0] for p in predictions] == ["", "video", "video", "video", "video", "", ""]
    assert predictions[1].failure == "video: no such file"
    assert (predictions[2].text, predictions[2].span, predictions[2].boxes) == ("", None, {})
    assert "128 x 64" in predictions[4].failure
    assert asked == [1, 1, 1]
    assert predictions[0].text == predictions[5].text == TIME
    assert count_failures(predictions) == {"video": 4}


def test_a_prompt_that_the_engine_cannot_take(tiny: Tiny) -> None:
    samples = tiny.of_task("stvg")[:2]
    lengths = [len(tiny.encoder(sample).input_ids_L) for sample in samples]
    fits = Predictor(tiny.model, tiny.encoder, says(tiny, TIME, TIME), max_prompt_tokens=max(lengths))
    assert [p.failure for p in fits(samples)] == ["", ""]
    tight = Predictor(tiny.model, tiny.encoder, says(tiny), max_prompt_tokens=min(lengths) - 1)
    assert tight(samples)[0].failure == f"prompt: {lengths[0]} tokens, the engine takes {min(lengths) - 1}"


def test_a_prompt_above_the_token_budget(tiny: Tiny) -> None:
    """Two frames of a prompt do not fit into 64 tokens with these words: a failure, not fewer frames than two."""
    video = tiny.data.video.model_copy(update={"max_prompt_tokens": 64})
    encoder = PromptEncoder(tiny.processor, tiny.data.model_copy(update={"video": video}))
    sample = replace(tiny.of_task("stvg")[0], query="the red circle " * 100)
    prediction = Predictor(tiny.model, encoder, says(tiny))([sample])[0]
    assert prediction.failure.startswith("prompt: ") and "64" in prediction.failure


def evaluation_of(tiny: Tiny, samples: Sequence[GroundingSample], folder: Path, **settings: Any) -> EvaluationConfig:
    """Of a split of one's own."""
    write_samples(folder / "test.jsonl", samples)
    data = DataConfig(source=JsonlSource(root=str(folder)), video=VideoConfig(timeout_sec=None), tasks=tiny.data.tasks)
    settings = {"dtype": "float32", "batch_size": 2, "max_completion_length": 8, "num_resamples": 100} | settings
    return EvaluationConfig(checkpoint=str(tiny.folder), out=str(folder / "out"), data=data, **settings)


def test_a_split_without_a_readable_video_ends_with_its_report_and_status_3(tiny: Tiny, tmp_path: Path) -> None:
    config = evaluation_of(tiny, list(broken(tiny.of_task("stvg"), tmp_path).values()), tmp_path, wrong_query=False)
    predicted = predict(config)
    metrics = evaluate(config, predicted)
    assert (metrics["right_query"]["n"], metrics["right_query"]["m_vIoU"]) == (4, 0.0)
    assert metrics["failures"]["missing"] == "video: no such file"
    assert "counted as 0: 4 video." in report(metrics)
    with pytest.raises(SystemExit) as ended:
        end_with_status(predicted.right)
    assert ended.value.code == 3
    end_with_status([*predicted.right, Prediction("a", failure="grammar")])


def test_what_cannot_be_read_ends_with_status_2_and_the_reason(
    tiny: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No checkpoint, no split, a line that nobody wrote so, a control that cannot be."""
    config = evaluation_of(tiny, tiny.of_task("stvg")[:2], tmp_path, wrong_query=False)
    drop_stale_predictions(config, load_samples(config.data, "test"), names=[])
    (tmp_path / "out" / "predictions.jsonl").write_text("{}\n")
    for change, reason in (
        ({}, "predictions.jsonl, line 1: field sample_id"),
        ({"checkpoint": "typo"}, "typo: expected a checkpoint folder"),
        ({"split": "typo"}, "typo.jsonl: no such annotation file"),
        ({"max_samples": 1, "wrong_query": True}, "wrong_query: the control needs at least two"),
    ):
        with pytest.raises(SystemExit) as ended, errors_explained():
            predict(config.model_copy(update=change))
        assert ended.value.code == 2
        assert reason in caplog.records[-1].getMessage()


def test_questions_without_answers_are_asked_but_not_scored(tiny: Tiny, tmp_path: Path) -> None:
    samples = [replace(sample, span=None, boxes_xyxy_px=None) for sample in tiny.of_task("stvg")[:2]]
    config = evaluation_of(tiny, samples, tmp_path, wrong_query=False)
    with pytest.raises(AnnotationError, match="2 samples have no span"):
        predict(config)
    predictions = predict(config, labelled=False).right
    assert [(p.sample_id, p.boxes_in_true_span) for p in predictions] == [(s.sample_id, {}) for s in samples]


def test_every_task_is_in_the_report(tiny: Tiny, tmp_path: Path) -> None:
    """Two samples of each, by what a random model answers: the table of stvg, and each other task by its metrics."""
    samples = [sample for task in ("qa", "stvg", "temporal", "rec") for sample in tiny.of_task(task)[:2]]
    config = evaluation_of(tiny, samples, tmp_path, wrong_query=False)
    predicted = predict(config)
    metrics = evaluate(config, predicted)
    assert metrics["right_query"]["n"] == metrics["constant"]["n"] == 2
    assert metrics["generated_tokens"] == sum(p.num_tokens or 0 for p in predicted.right) / 8 > 0
    assert {task: of_task["all"]["n"] for task, of_task in metrics["other_tasks"]["tasks"].items()} == {
        "temporal": 2, "rec": 2, "qa": 2,
    }  # fmt: skip
    text = (tmp_path / "out" / "report.md").read_text()
    assert all(part in text for part in ("| right query | 2 |", "s for each answer", "## temporal", "## rec", "## qa"))
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == metrics


def checkpoint(folder: Path) -> Path:
    """A folder that looks like one, for what only reads bytes."""
    (folder / "mllm").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "mllm" / "model.safetensors").write_bytes(b"weights")
    return folder


def another_weight(config: EvaluationConfig) -> EvaluationConfig:
    (Path(config.checkpoint) / "mllm" / "model.safetensors").write_bytes(b"WEIGHTS")
    return config


def a_copy(config: EvaluationConfig) -> EvaluationConfig:
    copied = shutil.copytree(config.checkpoint, f"{config.checkpoint}-copied", copy_function=shutil.copyfile)
    return config.model_copy(update={"checkpoint": str(copied)})


@pytest.mark.parametrize(
    ("change", "is_kept"),
    [
        (lambda config: config, True),
        (a_copy, True),
        (lambda config: config.model_copy(update={"num_resamples": 500, "wrong_query": True}), True),
        (another_weight, False),
        (lambda config: config.model_copy(update={"max_completion_length": 9}), False),
        (lambda config: config.model_copy(update={"batch_size": 3}), False),
        (lambda config: config.model_copy(update={"answering": AnsweringConfig(presence_trim=0.5)}), False),
    ],
)
def test_predictions_that_were_made_otherwise_are_removed(
    tiny: Tiny, tmp_path: Path, change: Callable[[EvaluationConfig], EvaluationConfig], is_kept: bool
) -> None:
    """By content: a copy of the checkpoint with other dates is the same one."""
    config = evaluation_of(tiny, tiny.samples[:2], tmp_path, wrong_query=False)
    config = config.model_copy(update={"checkpoint": str(checkpoint(tmp_path / "weights"))})
    drop_stale_predictions(config, tiny.samples[:2], names=["p.jsonl"])
    files = [tmp_path / "out" / name for name in ("p.jsonl", ".partial-p.jsonl")]
    for path in files:
        path.write_text("")
    drop_stale_predictions(change(config), tiny.samples[:2], names=["p.jsonl"])
    assert [path.exists() for path in files] == [is_kept] * 2


def test_other_questions_are_stale_and_a_missing_checkpoint_removes_nothing(tiny: Tiny, tmp_path: Path) -> None:
    config = evaluation_of(tiny, tiny.samples[:2], tmp_path)
    drop_stale_predictions(config, tiny.samples[:2], names=["p.jsonl"])
    kept = tmp_path / "out" / "p.jsonl"
    kept.write_text("")
    with pytest.raises(CheckpointError, match=r"typo: expected a checkpoint folder"):
        drop_stale_predictions(config.model_copy(update={"checkpoint": "typo"}), tiny.samples[:2], names=["p.jsonl"])
    assert kept.exists()
    edited = [replace(tiny.samples[0], query="another sentence"), tiny.samples[1]]
    drop_stale_predictions(config, edited, names=["p.jsonl"])
    assert not kept.exists()


def test_wrong_queries_stay_within_their_task(tiny: Tiny) -> None:
    wrong = with_wrong_queries(tiny.samples, seed=0)
    for right, other in zip(tiny.samples, wrong, strict=True):
        assert other.query in {s.query for s in tiny.of_task(right.task)} - {right.query}
    assert replace(wrong[0], query=tiny.samples[0].query) == tiny.samples[0]


FULL = Prediction(
    "ä", 'a "quoted" query', TIME, "outside the clip", (4, 8), {4: (0.5, 1.0, 2.0, 3.25)}, {5: (0.0, 1.0, 2.0, 3.0)},
    task="temporal", span_sec=(1.0, 2.0), choice="B",
)  # fmt: skip


def test_predictions_survive_the_disk(tmp_path: Path) -> None:
    predictions = [FULL, Prediction("b"), Prediction("line\u2028separator", query="\n")]
    write_predictions(tmp_path / "p.jsonl", predictions)
    assert read_predictions(tmp_path / "p.jsonl") == predictions
    assert len((tmp_path / "p.jsonl").read_text().splitlines()) == 3
    with pytest.raises(ValueError, match="sample 'ä' has a number that is not finite"):
        write_predictions(tmp_path / "p.jsonl", [replace(FULL, boxes={1: (0.0, 0.0, 1.0, float("nan"))})])
    assert read_predictions(tmp_path / "p.jsonl") == predictions


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ('{"sample_id": "a", "text": ', "Invalid JSON"),
        ("[]", "Input should be an object"),
        ("", "Invalid JSON"),
        ('{"query": "q"}', "field sample_id"),
        ('{"sample_id": 7}', "field sample_id"),
        ('{"sample_id": "a", "boxes": {"first": [0, 0, 1, 1]}}', "field boxes.first"),
        ('{"sample_id": "a", "boxes": {"1": [0, 0, 1]}}', "field boxes.1"),
        ('{"sample_id": "a", "boxes": {"1": [0, 0, 1, NaN]}}', "field boxes.1.3"),
        ('{"sample_id": "a", "boxes": {"1": [0, 0, 1, 1e999]}}', "field boxes.1.3"),
        ('{"sample_id": "a", "span": [1.5, 2]}', "field span.0"),
        ('{"sample_id": "a", "span": [-1, 2]}', "field span.0: Input should be greater than or equal to 0"),
        ('{"sample_id": "a", "span": [1, 8388608]}', "field span.1: Input should be less than 8388608"),
        ('{"sample_id": "a", "boxes": {"-1": [0, 0, 1, 1]}}', "field boxes.-1"),
        ('{"sample_id": "a", "span_sec": "1 - 2"}', "field span_sec"),
        ('{"sample_id": "a", "task": "caption"}', "field task"),
        ('{"sample_id": "a", "spam": 1}', "field spam"),
        ('{"sample_id": "ok"}', "sample_id 'ok' is there twice"),
        ('{"sample_id": "\udcff"}', "Invalid JSON"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str, cause: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(json.dumps({"sample_id": "ok"}).encode() + b"\n" + line.encode(errors="surrogateescape") + b"\n")
    with pytest.raises(PredictionError, match=cause) as caught:
        read_predictions(path)
    assert str(caught.value).startswith(f"{path}, line 2: ")


def test_frames_of_a_file_are_whole_numbers(tiny: Tiny, tmp_path: Path) -> None:
    """What numpy and torch count with becomes JSON's integers."""
    prediction = Predictor(tiny.model, tiny.encoder, says(tiny, TIME))(tiny.of_task("stvg")[:1])
    write_predictions(tmp_path / "p.jsonl", prediction)
    assert not any(isinstance(frame, np.integer) for frame in prediction[0].boxes)
    assert read_predictions(tmp_path / "p.jsonl") == prediction
