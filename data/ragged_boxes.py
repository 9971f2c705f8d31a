"""Boxes by frame of many samples as flat arrays, and their padded form: no work for each box in Python.

Shapes: N boxes of all samples together, B samples, T boxes of the sample that has most.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from data.types import BoxPx

NO_BOX = (0.0, 0.0, 0.0, 0.0)
FAR = 2**23
"""A frame after all others, where a row is padded; float32 holds it exactly."""


@dataclass(frozen=True)
class RaggedBoxes:
    """row_N: the sample of a box, ascending. frame_N: its absolute frame, ascending within a row. boxes_N4: xyxy, float64."""

    row_N: np.ndarray
    frame_N: np.ndarray
    boxes_N4: np.ndarray
    num_rows: int

    def keep(self, mask_N: np.ndarray) -> "RaggedBoxes":
        """The boxes of a mask."""
        return RaggedBoxes(self.row_N[mask_N], self.frame_N[mask_N], self.boxes_N4[mask_N], self.num_rows)

    def pad(self, values_N: Tensor, *, fill: float = 0.0) -> Tensor:
        """One value (of any shape) for each box -> one row for each sample, filled up on the right. [N, ...] -> [B, T, ...].

        T is at least 1.
        """
        counts_B = np.bincount(self.row_N, minlength=self.num_rows)
        column_N = np.arange(len(self.row_N)) - (np.cumsum(counts_B) - counts_B)[self.row_N]
        width = max(1, int(counts_B.max(initial=0)))
        padded = values_N.new_full((self.num_rows, width, *values_N.shape[1:]), fill)
        padded[torch.from_numpy(self.row_N), torch.from_numpy(column_N)] = values_N
        return padded

    def padded(self) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes [B, T, 4] float32, their frames [B, T] (FAR where a row is padded), and which of them are there [B, T] bool."""
        return (
            self.pad(torch.from_numpy(self.boxes_N4).float()),
            self.pad(torch.from_numpy(self.frame_N), fill=FAR),
            self.pad(torch.ones(len(self.row_N), dtype=torch.bool)),
        )


def ragged_boxes(rows: Sequence[Mapping[int, BoxPx]]) -> RaggedBoxes:
    """From one `{frame: box}` for each sample, its frames in any order."""
    counts = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    total = int(counts.sum())
    frame_N = np.fromiter(chain.from_iterable(rows), dtype=np.int64, count=total)
    boxes_N4 = flat_boxes(chain.from_iterable(row.values() for row in rows), total)
    row_N = np.repeat(np.arange(len(rows)), counts)
    order = np.lexsort((frame_N, row_N))
    return RaggedBoxes(row_N, frame_N[order], boxes_N4[order], len(rows))


def flat_boxes(boxes: Iterable[BoxPx], count: int) -> np.ndarray:
    """`count` boxes as an array. -> [N, 4] float64."""
    return np.fromiter(chain.from_iterable(boxes), dtype=np.float64, count=4 * count).reshape(-1, 4)
