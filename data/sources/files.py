"""Files as data sets publish them: under one of several names, and as tables."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from data.annotations import AnnotationError, MissingFileError, read_text


def only_file(folder: Path | str, names: Sequence[str]) -> Path:
    """The one of these files that is in the folder. Raises MissingFileError; AnnotationError for a choice."""
    found = [name for name in names if (Path(folder) / name).is_file()]
    if not found:
        raise MissingFileError(folder, f"expected one of {', '.join(names)}")
    if len(found) > 1:
        raise AnnotationError(folder, f"expected one of {', '.join(names)}, found {', '.join(found)}")
    return Path(folder) / found[0]


def read_csv(path: Path, columns: Iterable[str]) -> list[dict[str, str | None]]:
    """Rows of a table that has these columns; a short row lacks values (None). Raises AnnotationError."""
    rows = csv.DictReader(io.StringIO(read_text(path), newline=""))
    try:
        missing = [column for column in columns if column not in (rows.fieldnames or ())]
        if missing:
            raise AnnotationError(path, "no such column", record="header", field=missing[0])
        return list(rows)
    except csv.Error as error:
        raise AnnotationError(path, f"not a table: {error}", record=f"line {rows.line_num}") from None
