"""What the vision tower gives: features of each image or video, and where in the picture each of them lies.

Shapes: V vision inputs, T temporal patches, S cells of one temporal patch, D width of the LLM, C width of the features.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class VisionFeatures:
    """Output of the vision tower for V inputs, each a tensor of its own length.

    merged: [cells, D], what the LLM reads. deepstack: [layer][input] of the same shape. patches: [cells * merge^2, C].
    grid_V3: (time, height, width) in patches.
    """

    merged: tuple[Tensor, ...]
    deepstack: tuple[tuple[Tensor, ...], ...]
    patches: tuple[Tensor, ...]
    grid_V3: Tensor
    merge: int

    def select(self, index: Tensor) -> "VisionFeatures":
        """The features of one input per row."""
        rows = index.tolist()
        return VisionFeatures(
            merged=tuple(self.merged[i] for i in rows),
            deepstack=tuple(tuple(layer[i] for i in rows) for layer in self.deepstack),
            patches=tuple(self.patches[i] for i in rows),
            grid_V3=self.grid_V3[index],
            merge=self.merge,
        )

    def cells(self, row: int, kind: str) -> tuple[Tensor, Tensor]:
        """Features of one input as [T, S, C] and the centre (x, y) in [0, 1] of each of the S cells, [S, 2]."""
        time, height, width = self.grid_V3[row].tolist()
        if kind == "merged":
            flat, rows, columns = self.merged[row], height // self.merge, width // self.merge
            y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        else:
            flat, rows, columns = self.patches[row], height, width
            y, x = patch_coordinates(height, width, self.merge)
        centres = torch.stack([(x.flatten() + 0.5) / columns, (y.flatten() + 0.5) / rows], dim=-1)
        return flat.reshape(time, rows * columns, -1), centres.to(flat.device, torch.float32)


def patch_coordinates(height: int, width: int, merge: int) -> tuple[Tensor, Tensor]:
    """Row and column of each patch in the tower's order: cell by cell, the patches of a cell together."""
    index = torch.arange(height * width).reshape(height // merge, merge, width // merge, merge)
    order = index.permute(0, 2, 1, 3).flatten()
    return order // width, order % width
