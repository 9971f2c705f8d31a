"""The folder that a preparation writes: one command's, complete once `report.json` is there, resumable before.

    OUT/command.json              whose folder it is
    OUT/data/{split}.parquet      samples; README.md tells `datasets.load_dataset(OUT)` which split each one is
    OUT/histograms.png, report.md
    OUT/report.json               written last
    OUT/.partial/videos/          what was found in the videos so far, in chunks
    OUT/.partial/splits/{split}/  finished splits: samples.parquet, facts.json

Everything is written aside and renamed, so a killed command started again goes on from the last chunk or split, and
the files end up the same.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from configs.base import ConfigError
from configs.checkpoints import PARTIAL, write_atomically, written_aside
from data.parquet import write_samples
from data.types import GroundingSample

COMMAND, REPORT = "command.json", "report.json"


class PreparedFolder:
    """Paths and states of one preparation."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self.partial = self.root / ".partial"

    def claim(self, command: dict[str, Any]) -> bool:
        """Note whose folder it is. -> whether the command has finished already.

        Raises ConfigError where the folder belongs to another command, or holds files of something else.
        """
        path = self.root / COMMAND
        if path.exists() and (self.partial.exists() or (self.root / "data").exists()):
            self._check_same(command, json.loads(path.read_text()))
        elif self.root.exists() and any(not self._is_ours(child.name) for child in self.root.iterdir()):
            raise ConfigError(f"{self.root}: this folder holds something else; choose another --out")
        else:
            self.root.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(command, indent=2) + "\n")
        return (self.root / REPORT).exists()

    def _is_ours(self, name: str) -> bool:
        """Of a command that had got nowhere: it may be corrected."""
        return name == COMMAND or name.startswith(PARTIAL)

    def _check_same(self, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
        differing = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
        if differing:
            changes = ", ".join(f"{key}: {theirs.get(key)!r} -> {ours.get(key)!r}" for key in differing[:5])
            place = self.root / COMMAND
            raise ConfigError(
                f"{place}: this folder belongs to another command ({changes}); choose another --out or remove it"
            )

    def chunk_path(self, split: str, chunk: int) -> Path:
        """Where the findings of a chunk of videos are kept until the end."""
        folder = self.partial / "videos"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{split}-{chunk:05d}.json"

    def facts_path(self, split: str) -> Path:
        """Of a finished split: all that the report says and that is not in the samples."""
        return self.partial / "splits" / split / "facts.json"

    def data_path(self, split: str) -> Path:
        """The samples of a published split."""
        return self.root / "data" / f"{split}.parquet"

    def finish_split(self, split: str, samples: list[GroundingSample], facts: dict[str, Any]) -> None:
        """Samples and facts appear together."""
        with written_aside(self.facts_path(split).parent) as staged:
            write_samples(staged / "samples.parquet", samples)
            (staged / "facts.json").write_text(json.dumps(facts))

    def publish_split(self, split: str) -> None:
        """Move the samples of a finished split to their place; again after a kill does no harm."""
        staged, final = self.facts_path(split).with_name("samples.parquet"), self.data_path(split)
        final.parent.mkdir(exist_ok=True)
        if staged.exists():
            staged.replace(final)

    def clean(self) -> None:
        """Remove what was needed to go on."""
        shutil.rmtree(self.partial, ignore_errors=True)
