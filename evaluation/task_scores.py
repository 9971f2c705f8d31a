"""Predictions of any tasks beside their samples -> one row of numbers for each sample, in the order of the samples.

A failed answer scores 0 and stays in the denominator, and so does a sample that nobody answered. Predictions are taken
one at a time, so that their boxes are never all in memory.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from data.answers import ParseFailure, parse_answer
from data.types import GroundingSample, Task
from evaluation.chunks import Chunk
from evaluation.highlights import has_ranking, map_columns
from evaluation.metrics import failure_of, score_chunk
from evaluation.predictions import Prediction, ScoreError
from evaluation.protocols import Dataset, Protocol
from evaluation.rec_qa import qa_columns, rec_columns
from evaluation.temporal import temporal_columns

NO_PREDICTION = "no prediction"
Columns = dict[str, np.ndarray]


@dataclass(frozen=True)
class TaskScores:
    """Of the samples of one task: N ids, N query types, columns of N numbers, and why samples have no answer."""

    ids: list[str]
    query_types: np.ndarray
    columns: Columns
    failures: dict[str, str]

    def groups(self) -> dict[str, np.ndarray]:
        """Masks: all samples, and those of each query type where there are both."""
        types = sorted(set(self.query_types.tolist()))
        masks = {"all": np.ones(len(self.ids), dtype=bool)}
        return masks | ({name: self.query_types == name for name in types} if len(types) > 1 else {})


def score_tasks(
    samples: Sequence[GroundingSample],
    predictions: Iterable[Prediction],
    *,
    protocol: Protocol,
    dataset: Dataset | None = None,
) -> dict[Task, TaskScores]:
    """Score each task by its own metrics; `protocol` is that of stvg. Raises ScoreError."""
    _check_labelled(samples)
    scorers = {
        task: _Scorer(task, [sample for sample in samples if sample.task == task], protocol, dataset)
        for task in get_args(Task)
        if any(sample.task == task for sample in samples)
    }
    by_id = {sample.sample_id: sample for sample in samples}
    unknown, answered = [], set()
    for prediction in predictions:
        sample = by_id.get(prediction.sample_id)
        if sample is None:
            unknown.append(prediction.sample_id)
            continue
        if prediction.sample_id in answered:
            raise ScoreError(f"two predictions for sample {prediction.sample_id!r}")
        answered.add(prediction.sample_id)
        scorers[sample.task].add(sample, prediction)
    if unknown:
        raise ScoreError(f"{len(unknown)} predictions are for samples that the annotations do not have: {unknown[:5]}")
    for sample in samples:
        if sample.sample_id not in answered:
            scorers[sample.task].add(sample, Prediction(sample.sample_id, failure=NO_PREDICTION))
    return {task: scorer.finish() for task, scorer in scorers.items()}


def _check_labelled(samples: Sequence[GroundingSample]) -> None:
    unlabelled = [sample.sample_id for sample in samples if not _is_labelled(sample)]
    if unlabelled:
        raise ScoreError(f"{len(unlabelled)} samples have no true answer to be scored against: {unlabelled[:5]}")
    if several := [sample.sample_id for sample in samples if sample.more_tubes]:
        raise ScoreError(f"expected one tube a sample, {len(several)} samples have more_tubes: {several[:5]}")


def _is_labelled(sample: GroundingSample) -> bool:
    if sample.task == "qa":
        return sample.choice is not None
    if sample.task == "temporal":
        return bool(sample.windows_sec) or sample.span is not None
    boxes = sample.boxes_xyxy_px or ()
    return sample.span is not None and (any(boxes) or sample.task == "stvg")


class _Scorer:
    """Scores the samples of a task chunk by chunk, in whatever order they come."""

    def __init__(
        self, task: Task, samples: Sequence[GroundingSample], protocol: Protocol, dataset: Dataset | None
    ) -> None:
        self.task, self.samples = task, samples
        self.protocol: Protocol = protocol
        self.dataset: Dataset | None = dataset
        self.position = {sample.sample_id: position for position, sample in enumerate(samples)}
        self.has_rankings = any(map(has_ranking, samples))
        self.columns: Columns = {}
        self.failures: dict[str, str] = {}
        self.waiting = Chunk()

    def add(self, sample: GroundingSample, prediction: Prediction) -> None:
        if not self.waiting.has_room_for(sample, prediction):
            self._score()
        self.waiting.add(sample, prediction)

    def finish(self) -> TaskScores:
        self._score()
        ids = [sample.sample_id for sample in self.samples]
        failures = {sample_id: self.failures[sample_id] for sample_id in ids if sample_id in self.failures}
        return TaskScores(ids, np.array([s.query_type for s in self.samples]), self.columns, failures)

    def _score(self) -> None:
        if not self.waiting.pairs:
            return
        samples, predictions = zip(*self.waiting.pairs, strict=True)
        positions = [self.position[sample.sample_id] for sample in samples]
        for name, values in self._columns(samples, predictions).items():
            self.columns.setdefault(name, np.zeros(len(self.samples)))[positions] = values
        for sample, prediction in self.waiting.pairs:
            if reason := self._failure(sample, prediction):
                self.failures[sample.sample_id] = reason
        self.waiting = Chunk()

    def _columns(self, samples: Sequence[GroundingSample], predictions: Sequence[Prediction]) -> Columns:
        if self.task == "stvg":
            scores, coverage = score_chunk(self.protocol, samples, predictions, dataset=self.dataset)
            return scores.columns() | {"coverage": coverage}
        if self.task == "temporal":
            ranked = map_columns(samples, predictions) if self.has_rankings else {}
            return temporal_columns(samples, predictions) | ranked
        return (rec_columns if self.task == "rec" else qa_columns)(samples, predictions)

    def _failure(self, sample: GroundingSample, prediction: Prediction) -> str:
        if self.task == "stvg":
            return failure_of(sample, prediction)
        if self.columns["parse_rate"][self.position[sample.sample_id]]:
            return ""
        answer = parse_answer(sample, prediction.text)
        return prediction.failure or (answer.reason if isinstance(answer, ParseFailure) else "no answer")
