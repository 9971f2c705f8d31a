"""NExT-GQA (2309.01327): multiple-choice questions with the moments that show the answer.

    {annotations}/{split}.csv and gsub_{split}.json (doc-doc/NExT-GQA, datasets/nextgqa), splits val and test
      video_id,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4
      2435100235,1906,640,480,how does the man cycling try to sell the watch to the man in the trishaw,show him the watch,
        7,CH,give him catalogue,show him a video,show him the watch,dismount his bicycle,give him the watch strap
      {"2435100235": {"duration": 64, "location": {"0": [[13.0, 17.6]], "7": [[20.9, 22.7], [23.8, 26.0], [34.4, 35.8],
        [50.5, 57.5], [58.5, 63.6]]}, "fps": 29.97002997002997}, ...}
    or {annotations}/{split}.json or nextgqa_{split}.json (OpenGVLab/VideoChat-R1), one record of the same in it
      [{"id": 7, "video": "2435100235.mp4", "question": "how does the man cycling ...", "duration": 64, "type": "CH",
        "options": ["(A) give him catalogue", "(B) show him a video", "(C) show him the watch", ...],
        "glue": [[20.9, 22.7], [23.8, 26.0], ...], "answer": "(C)"}, ...]

A sample is a qa sample: `options` without their letters, `choice` the letter of the right one, `windows_sec` the moments
in seconds of the video, no span. The video is `2435100235.mp4` in any sub-folder of `videos` (they are VidOR's). Traps: the answer in the table is a text, which must
be among the options once; durations are rounded, so that a moment may end later, flagged "end_past_duration".
"""

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from configs.sources import NextgqaSource
from data.annotations import FieldError, RawRecord, Split, parse_raw, read_json
from data.raw_fields import SecondsPair, Text
from data.sources.files import only_file, read_csv
from data.sources.seconds import DurationSec, Sentence, add_unprobed
from data.sources.videos import VideoFolder

LETTERED = re.compile(r"\(([A-Z])\)\s*(.*\S)\s*", re.DOTALL)
Windows = Annotated[list[SecondsPair], Field(min_length=1)]


class Question(RawRecord):
    """A record of the JSON form."""

    id: Text | int
    video: Text
    question: Sentence
    options: Annotated[list[Text], Field(min_length=2, max_length=26)]
    duration: DurationSec
    glue: Windows
    answer: Text


class Row(RawRecord):
    """A row of the table."""

    video_id: Text
    question: Sentence
    answer: Sentence
    qid: Text
    a0: Sentence
    a1: Sentence
    a2: Sentence
    a3: Sentence
    a4: Sentence

    @property
    def options(self) -> tuple[str, ...]:
        """The texts to choose from."""
        return self.a0, self.a1, self.a2, self.a3, self.a4


class VideoMoments(RawRecord):
    """A video of gsub_{split}.json; location: question id -> windows."""

    duration: DurationSec
    location: dict[str, Any]


class QuestionMoments(RawRecord):
    """The windows of one question."""

    location: Windows


def load(config: NextgqaSource, split: str) -> Split:
    """All questions of a split. Raises AnnotationError."""
    path = only_file(config.annotations, (f"{split}.csv", f"{split}.json", f"nextgqa_{split}.json"))
    return _read_table(path, config, split) if path.suffix == ".csv" else _read_list(path, config, split)


def _read_list(path: Path, config: NextgqaSource, split_name: str) -> Split:
    split, videos = Split(), VideoFolder(config.videos)
    for index, raw in enumerate(read_json(path, list)):
        with split.record(path, f"record {index}"):
            record = parse_raw(Question, raw)
            options = strip_letters(record.options)
            add_unprobed(
                split,
                windows_sec=record.glue,
                duration_sec=record.duration,
                field="glue",
                sample_id=f"{config.type}-{split_name}-{Path(record.video).stem}-{record.id}",
                query=record.question,
                video_path=videos.path_of(
                    record.video if Path(record.video).suffix else f"{record.video}.mp4", field="video"
                ),
                options=options,
                choice=letter_in(record.answer, len(options)),
                **_constant(config),
            )
    return split


def _read_table(path: Path, config: NextgqaSource, split_name: str) -> Split:
    moments_path = path.with_name(f"gsub_{split_name}.json")
    split, videos, moments = Split(), VideoFolder(config.videos), read_json(moments_path, dict)
    for index, raw in enumerate(read_csv(path, Row.model_fields)):
        with split.record(path, f"record {index}"):
            row = parse_raw(Row, raw)
            video_path = videos.path_of(f"{row.video_id}.mp4", field="video_id")
            choice = letter_of(row.answer, row.options)
            with split.part(moments_path, f"{row.video_id}, question {row.qid}"):
                video = parse_raw(VideoMoments, moments[row.video_id])
                add_unprobed(
                    split,
                    windows_sec=parse_raw(QuestionMoments, {"location": video.location[row.qid]}).location,
                    duration_sec=video.duration,
                    field="location",
                    sample_id=f"{config.type}-{split_name}-{row.video_id}-{row.qid}",
                    query=row.question,
                    video_path=video_path,
                    options=row.options,
                    choice=choice,
                    **_constant(config),
                )
    return split


def strip_letters(options: list[str]) -> tuple[str, ...]:
    """["(A) red", "(B) blue"] -> ("red", "blue"). Raises FieldError where the letters are not A, B, ..."""
    texts = []
    for index, option in enumerate(options):
        match, letter = LETTERED.fullmatch(option), _letter(index)
        if not match or match[1] != letter:
            raise FieldError("options", f"expected '({letter}) <text>', got {option[:80]!r}")
        texts.append(match[2])
    return tuple(texts)


def letter_in(answer: str, num_options: int) -> str:
    """ "(C)" or "C" -> "C". Raises FieldError where that is not the letter of an option."""
    letter, letters = answer.strip().removeprefix("(").removesuffix(")"), [_letter(i) for i in range(num_options)]
    if letter not in letters:
        raise FieldError("answer", f"expected ({letters[0]}) to ({letters[-1]}), got {answer[:80]!r}")
    return letter


def letter_of(answer: str, options: tuple[str, ...]) -> str:
    """The letter of the option that is the answer. Raises FieldError where that is none, or several."""
    if options.count(answer) != 1:
        raise FieldError("answer", f"expected one of the options, once, got {answer[:80]!r} of {options}")
    return _letter(options.index(answer))


def _letter(index: int) -> str:
    return chr(ord("A") + index)


def _constant(config: NextgqaSource) -> dict[str, Any]:
    return {"task": "qa", "query_type": "interrogative", "source": config.type}
