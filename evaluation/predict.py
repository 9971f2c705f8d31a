"""A checkpoint's answers to a split, on disk: `{out}/predictions.jsonl` (evaluation/predictions.py has the format).

    python -m evaluation.predict --config configs/demo/evaluate.yaml checkpoint=outputs/demo/sft/checkpoint

The config is that of `evaluation.run`, which is this and then the scores. A killed run goes on from its last whole
batch, to the file of an uninterrupted one. Where config, weights or questions are others than before, it starts over.

A video that cannot be read is a prediction without an answer and counts 0; started again, it is tried again. Where no
sample at all could be asked about, the process ends with status 3, after its report.
"""

import json
import logging
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from tqdm import tqdm

from configs.base import ConfigError
from configs.checkpoints import PARTIAL, write_atomically
from configs.command_line import config_from_command_line, explained
from configs.evaluation import EvaluationConfig
from configs.run import quiet_environment, read_metrics, setup_logging, write_provenance
from data.annotations import AnnotationError
from data.prefetch import prefetch
from data.types import GroundingSample
from evaluation.predictions import (
    Prediction,
    PredictionError,
    could_be_read,
    iter_predictions,
    prediction_line,
    read_predictions,
    was_asked,
    write_predictions,
)
from evaluation.stale import CheckpointError, drop_stale_predictions
from model.grounders import GrounderError

logger = logging.getLogger("evaluation.predict")

PREDICTIONS, WRONG_QUERY_PREDICTIONS = "predictions.jsonl", "predictions_wrong_query.jsonl"
SPEED = "speed.jsonl"
"""Beside them, a line for each batch that was answered: the file it is in, its samples, and the seconds that it took."""


def main() -> None:
    """Entry point."""
    config = config_from_command_line(EvaluationConfig, __doc__)
    quiet_environment()
    setup_logging()
    with errors_explained():
        predicted = predict(config, labelled=False)
    logger.info("%s", Path(config.out) / PREDICTIONS)
    end_with_status(predicted.right)


def errors_explained() -> AbstractContextManager[None]:
    """What cannot be read ends the process with status 2 and the reason."""
    return explained(AnnotationError, CheckpointError, GrounderError, PredictionError)


def end_with_status(predictions: Sequence[Prediction]) -> None:
    """End the process with status 3 where no sample could be asked about."""
    if not any(map(was_asked, predictions)):
        logger.error("none of %d samples could be asked about: %s", len(predictions), count_failures(predictions))
        sys.exit(3)


@dataclass(frozen=True)
class Predicted:
    """Samples and their predictions, in the same order. wrong: to other samples' queries, None where not asked for.

    rejected: one error for each annotation that was left out.
    """

    samples: list[GroundingSample]
    right: list[Prediction]
    wrong: list[Prediction] | None
    rejected: list[AnnotationError] = field(default_factory=list)


def predict(config: EvaluationConfig, *, labelled: bool = True) -> Predicted:
    """Write the predictions of a split into `config.out`, or go on with them.

    Samples annotated in seconds stay so: their videos are looked at one by one, and one that cannot be read is a
    failure too. labelled: a sample without a true answer, which could not be scored, is an AnnotationError.
    Raises AnnotationError, CheckpointError, ConfigError, and PredictionError for a damaged file.
    """
    from data.sources import load_samples_and_rejected

    out = Path(config.out)
    # A video that is missing is a failed answer, not a sample fewer: the predictor looks at each when it asks.
    samples, rejected = load_samples_and_rejected(config.data, config.split, probe=False, labelled=labelled)
    samples = samples[: config.max_samples]
    asked = {PREDICTIONS: samples}
    if config.wrong_query:
        asked[WRONG_QUERY_PREDICTIONS] = with_wrong_queries(samples, seed=config.seed)
    drop_stale_predictions(config, samples, names=(PREDICTIONS, WRONG_QUERY_PREDICTIONS, SPEED))
    write_provenance(out, config)
    answered = _predict_files(config, asked)
    counts = count_failures(answered[PREDICTIONS])
    logger.info("%d samples, %d without an answer: %s", len(samples), sum(counts.values()), counts)
    return Predicted(samples, answered[PREDICTIONS], answered.get(WRONG_QUERY_PREDICTIONS), rejected)


def _predict_files(config: EvaluationConfig, asked: dict[str, list[GroundingSample]]) -> dict[str, list[Prediction]]:
    """File name -> its predictions; the model is loaded only where something is to be asked."""
    out = Path(config.out)
    if not any(batches_to_ask(samples, out / name, config.batch_size) for name, samples in asked.items()):
        return {name: finish(samples, out / name) for name, samples in asked.items()}
    from evaluation.predictor import make_predictor

    predictor = make_predictor(config)
    return {
        name: predict_all(predictor, samples, out / name, batch_size=config.batch_size, title=Path(name).stem)
        for name, samples in asked.items()
    }


def count_failures(predictions: Iterable[Prediction]) -> dict[str, int]:
    """How many there are of each kind of failure: the part of `failure` before a colon, the most frequent first."""
    return dict(Counter(p.failure.partition(":")[0] for p in predictions if p.failure).most_common())


class AnswersInTwoSteps(Protocol):
    """What `predict_all` needs of evaluation.predictor.Predictor."""

    def encode(self, samples: Sequence[GroundingSample], /) -> list: ...

    def answer(self, samples: Sequence[GroundingSample], questions: list, /) -> list[Prediction]: ...


def predict_all(
    predictor: AnswersInTwoSteps, samples: Sequence[GroundingSample], path: Path, *, batch_size: int, title: str
) -> list[Prediction]:
    """Predictions in the order of the samples, written to `path`; a killed run goes on from its last whole batch.

    Until all are there they lie beside it, batch by batch. Where the last run could not read a video its batch is asked
    again, whole: the last digits of a box depend on what else is in the batch. The next batch is read and encoded while
    the model answers; no more than two are in memory.
    """
    batches = batches_to_ask(samples, path, batch_size)
    kept = len(samples) - sum(map(len, batches))
    started = time.perf_counter()
    with tqdm(total=len(samples), initial=kept, desc=title, unit="sample") as bar, _partial(path).open("a") as stream:
        for batch, questions in prefetch(batches, predictor.encode, depth=1):
            predictions = predictor.answer(batch, questions.result())
            stream.writelines(map(prediction_line, predictions))
            stream.flush()
            bar.update(len(predictions))
            ended = time.perf_counter()
            _note_speed(path, num_samples=len(batch), seconds=ended - started)
            started = ended
    return finish(samples, path)


def _note_speed(path: Path, *, num_samples: int, seconds: float) -> None:
    with path.with_name(SPEED).open("a") as stream:
        row = {"predictions": path.name, "samples": num_samples, "seconds": round(seconds, 4)}
        stream.write(json.dumps(row) + "\n")


def seconds_per_sample(path: Path) -> float | None:
    """Of the batches that were answered for a predictions file, reading the videos included; None where none was noted."""
    rows = [row for row in read_metrics(path.with_name(SPEED)) if row["predictions"] == path.name]
    count = sum(row["samples"] for row in rows)
    return sum(row["seconds"] for row in rows) / count if count else None


def batches_to_ask(samples: Sequence[GroundingSample], path: Path, batch_size: int) -> list[Sequence[GroundingSample]]:
    """The batches without predictions on disk, or with a video that could not be read. Raises PredictionError.

    Cuts the line that was being written off the file beside `path`, and the batches that are to be asked out of it.
    """
    before, aside = _written(path), _partial(path)
    batches = [samples[start : start + batch_size] for start in range(0, len(samples), batch_size)]
    is_whole = [all(s.sample_id in before and could_be_read(before[s.sample_id]) for s in batch) for batch in batches]
    if aside.exists():
        kept = [before[s.sample_id] for batch, whole in zip(batches, is_whole, strict=True) if whole for s in batch]
        write_predictions(aside, kept)
    return [batch for batch, whole in zip(batches, is_whole, strict=True) if not whole]


def finish(samples: Sequence[GroundingSample], path: Path) -> list[Prediction]:
    """Put what lies beside `path` into it, in the order of the samples. -> all of its predictions."""
    if _partial(path).exists():
        predictions = _written(path)
        # Not into `path` itself: what is written atomically is written beside it first, over the only copy.
        write_predictions(_partial(path), (predictions[sample.sample_id] for sample in samples))
        _partial(path).replace(path)
    return read_predictions(path)


def _written(path: Path) -> dict[str, Prediction]:
    """Sample id -> its newest prediction, of `path` and of what lies beside it. Raises PredictionError."""
    if _partial(path).exists():
        content = _partial(path).read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            write_atomically(_partial(path), whole.decode())
    files = [file for file in (path, _partial(path)) if file.exists()]
    return {prediction.sample_id: prediction for file in files for prediction in iter_predictions(file)}


def _partial(path: Path) -> Path:
    return path.with_name(f"{PARTIAL}{path.name}")


def with_wrong_queries(samples: Sequence[GroundingSample], *, seed: int) -> list[GroundingSample]:
    """Every video with the query of another sample of its task, drawn among the differing ones: the control for
    reading it. Raises ConfigError where a task has a single query."""
    rng = np.random.default_rng([seed, 7])
    places: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    queries: dict[str, list[str]] = defaultdict(list)
    for sample in samples:
        places[sample.task][sample.query].append(len(queries[sample.task]))
        queries[sample.task].append(sample.query)
    if single := [task for task, of_task in places.items() if len(of_task) < 2]:
        raise ConfigError(f"wrong_query: the control needs at least two different queries, task {single[0]!r} has one")
    wrong = []
    for sample in samples:
        same = places[sample.task][sample.query]
        number = int(rng.integers(len(queries[sample.task]) - len(same)))
        wrong.append(replace(sample, query=queries[sample.task][_skip(number, same)]))
    return wrong


def _skip(number: int, taken: Sequence[int]) -> int:
    """The `number`-th of 0, 1, 2, ... that is not in `taken` (ascending)."""
    for place in taken:
        number += place <= number
    return number


if __name__ == "__main__":
    main()
