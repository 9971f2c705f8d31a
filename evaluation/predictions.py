"""Answers on disk: one JSON object a line, read and written without any model code.

    {"sample_id": "v0001-0", "query": "the red circle", "text": "<time> 1.5 - 5.0 </time>", "failure": "",
     "span": [12, 40], "boxes": {"12": [3.0, 4.0, 20.0, 21.0], "16": [...]}, "boxes_in_true_span": {...},
     "task": "stvg", "span_sec": [1.5, 5.0], "choice": null, "windows_sec": [], "trim": "off", "num_tokens": 16}

Only `sample_id` is required: a file of another system's answers can be scored too.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from configs.checkpoints import write_atomically
from data.types import BoxPx, Task

VIDEO_FAILURE, PROMPT_FAILURE = "video", "prompt"
"""How the failure of a sample begins that the model was not asked about."""

Frame = Annotated[int, Field(ge=0, lt=2**23)]
"""Of a video; 2^23 are 77 hours at 30 fps, and all that float32 counts exactly."""


class ScoreError(ValueError):
    """Predictions and annotations do not belong together, or a sample has no truth to be scored against."""


class PredictionError(ValueError):
    """A line of a predictions file cannot be used; the message names file, line, field and cause."""

    def __init__(self, path: Path | str, line: int, cause: str) -> None:
        super().__init__(path, line, cause)
        self.path, self.line, self.cause = str(path), line, cause

    def __str__(self) -> str:
        return f"{self.path}, line {self.line}: {self.cause}"


@dataclass(frozen=True)
class Prediction:
    """One answer. Frames are absolute frames of the video file, never milliseconds; `span` is half-open; boxes are xyxy in pixels of the video.

    failure: why there is no answer ("" when there is one): "grammar" or "reversed" (data/answers.py), "outside the
    clip", "not an option", or, where the model was not asked, "video: <cause>" or "prompt: <cause>".
    span: the answered interval in frames (stvg, temporal). boxes: at frames inside of it, others are ignored; of a rec
    sample, at its one frame. boxes_in_true_span: for the gt-conditioned metric only. span_sec: the interval in seconds of the clip
    as it was written, neither rounded to frames nor cut at the clip's end. choice: the letter of a qa answer.
    windows_sec: several answers to a temporal sample as (start, end, score), for mAP; read from other systems' files.
    trim: what the presence of the target made of the text's interval, which is `span_sec`, in `span`
    (model/presence_trim.py; configs/evaluation.py: `answering`). num_tokens: that the model wrote, the end token included.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    sample_id: str
    query: str = ""
    text: str = ""
    failure: str = ""
    span: tuple[Frame, Frame] | None = None
    boxes: dict[Frame, BoxPx] = field(default_factory=dict)
    boxes_in_true_span: dict[Frame, BoxPx] = field(default_factory=dict)
    task: Task = "stvg"
    span_sec: tuple[float, float] | None = None
    choice: str | None = None
    windows_sec: tuple[tuple[float, float, float], ...] = ()
    trim: Literal["off", "kept", "moved", "absent"] = "off"
    num_tokens: Annotated[int, Field(ge=0)] | None = None


_LINE = TypeAdapter(Prediction)


def read_predictions(path: Path) -> list[Prediction]:
    """All lines of a file, in order. Raises PredictionError for a line that is none, or whose id was there before."""
    return list(iter_predictions(path))


def iter_predictions(path: Path) -> Iterator[Prediction]:
    """`read_predictions` one at a time, for a file whose boxes are more than should be in memory at once."""
    seen: set[str] = set()
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            prediction = _parse(line, path, number)
            if prediction.sample_id in seen:
                raise PredictionError(path, number, f"sample_id {prediction.sample_id!r} is there twice")
            seen.add(prediction.sample_id)
            yield prediction


def _parse(line: bytes, path: Path, number: int) -> Prediction:
    try:
        return _LINE.validate_json(line)
    except ValidationError as error:
        detail = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in detail["loc"])
        raise PredictionError(path, number, f"{f'field {place}: ' if place else ''}{detail['msg']}") from None


def was_asked(prediction: Prediction) -> bool:
    """Whether the model was asked: the video could be read and the prompt was not too long."""
    return prediction.failure.partition(":")[0] not in (VIDEO_FAILURE, PROMPT_FAILURE)


def could_be_read(prediction: Prediction) -> bool:
    """Whether the video could be read, as far as anyone tried."""
    return prediction.failure.partition(":")[0] != VIDEO_FAILURE


def prediction_line(prediction: Prediction) -> str:
    """The line of one prediction, with its end. Raises ValueError for a number that is not finite."""
    try:
        return json.dumps(asdict(prediction), allow_nan=False) + "\n"
    except ValueError:
        raise ValueError(f"the prediction of sample {prediction.sample_id!r} has a number that is not finite") from None


def write_predictions(path: Path, predictions: Iterable[Prediction]) -> None:
    """Write a file that `read_predictions` reads back, or leave the old one."""
    write_atomically(path, "".join(map(prediction_line, predictions)))
