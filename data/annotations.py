"""What every annotation source returns, and how it fails: file, record and field of each record that cannot be used.

A source is a function `load(config, split) -> Split`. It reads its file with `read_json`, `read_json_pairs` or
`json_lines` and each record inside `split.record(...)`, which turns what goes wrong there into one AnnotationError
among `split.rejected`, so that the rest of the file is still read. The types of raw fields are in data/raw_fields.py.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from reprlib import Repr
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from data.types import FrameSpan, GroundingSample, SampleError

_repr = Repr()
_repr.maxlevel, _repr.maxstring, _repr.maxother, _repr.maxlong = 2, 80, 80, 40


class AnnotationError(ValueError):
    """An annotation file or record cannot be used; the message names the file, the record, the field and the cause."""

    def __init__(self, path: Path | str, cause: str, *, record: str = "", field: str = "") -> None:
        super().__init__(path, cause, record, field)
        self.path, self.cause, self.record, self.field = str(path), cause, record, field

    def __str__(self) -> str:
        place = [self.path, *([self.record] if self.record else []), *([f"field {self.field}"] if self.field else [])]
        return f"{', '.join(place)}: {self.cause}"


class MissingFileError(AnnotationError):
    """There is no annotation file of that split."""


WHOLE, FILE = "(record)", "(file)"
"""Where an error says which field, and it is the record as a whole, or all of another file that it needs."""


class FieldError(ValueError):
    """A field of a record holds what it must not; raised inside `Split.record`."""

    def __init__(self, field: str, cause: str) -> None:
        super().__init__(field, cause)
        self.field, self.cause = field, cause

    def __str__(self) -> str:
        return f"field {self.field}: {self.cause}"


class RawRecord(BaseModel):
    """Base of the published layouts: exact types, finite numbers, unknown keys ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False)


R = TypeVar("R", bound=RawRecord)


@dataclass
class Split:
    """What a source read of one split.

    samples: usable ones, ids unique. rejected: one error per record, or sentence of a record, that is not. flags:
    facts about samples that are kept, such as {"end_past_duration": [sample ids]}; a name that begins with `record_`
    lists records. num_records: read, whatever came of them; a record may hold several sentences.
    """

    samples: list[GroundingSample] = field(default_factory=list)
    rejected: list[AnnotationError] = field(default_factory=list)
    flags: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    num_records: int = 0
    _ids: set[str] = field(default_factory=set, repr=False)

    def add(self, sample: GroundingSample, *flags: str) -> None:
        """Keep a sample. Raises FieldError where its id was there before."""
        if sample.sample_id in self._ids:
            raise FieldError("sample_id", f"{sample.sample_id!r} is there twice")
        self._ids.add(sample.sample_id)
        self.samples.append(sample)
        for flag in flags:
            self.flags[flag].append(sample.sample_id)

    @contextmanager
    def record(self, path: Path | str, name: str) -> Iterator[None]:
        """Count a record; what is wrong with it becomes one of `rejected`."""
        self.num_records += 1
        with self.part(path, name):
            yield

    @contextmanager
    def part(self, path: Path | str, name: str) -> Iterator[None]:
        """A part of a record, such as one sentence: what is wrong with it costs this part only."""
        try:
            yield
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
            self.rejected.append(_as_annotation_error(error, path, name))

    def extend(self, other: "Split") -> None:
        """Take over what another Split holds of the same split."""
        for sample in other.samples:
            self.add(sample)
        for flag, names in other.flags.items():
            self.flags[flag].extend(names)
        self.rejected.extend(other.rejected)
        self.num_records += other.num_records

    def flag_duplicates(self) -> None:
        """Flag as `duplicate` each sample whose video, sentence and span an earlier one has."""
        seen = set()
        for sample in self.samples:
            key = (sample.video_path, sample.query, sample.span)
            if key in seen:
                self.flags["duplicate"].append(sample.sample_id)
            seen.add(key)


def _as_annotation_error(error: Exception, path: Path | str, name: str) -> AnnotationError:
    if isinstance(error, AnnotationError):
        return AnnotationError(error.path, error.cause, record=error.record or name, field=error.field or FILE)
    if isinstance(error, ValidationError):
        return _as_annotation_error(_as_field_error(error), path, name)
    if isinstance(error, FieldError | SampleError):
        return AnnotationError(path, error.cause, record=name, field=error.field)
    if isinstance(error, KeyError):
        return AnnotationError(path, "is missing", record=name, field=str(error.args[0]))
    return AnnotationError(path, str(error) or repr(error), record=name, field=WHOLE)


def _as_field_error(error: ValidationError) -> FieldError:
    """The first complaint of pydantic: where, what is expected, what was found."""
    detail = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in detail["loc"]) or WHOLE
    if detail["type"] == "missing":
        return FieldError(place, "is missing")
    return FieldError(place, f"{detail['msg']}, got {_repr.repr(detail.get('input'))}")


def parse_raw(schema: type[R], record: Any, *, at: str = "") -> R:
    """A published record, or the part of one that is `at` a field, checked. Raises FieldError."""
    try:
        return schema.model_validate(record)
    except ValidationError as error:
        found = _as_field_error(error)
        if at and found.field == WHOLE:
            raise FieldError(at, found.cause) from None
        raise FieldError(f"{at}.{found.field}" if at else found.field, found.cause) from None


@contextmanager
def errors_of(path: Path | str) -> Iterator[None]:
    """What is wrong inside is wrong with this file, not with the record that led to it: a FieldError becomes an
    AnnotationError."""
    try:
        yield
    except FieldError as error:
        raise AnnotationError(path, error.cause, field=error.field) from None


def frame_span(field: str, start: int, end: int, *, within: FrameSpan | None = None) -> FrameSpan:
    """Frames start .. end - 1. Raises FieldError where that is nothing, or leaves `within`."""
    if not 0 <= start < end:
        raise FieldError(field, f"expected frames 0 <= start < end (exclusive), got start {start}, end {end}")
    if within and not within.start <= start < end <= within.end:
        raise FieldError(field, f"expected frames inside of [{within.start}, {within.end}), got [{start}, {end})")
    return FrameSpan(start, end)


def read_text(path: Path) -> str:
    """The file as UTF-8. Raises AnnotationError."""
    try:
        return read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise AnnotationError(path, f"not UTF-8 at byte {error.start}") from None


def read_bytes(path: Path) -> bytes:
    """The file. Raises AnnotationError."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise MissingFileError(path, "no such annotation file") from None
    except IsADirectoryError:
        raise AnnotationError(path, "expected a file, found a folder") from None
    except OSError as error:
        raise AnnotationError(path, f"cannot be read: {error.strerror}") from None


def read_json(path: Path, expected: type) -> Any:
    """A whole JSON file whose top is a `list` or a `dict`. Raises AnnotationError, for a key that is repeated too."""

    def unique(found: list[tuple[str, Any]]) -> dict[str, Any]:
        entries = dict(found)
        if len(entries) != len(found):
            repeated = next(key for number, (key, _) in enumerate(found) if key in dict(found[:number]))
            raise AnnotationError(path, "the key is there twice in one object", field=repeated)
        return entries

    tree = _loads(path, object_pairs_hook=unique)
    if not isinstance(tree, expected):
        raise AnnotationError(path, f"expected a {expected.__name__}, found a {type(tree).__name__}")
    return tree


def read_json_pairs(path: Path) -> list[tuple[str, Any]]:
    """Keys and values of the object that is a JSON file, in order; a key that is there twice comes twice.

    Raises AnnotationError.
    """
    pairs: list[tuple[str, Any]] = []

    def keep_last(found: list[tuple[str, Any]]) -> dict[str, Any]:
        # Objects end from the inside out, so the last one is the whole file.
        nonlocal pairs
        pairs = found
        return dict(found)

    tree = _loads(path, object_pairs_hook=keep_last)
    if not isinstance(tree, dict):
        raise AnnotationError(path, f"expected a dict, found a {type(tree).__name__}")
    return pairs


def _loads(path: Path, **options: Any) -> Any:
    try:
        return json.loads(read_text(path), **options)
    except AnnotationError:
        raise
    except (ValueError, RecursionError) as error:  # a ValueError too for integers of more than 4300 digits
        raise AnnotationError(path, f"not valid JSON: {error}") from None


def json_lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """("line 1", its bytes), ... without blank lines, to be parsed inside `Split.record`. Raises AnnotationError."""
    for number, line in enumerate(read_bytes(path).split(b"\n"), start=1):
        if line.strip():
            yield f"line {number}", line


def parse_json_line(line: str | bytes) -> dict[str, Any]:
    """One line of a JSONL file. Raises FieldError, for use inside `Split.record`."""
    try:
        record = json.loads(line if isinstance(line, str) else line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise FieldError("(line)", f"not UTF-8 at byte {error.start}") from None
    except (ValueError, RecursionError) as error:
        raise FieldError("(line)", f"not valid JSON: {error}") from None
    if not isinstance(record, dict):
        raise FieldError("(line)", f"expected an object, found a {type(record).__name__}")
    return record


def media_path(root: Path | str, relative: str, *, field: str = "video") -> str:
    """`root / relative`, which must stay inside of root. Raises FieldError."""
    pure = PurePosixPath(relative)
    if pure.is_absolute() or ".." in pure.parts or not relative.strip() or not _is_file_name(relative):
        raise FieldError(field, f"expected a path inside of the video folder, got {_repr.repr(relative)}")
    return str(Path(root) / relative)


def _is_file_name(text: str) -> bool:
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False
