"""One preparation from annotations to the finished folder, a split at a time; a killed one goes on."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from configs.base import Config
from configs.checkpoints import write_atomically
from configs.sources import SyntheticSource
from data.annotations import AnnotationError, MissingFileError, Split
from data.preparation.annotation_files import digest_of_annotations
from data.preparation.facts import settle, split_facts
from data.preparation.folder import REPORT, PreparedFolder
from data.preparation.histograms import draw_histograms
from data.preparation.markdown import report_markdown
from data.preparation.pool import SturdyPool
from data.preparation.report import measure, split_report
from data.preparation.videos import Decoder, Finding, jobs_of, look_at_all
from data.sources import SOURCES

logger = logging.getLogger("data.prepare")

USUAL_SPLITS = ("train", "val", "validation", "val_1", "val_2", "test", "testA", "testB", "test_with_gt")
"""Tried where none are named; `testA` and `testB` are those of RefCOCO, `test_with_gt` is that of QVHighlights."""


@dataclass(frozen=True)
class Request:
    """What is prepared. command: as typed, for the report. splits: None takes the usual ones that are there.

    check_with: the decoder that reads the first and last frame of each clip; None reads none.
    """

    source: Config
    out: str
    command: str
    splits: tuple[str, ...] | None = None
    check_with: Decoder | None = None
    num_processes: int = 1

    def identity(self) -> dict[str, Any]:
        """What may not change between a command and the one that goes on, or finds it finished."""
        return {
            "source": self.source.model_dump(mode="json"),
            "annotation_files": digest_of_annotations(self.source, out=self.out),
            "splits": None if self.splits is None else list(self.splits),
            "check_with": self.check_with,
        }

    @property
    def type(self) -> str:
        return self.source.type  # type: ignore[attr-defined]  # every source has one


def knows_videos(source: Config) -> bool:
    """A source of published annotations knows no videos until it is told where they are; the others have them."""
    return bool(getattr(source, "videos", True))


def prepare(request: Request) -> None:
    """Write the folder.

    Raises ConfigError where it is another command's or of other annotations, AnnotationError where nothing can be read.
    """
    folder, identity = PreparedFolder(request.out), request.identity()
    if folder.claim(identity):
        logger.info("%s: this command has finished before, nothing to do", folder.root / REPORT)
        return folder.clean()
    candidates = _candidates(request)
    with SturdyPool(request.num_processes) as pool:
        splits = [split for split in candidates if _prepare_split(folder, request, split, pool)]
    if absent := set(candidates) - set(splits):
        logger.info("not there: %s", ", ".join(sorted(absent)))
    if not splits:
        place = getattr(request.source, "annotations", None) or getattr(request.source, "root", "")
        raise AnnotationError(place, f"no split named {', '.join(USUAL_SPLITS)}; name yours with --splits")
    _publish(folder, request, identity, splits)


def _candidates(request: Request) -> Sequence[str]:
    if request.splits is not None:
        return request.splits
    return tuple(request.source.num_videos) if isinstance(request.source, SyntheticSource) else USUAL_SPLITS


def _prepare_split(folder: PreparedFolder, request: Request, split: str, pool: SturdyPool) -> bool:
    """Whether the split is there; one that was only guessed need not be."""
    if folder.facts_path(split).exists():
        return True
    try:
        read = SOURCES[request.type](request.source, split)
    except MissingFileError:
        if request.splits is not None:
            raise
        return False
    found = _look(folder, request, split, read, pool)
    samples, problems = settle(read.samples, found)
    folder.finish_split(split, samples, split_facts(read, found, problems))
    logger.info("%s: %d samples, %d records rejected", split, len(samples), len(read.rejected))
    if read.rejected:
        logger.warning("%s: first rejected: %s", split, read.rejected[0])
    if problems:
        logger.warning("%s: %d problems with videos, see %s", split, len(problems), folder.root / "report.md")
    return True


def _look(folder: PreparedFolder, request: Request, split: str, read: Split, pool: SturdyPool) -> dict[str, Finding]:
    if not knows_videos(request.source):
        return {}
    return look_at_all(
        jobs_of(read.samples, decoder=request.check_with),
        chunk_path=lambda number: folder.chunk_path(split, number),
        pool=pool,
        desc=f"{split}: videos",
    )


def _publish(folder: PreparedFolder, request: Request, identity: dict[str, Any], splits: Sequence[str]) -> None:
    """Samples to their place, then what is written about them; the report is the last."""
    for split in splits:
        folder.publish_split(split)
    measures = {split: measure(folder.data_path(split)) for split in splits}
    facts = {split: json.loads(folder.facts_path(split).read_text()) for split in splits}
    report = {
        "command": request.command,
        **identity,
        "splits": {split: split_report(folder.data_path(split), facts[split], measures[split]) for split in splits},
    }
    staged = folder.partial / "histograms.png"
    draw_histograms(staged, measures, title=request.type)
    staged.replace(folder.root / "histograms.png")
    write_atomically(folder.root / "README.md", dataset_card(request.command, splits))
    write_atomically(folder.root / "report.md", report_markdown(report))
    write_atomically(folder.root / REPORT, json.dumps(report, indent=1) + "\n")
    folder.clean()
    logger.info("%s: written", folder.root / "report.md")


def dataset_card(command: str, splits: Sequence[str]) -> str:
    """README.md: which file is which split, for `datasets.load_dataset(folder)`."""
    files = "".join(f"  - split: {split}\n    path: data/{split}.parquet\n" for split in splits)
    return (
        f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n\n"
        "Samples of spatio-temporal video grounding: `datasets.load_dataset` of this folder, or the source `prepared`.\n"
        "Frames are 0-based indices into the whole video, `clip` and `span` half-open; boxes are left, top, right and\n"
        "bottom in pixels, one or null for each frame of the span. A clip whose width is 0 counts milliseconds: nobody\n"
        f"has looked at its video yet. Counts are in report.md.\n\nMade by\n\n    {command}\n"
    )
