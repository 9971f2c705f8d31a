"""What `python -m data.prepare --source NAME --out DIR` wrote, read back as it was: `{root}/data/{split}.parquet`.

A row is shown in data/parquet.py. Every sample is there, those whose video is missing too: `{root}/report.md` counts
them.
"""

from pathlib import Path

import pyarrow as pa

from configs.sources import PreparedSource
from data.annotations import AnnotationError, MissingFileError, Split
from data.parquet import read_samples


def load(config: PreparedSource, split: str) -> Split:
    """All samples of a split. Raises AnnotationError where the file is missing, damaged or not one of samples."""
    path = Path(config.root) / "data" / f"{split}.parquet"
    if not path.is_file():
        raise MissingFileError(path, "no such file; python -m data.prepare --source NAME --out DIR writes it")
    read = Split()
    try:
        for sample in read_samples(path):
            read.add(sample)
    except (OSError, pa.ArrowException, ValueError, TypeError) as error:
        raise AnnotationError(path, str(error), record=f"row {len(read.samples)}") from None
    read.num_records = len(read.samples)
    return read
