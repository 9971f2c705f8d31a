"""Counts the rows whose videos could not be read, and ends a run that has too many of them."""

from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import reduce

from configs.sft import UnreadableVideosConfig
from data.collate import Batch
from data.unreadable import CAUSES, UNREADABLE
from sft.errors import TooManyUnreadableError


class UnreadableRows:
    """Of all ranks, since the process was started. total_rows: of all steps of the run together."""

    def __init__(self, config: UnreadableVideosConfig, *, total_rows: int) -> None:
        self.config, self.total_rows = config, total_rows
        self.counts = dict.fromkeys(CAUSES, 0)

    def add(self, batches: Sequence[Batch]) -> dict[str, int]:
        """A step's micro-batches of this rank; every rank must call. -> metrics of the step. Raises TooManyUnreadableError."""
        codes = torch.cat([batch[UNREADABLE] for batch in batches])
        counts: Any = reduce(torch.bincount(codes, minlength=1 + len(CAUSES))[1:], reduction="sum")
        of_step = dict(zip(CAUSES, counts.tolist(), strict=True))
        self.counts = {cause: self.counts[cause] + of_step[cause] for cause in CAUSES}
        if sum(self.counts.values()) > self.config.max_share * self.total_rows:
            raise TooManyUnreadableError(
                f"{self.counts} of the run's {self.total_rows} rows have videos that cannot be read, above "
                f"unreadable_videos.max_share={self.config.max_share}; the log names the files"
            )
        return {f"data/unreadable/{cause}": count for cause, count in of_step.items()}
