"""Published annotation files are not in the repository: a test that needs one is skipped where it is not there."""

from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "shared" / "data"
"""Beside the checkout. No other file says where they are."""


def published(name: str) -> Path:
    """The file, `vidstg/val_annotations.json` for example."""
    if not (FOLDER / name).is_file():
        pytest.skip(f"needs the published annotation file {name}")
    return FOLDER / name
