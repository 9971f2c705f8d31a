"""What `python -m data.prepare --source NAME --out DIR` wrote, read back as the original would be.

`{root}/data/{split}.parquet` holds the samples (a row is shown in data/parquet.py), those whose video is missing too;
`{root}/report.json` what else is known of a split:

    {"splits": {"val": {
        "records": 4,
        "rejected": [{"file": "mine/val.jsonl", "record": "line 3", "field": "span", "cause": "is missing"}],
        "flags": {"duplicate": ["b"]},
        "videos": {"problems": [
            {"video": "videos/7.mp4", "problem": "missing", "cause": "no such file", "samples": ["a", "b"]}]}}}}
"""

import logging
from pathlib import Path
from typing import Any

import pyarrow as pa

from configs.sources import PreparedSource
from data.annotations import AnnotationError, MissingFileError, RawRecord, Split, errors_of, parse_raw, read_json
from data.parquet import read_samples

logger = logging.getLogger("data.sources")

HOW = "python -m data.prepare --source NAME --out DIR writes it"


class _Rejected(RawRecord):
    file: str
    record: str
    field: str
    cause: str


class _Problem(RawRecord):
    video: str
    problem: str
    cause: str
    samples: list[str]


class _Videos(RawRecord):
    problems: list[_Problem]


class _SplitReport(RawRecord):
    records: int
    rejected: list[_Rejected]
    flags: dict[str, list[str]]
    videos: _Videos


def load(config: PreparedSource, split: str) -> Split:
    """All samples of a split, and the records that the original source rejected.

    Raises AnnotationError where a file is missing, damaged or not one of `data.prepare`.
    """
    return _load(config, split)[0]


def load_readable(config: PreparedSource, split: str) -> Split:
    """As `load`, for those who need every video: what `config.problem_videos` says is done with bad ones.

    Raises AnnotationError for the first of them where that is "error".
    """
    read, report = _load(config, split)
    problems = report.videos.problems
    bad = {sample_id for problem in problems for sample_id in problem.samples}
    if not bad:
        return read
    text = f"{len(bad)} of {len(read.samples)} samples have a video that {config.root}/report.json says cannot be used"
    first = f"{problems[0].problem}: {problems[0].cause}"
    if config.problem_videos == "error":
        cause = f"{first}. {text}; problem_videos=skip of this source (data.source.problem_videos=skip) leaves them out"
        name = f"sample {problems[0].samples[0]!r}"
        raise AnnotationError(problems[0].video, cause, record=name, field="video_path")
    logger.warning("%s: %s and are left out, first: %s: %s", split, text, problems[0].video, first)
    read.samples = [sample for sample in read.samples if sample.sample_id not in bad]
    return read


def _load(config: PreparedSource, split: str) -> tuple[Split, _SplitReport]:
    path = Path(config.root) / "data" / f"{split}.parquet"
    if not path.is_file():
        raise MissingFileError(path, f"no such file; {HOW}")
    report = _report(Path(config.root) / "report.json", split)
    rejected = [AnnotationError(row.file, row.cause, record=row.record, field=row.field) for row in report.rejected]
    read = Split(rejected=rejected, num_records=report.records)
    read.flags.update(report.flags)
    try:
        for sample in read_samples(path):
            read.add(sample)
    except (OSError, pa.ArrowException, ValueError, TypeError) as error:
        raise AnnotationError(path, str(error), record=f"row {len(read.samples)}") from None
    return read, report


def _report(path: Path, split: str) -> _SplitReport:
    """Without it nobody knows which records were rejected. Raises AnnotationError."""
    if not path.is_file():
        raise AnnotationError(path, f"no such file, so the preparation has not finished; {HOW}")
    splits: Any = read_json(path, dict).get("splits")
    if not isinstance(splits, dict) or split not in splits:
        raise AnnotationError(path, f"says nothing of this split; {HOW}", field=f"splits.{split}")
    with errors_of(path):
        return parse_raw(_SplitReport, splits[split], at=f"splits.{split}")
