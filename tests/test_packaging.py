"""Our short package names must mean our packages, wherever the tests run."""

import importlib
import importlib.metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ["configs", "data", "model", "rewards", "evaluation", "launchers", "sft", "rft", "scripts"]


@pytest.mark.parametrize("name", PACKAGES)
def test_no_other_distribution_installs_this_package(name: str) -> None:
    """An editable install may list nothing; another distribution's `data` or `scripts` would shadow ours."""
    owners = importlib.metadata.packages_distributions().get(name, [])
    assert set(owners) <= {"bridge-stg"}


@pytest.mark.parametrize("name", PACKAGES)
def test_package_is_imported_from_this_checkout(name: str) -> None:
    file = importlib.import_module(name).__file__
    assert file is not None
    assert Path(file).resolve().is_relative_to(ROOT)
