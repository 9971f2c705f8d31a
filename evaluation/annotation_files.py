"""Annotations on the command line, of any source; no video is looked at.

--annotations is a JSONL file (data/sources/jsonl.py), a folder that `data.prepare` wrote (with --split), or, with
--source, a folder of published annotation files, whose other settings (configs/sources.py) follow as key=value.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from configs.base import Config, ConfigError, parse_config
from configs.sources import MixtureSource, Source
from data.annotations import MissingFileError, Split
from data.sources import SOURCES, jsonl
from data.sources.prepared import HOW


class _Asked(Config):
    source: Source


def add_file_arguments(parser: argparse.ArgumentParser) -> None:
    """--predictions, --annotations, --source, --split and key=value."""
    parser.add_argument("--predictions", required=True, type=Path, help="see evaluation/predictions.py")
    parser.add_argument(
        "--annotations",
        required=True,
        type=Path,
        help="a JSONL file, a folder of data.prepare, or with --source published files",
    )
    parser.add_argument("--source", choices=sorted(SOURCES), help="whose published files --annotations holds")
    parser.add_argument("--split", default="test", help="name of the split, as the source has it")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="further settings of --source")


def read_annotations(path: Path, source: str | None, split: str, settings: Sequence[str]) -> Split:
    """The split of a source, of a prepared folder, or of a JSONL file. Raises AnnotationError and ConfigError."""
    if source is None and path.is_file():
        return jsonl.read_split(path)
    if source is None and not (path / "data").is_dir() and (files := sorted(path.glob("*.jsonl"))):
        raise MissingFileError(
            path, f"is no folder of data.prepare; {HOW}, or name the .jsonl file, such as {files[0]}"
        )
    values: dict[str, Any] = {"type": source or "prepared", **dict(map(_setting, settings))}
    folder = "root" if values["type"] in ("synthetic", "jsonl", "prepared") else "annotations"
    asked = parse_config(_Asked, {"source": {**values, folder: str(path)}}, origin="--source").source
    assert not isinstance(asked, MixtureSource), "not among the choices of --source"
    return SOURCES[asked.type](asked, split)


def _setting(text: str) -> tuple[str, Any]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise ConfigError(f"setting {text!r}: expected key=value, for example tracks=FOLDER")
    return key, yaml.safe_load(value)
