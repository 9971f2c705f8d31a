"""What every annotation source returns, and how it fails: file, record and field of each record that cannot be used.

A source is a function `load(config, split) -> Split`. It reads its file with `read_json` or `read_json_lines` and each
record inside `split.record(...)`, which turns what goes wrong there into one AnnotationError among `split.rejected`,
so that the rest of the file is still read.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from data.types import GroundingSample


class AnnotationError(ValueError):
    """An annotation file or record cannot be used; the message names the file, the record, the field and the cause."""

    def __init__(self, path: Path | str, cause: str, *, record: str = "", field: str = "") -> None:
        super().__init__(path, cause, record, field)
        self.path, self.cause, self.record, self.field = str(path), cause, record, field

    def __str__(self) -> str:
        place = [self.path, *([self.record] if self.record else []), *([f"field {self.field}"] if self.field else [])]
        return f"{', '.join(place)}: {self.cause}"


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

    samples: usable ones, ids unique. rejected: one error per record (or sentence) that is not. flags: facts about
    samples that are kept, such as {"end_past_duration": [sample ids]}.
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
        try:
            yield
        except AnnotationError as error:
            self.rejected.append(error)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
            self.rejected.append(_as_annotation_error(error, path, name))


def _as_annotation_error(error: Exception, path: Path | str, name: str) -> AnnotationError:
    if isinstance(error, ValidationError):
        detail = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in detail["loc"])
        return AnnotationError(path, f"{detail['msg']}, got {_short(detail.get('input'))}", record=name, field=place)
    if isinstance(error, FieldError):
        return AnnotationError(path, error.cause, record=name, field=error.field)
    if isinstance(error, KeyError):
        return AnnotationError(path, "is missing", record=name, field=str(error.args[0]))
    return AnnotationError(path, str(error) or repr(error), record=name)


def _short(value: Any, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}..."


def parse_raw(schema: type[R], record: Any) -> R:
    """A published record, checked; inside `Split.record` its ValidationError becomes an AnnotationError."""
    return schema.model_validate(record)


def read_text(path: Path) -> str:
    """The file as UTF-8. Raises AnnotationError."""
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise AnnotationError(path, "no such annotation file") from None
    except IsADirectoryError:
        raise AnnotationError(path, "expected a file, found a folder") from None
    except UnicodeDecodeError as error:
        raise AnnotationError(path, f"not UTF-8 at byte {error.start}") from None


def read_json(path: Path, expected: type) -> Any:
    """A whole JSON file whose top is a `list` or a `dict`. Raises AnnotationError."""
    try:
        tree = json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise AnnotationError(path, f"not valid JSON: {error}") from None
    if not isinstance(tree, expected):
        raise AnnotationError(path, f"expected a {expected.__name__}, found a {type(tree).__name__}")
    return tree


def parse_json_line(line: str) -> dict[str, Any]:
    """One line of a JSONL file. Raises FieldError, for use inside `Split.record`."""
    try:
        record = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise FieldError("(line)", f"not valid JSON: {error}") from None
    if not isinstance(record, dict):
        raise FieldError("(line)", f"expected an object, found a {type(record).__name__}")
    return record


def media_path(root: Path | str, relative: str) -> str:
    """`root / relative`, which must stay inside of root. Raises FieldError."""
    pure = PurePosixPath(relative)
    if pure.is_absolute() or ".." in pure.parts or not relative.strip() or "\0" in relative:
        raise FieldError("video", f"expected a path inside of the video folder, got {relative!r}")
    return str(Path(root) / relative)
