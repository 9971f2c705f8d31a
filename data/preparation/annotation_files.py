"""Which annotations a folder is prepared from: one digest of their files, so that changed ones are not taken for done."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from configs.base import Config
from data.annotations import AnnotationError

FOLDERS = ("annotations", "root", "tracks")
"""Fields of a source that name a folder with annotation files."""
SUFFIXES = (".json", ".jsonl", ".csv", ".txt", ".p", ".parquet")
CONTENT_LIMIT_BYTES = 2**30
"""Most that is read through, a few seconds; files that are more together are told by their sizes and times."""


def digest_of_annotations(source: Config, *, out: Path | str, content_limit_bytes: int = CONTENT_LIMIT_BYTES) -> str:
    """Of every annotation file in the folders of a source, those of other splits too, without what `out` holds.

    -> "sha256 of contents ..." or, where these are larger than the limit, "sha256 of sizes and times ...".
    Raises AnnotationError for a file that cannot be read.
    """
    files = list(_annotation_files(source, Path(out).resolve()))
    try:
        reads_contents = sum(path.stat().st_size for _, path in files) <= content_limit_bytes
        state_of = _content if reads_contents else _size_and_time
        digest = hashlib.sha256("".join(f"{name}\0{state_of(path)}\n" for name, path in files).encode())
    except OSError as error:
        raise AnnotationError(str(error.filename), f"cannot be read: {error.strerror}") from None
    return f"sha256 of {'contents' if reads_contents else 'sizes and times'} {digest.hexdigest()}"


def _annotation_files(source: Config, out: Path) -> Iterator[tuple[str, Path]]:
    """-> name in its folder, with that of the field; path."""
    for field in FOLDERS:
        root = getattr(source, field, "")
        for folder, inner, names in os.walk(root) if root else ():
            inner[:] = sorted(name for name in inner if (Path(folder) / name).resolve() != out)
            for name in sorted(names):
                path = Path(folder) / name
                if path.suffix in SUFFIXES and path.is_file():
                    yield f"{field}/{path.relative_to(root).as_posix()}", path


def _content(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _size_and_time(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"
