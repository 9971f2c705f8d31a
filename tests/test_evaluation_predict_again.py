"""A video that could not be read is tried again by the next run; the rest of the file stays."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import Tiny

from configs.data import DataConfig
from configs.evaluation import EvaluationConfig
from configs.sources import JsonlSource
from configs.video import VideoConfig
from data.encoding import EncodedPrompt, text_ids
from data.sources.jsonl import write_samples
from data.types import GroundingSample
from evaluation.predict import PREDICTIONS, predict, predict_all
from evaluation.predictions import Prediction, read_predictions
from evaluation.predictor import Predictor
from evaluation.run import evaluate, report

NUM_SAMPLES, BATCH_SIZE = 7, 2


class Counting:
    """A predictor that remembers whom it asked about; `stop_before`: the answer that a kill comes before."""

    def __init__(self, predictor: Predictor, stop_before: int | None = None) -> None:
        self.predictor, self.stop_before = predictor, stop_before
        self.asked: list[str] = []
        self.encode = predictor.encode

    def answer(self, samples: Sequence[GroundingSample], questions: list) -> list[Prediction]:
        if self.stop_before == len(self.asked) // BATCH_SIZE:
            raise KeyboardInterrupt
        self.asked += [sample.sample_id for sample in samples]
        return self.predictor.answer(samples, questions)


def split_in(tiny: Tiny, folder: Path) -> list[GroundingSample]:
    """Samples whose videos are to be mounted in `folder`."""
    return [
        replace(sample, sample_id=f"s{number}", video_path=str(folder / f"{number}.mp4"))
        for number, sample in enumerate((tiny.of_task("stvg") * NUM_SAMPLES)[:NUM_SAMPLES])
    ]


def mount(tiny: Tiny, samples: Sequence[GroundingSample], numbers: Sequence[int]) -> None:
    for number in numbers:
        source = (tiny.of_task("stvg") * NUM_SAMPLES)[number].video_path
        Path(samples[number].video_path).parent.mkdir(exist_ok=True)
        shutil.copyfile(source, samples[number].video_path)


@pytest.fixture
def ask(tiny: Tiny) -> Callable[..., list[str]]:
    """Predict into a file -> the ids of the samples that were asked about."""
    answer = text_ids(tiny.processor, "<time> 1.0 - 2.0 </time>")

    def says_a_time(prompts: list[EncodedPrompt]) -> list[list[int]]:
        return [answer] * len(prompts)

    def asked(samples: list[GroundingSample], path: Path, stop_before: int | None = None) -> list[str]:
        counting = Counting(Predictor(tiny.model, tiny.encoder, says_a_time), stop_before)
        try:
            predict_all(counting, samples, path, batch_size=BATCH_SIZE, title="")
        except KeyboardInterrupt:
            assert stop_before is not None
        return counting.asked

    return asked


def test_videos_that_are_mounted_later_are_asked_about(tiny: Tiny, tmp_path: Path, ask: Callable) -> None:
    """2 and 6 are missing: batches (2, 3) and (6,) are asked again, and the file is that of a split that was whole."""
    samples = split_in(tiny, tmp_path / "videos")
    mount(tiny, samples, [0, 1, 3, 4, 5])
    ask(samples, tmp_path / "p.jsonl")
    first = read_predictions(tmp_path / "p.jsonl")
    assert [p.failure for p in first if p.failure.startswith("video")] == ["video: no such file"] * 2
    mount(tiny, samples, [2, 6])
    assert ask(samples, tmp_path / "p.jsonl") == ["s2", "s3", "s6"]
    ask(samples, tmp_path / "whole.jsonl")
    assert (tmp_path / "p.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert ask(samples, tmp_path / "p.jsonl") == []
    assert not list(tmp_path.glob(".partial*"))


@pytest.mark.parametrize("killed_first", [True, False])
@pytest.mark.parametrize("half_a_line", [True, False])
def test_killed_while_asking_again(
    tiny: Tiny, tmp_path: Path, ask: Callable, killed_first: bool, half_a_line: bool
) -> None:
    """With and without a finished file of the first run, and with a line that was being written."""
    samples = split_in(tiny, tmp_path / "videos")
    mount(tiny, samples, [1, 3, 4, 5])
    ask(samples, tmp_path / "p.jsonl", 3 if killed_first else None)
    assert (tmp_path / "p.jsonl").exists() != killed_first
    mount(tiny, samples, [0, 2, 6])
    assert ask(samples, tmp_path / "p.jsonl", 1) == ["s0", "s1"]
    if half_a_line:
        with (tmp_path / ".partial-p.jsonl").open("a") as stream:
            stream.write('{"sample_id": "s2", "qu')
    assert ask(samples, tmp_path / "p.jsonl") == ["s2", "s3", "s6"]
    ask(samples, tmp_path / "whole.jsonl")
    assert (tmp_path / "p.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_the_command_tries_again_and_lists_annotations_that_were_left_out(tiny: Tiny, tmp_path: Path) -> None:
    samples = split_in(tiny, tmp_path / "videos")[:3]
    write_samples(tmp_path / "test.jsonl", samples)
    with (tmp_path / "test.jsonl").open("a") as stream:
        stream.write('{"sample_id": "broken"}\n')
    data = DataConfig(
        source=JsonlSource(root=str(tmp_path)),
        bad_records="skip",
        video=VideoConfig(timeout_sec=None),
        tasks=tiny.data.tasks,
    )
    config = EvaluationConfig(
        checkpoint=str(tiny.folder), out=str(tmp_path / "out"), data=data, dtype="float32", batch_size=2,
        max_completion_length=8, wrong_query=False,
    )  # fmt: skip
    assert [p.failure for p in predict(config).right] == ["video: no such file"] * 3
    mount(tiny, samples, [0, 1, 2])
    assert not any(p.failure.startswith("video") for p in predict(config).right)
    whole = predict(config.model_copy(update={"out": str(tmp_path / "whole")}))
    assert whole.right == read_predictions(tmp_path / "out" / PREDICTIONS)
    metrics = evaluate(config, whole)
    assert len(metrics["rejected"]) == 1 and "test.jsonl, line 4, field" in metrics["rejected"][0]
    assert "Annotations left out: 1\n\n- " in report(metrics)
