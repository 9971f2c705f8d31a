"""Checkpoints of a run: written aside, synced to disk, renamed; the last few and the best are kept.

    {run.out}/checkpoints/step-00000040/    complete, or not there at all
    {run.out}/checkpoints/best.json         {"step": 40, "value": 1.23}
    {run.out}/checkpoints/.partial-00000060/   being written, or what a killed process left of one

A folder under its final name is complete: a process that is killed at any moment leaves the older ones untouched.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from pydantic import Field

from configs.base import Config

PREFIX, PARTIAL, BEST = "step-", ".partial-", "best.json"


class CheckpointError(FileNotFoundError):
    """What should be a checkpoint folder is none; the message names it and what is expected in it."""


def check_checkpoint(folder: str | Path, *, origin: str = "") -> None:
    """Raise CheckpointError for a folder that no run wrote as a checkpoint; origin: what stands before its name, as a key."""
    folder = Path(folder)
    if (folder / "mllm").is_dir() and (folder / "config.json").is_file():
        return
    inside = folder / "checkpoint"
    hint = f"; did you mean {inside}?" if inside.is_dir() else ""
    raise CheckpointError(f"{origin}{folder}: expected a checkpoint folder with mllm/ and config.json in it{hint}")


class CheckpointConfig(Config):
    """When a run writes checkpoints, and which it keeps. A run that is started again goes on from its last one."""

    every_steps: Annotated[int, Field(ge=1)] | None = None
    """Steps between checkpoints; None writes the final model alone, and a killed run starts over."""
    keep_last: Annotated[int, Field(ge=1)] = 2
    keep_best: bool = True
    """Also keep the one with the best validation value, where the run has a validation."""


class CheckpointStore:
    """The checkpoints of one run folder. One process publishes; any may read."""

    def __init__(self, run_folder: str | Path, config: CheckpointConfig) -> None:
        self.folder, self.config = Path(run_folder) / "checkpoints", config

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, ascending."""
        return sorted(int(path.name.removeprefix(PREFIX)) for path in self.folder.glob(f"{PREFIX}*"))

    def path(self, step: int) -> Path:
        """Where the checkpoint after `step` steps is, or will be."""
        return self.folder / f"{PREFIX}{step:08d}"

    def last(self) -> tuple[int, Path] | None:
        """The newest complete checkpoint."""
        steps = self.steps()
        return (steps[-1], self.path(steps[-1])) if steps else None

    def is_due(self, step: int) -> bool:
        """Whether one is written after `step` steps."""
        return self.config.every_steps is not None and step % self.config.every_steps == 0

    def staged_path(self, step: int) -> Path:
        """Where the checkpoint of `step` is written before `publish`."""
        return self.folder / f"{PARTIAL}{step:08d}"

    def staging(self, step: int) -> Path:
        """The same, emptied and made."""
        folder = self.staged_path(step)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def publish(self, step: int, staged: Path, *, value: float | None = None) -> Path:
        """Give a completely written folder its name; remember the best `value` (higher is better); drop old ones."""
        final = self.path(step)
        publish_folder(staged, final)
        best = self.best()
        if value is not None and (best is None or value > best[1]):
            write_atomically(self.folder / BEST, json.dumps({"step": step, "value": value}) + "\n")
        self._prune()
        return final

    def best(self) -> tuple[int, float] | None:
        """Step and value of the best checkpoint, if any had a value."""
        path = self.folder / BEST
        if not path.exists():
            return None
        record = json.loads(path.read_text())
        return int(record["step"]), float(record["value"])

    def _prune(self) -> None:
        keep = set(self.steps()[-self.config.keep_last :])
        best = self.best()
        if best is not None and self.config.keep_best:
            keep.add(best[0])
        for step in self.steps():
            if step not in keep:
                # Renamed first: a half-deleted folder must not look complete.
                doomed = self.folder / f"{PARTIAL}{step:08d}-old"
                self.path(step).rename(doomed)
                shutil.rmtree(doomed)
        for leftover in self.folder.glob(f"{PARTIAL}*"):
            shutil.rmtree(leftover)


def publish_folder(staged: Path, final: Path) -> None:
    """Sync a folder's files to disk and rename it. Raises FileExistsError: a complete folder is never overwritten."""
    if final.exists():
        raise FileExistsError(f"{final}: already written")
    for path in sorted(staged.rglob("*")):
        _sync(path)
    _sync(staged)
    staged.rename(final)
    _sync(final.parent)


@contextmanager
def written_aside(final: str | Path) -> Iterator[Path]:
    """A folder to write into, that gets the name `final` once it is complete and synced."""
    final = Path(final)
    staged = final.parent / f"{PARTIAL}{final.name}"
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    yield staged
    publish_folder(staged, final)


def write_atomically(path: Path, text: str) -> None:
    """Replace a small file: its readers see the old text or the new one."""
    aside = path.with_name(f"{PARTIAL}{path.name}")
    aside.write_text(text)
    _sync(aside)
    aside.replace(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
