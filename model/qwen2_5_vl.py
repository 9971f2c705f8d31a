"""What is different in Qwen2.5-VL; all else is as in Qwen3-VL (model/backbone.py).

There is no DeepStack, and no text says when a frame is shown: the LLM is told by positions, which count
`tokens_per_second` for each second. transformers 5.17 cuts the seconds of a temporal patch to whole ones (0 at 4 frames a
second: all frames at one time) and lets the text after a video begin below its last frame. vLLM 0.31
(qwen2_5_vl.py: `get_mrope_input_positions`) does neither. Positions here are vLLM's, in training, in `generate` and in
rollouts alike.

Contracts with transformers 5.17, tested in tests/test_model_qwen2_5_vl.py: `get_rope_index` of the model is what the
forward and `generate` ask for positions; the vision tower returns merged features row by row, and patches in the order of
its attention windows.

Shapes: B rows, V vision inputs, L tokens, T temporal patches, Y and X rows and columns of merged cells, P patches, C width
of the vision features.
"""

from collections.abc import Iterator
from itertools import groupby
from types import MethodType
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.vision_utils import get_vision_window_index

TEXT, IMAGE = 0, 1
"""Values of transformers' `mm_token_type_ids`; a video's is 2."""


def use_vllm_positions(mllm: Qwen2_5_VLForConditionalGeneration) -> None:
    """Give the model `rope_index` in the place of its own."""
    inner: Any = mllm.model
    inner.get_rope_index = MethodType(rope_index, inner)


def rope_index(
    model: Any,
    input_ids: Tensor,
    mm_token_type_ids: Tensor,
    image_grid_thw: Tensor | None = None,
    video_grid_thw: Tensor | None = None,
    second_per_grid_ts: Tensor | None = None,
    attention_mask: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """M-RoPE positions [3, B, L] and what is added to a token's number to get its position [B, 1]; as transformers'.

    second_per_grid_ts: seconds of a temporal patch, of each video in the order of rows. Raises ValueError without it.
    """
    if video_grid_thw is not None and second_per_grid_ts is None:
        raise ValueError(f"second_per_grid_ts: expected one number for each of {len(video_grid_thw)} videos, got none")
    merge, rate = model.config.vision_config.spatial_merge_size, model.config.vision_config.tokens_per_second
    images = iter([] if image_grid_thw is None else image_grid_thw.tolist())
    videos = iter([] if video_grid_thw is None else video_grid_thw.tolist())
    steps = iter([] if second_per_grid_ts is None else [float(seconds) * rate for seconds in second_per_grid_ts])
    grids = {
        True: ((_cells(grid, merge), 1.0) for grid in images),
        False: ((_cells(g, merge), next(steps)) for g in videos),
    }
    real_BL = torch.ones_like(input_ids).bool() if attention_mask is None else attention_mask.bool()
    positions_3BL = input_ids.new_zeros(3, *input_ids.shape)
    offsets = []
    for row, real_L in enumerate(real_BL):
        places_3N = _row_positions(mm_token_type_ids[row][real_L].tolist(), grids)
        positions_3BL[:, row, real_L] = places_3N.to(input_ids.device)
        offsets.append(int(places_3N.max()) + 1 - places_3N.shape[1])
    return positions_3BL, torch.tensor(offsets, device=input_ids.device)[:, None]


Grid = tuple[int, int, int]


def _cells(grid: list[int], merge: int) -> Grid:
    return grid[0], grid[1] // merge, grid[2] // merge


def _row_positions(types: list[int], grids: dict[bool, Iterator[tuple[Grid, float]]]) -> Tensor:
    """Of one row's tokens, [3, N]. Text and vision follow one another: each begins after the last position so far."""
    parts, start = [], 0
    for kind, run in groupby(types):
        if kind == TEXT:
            part_3N = torch.arange(len(list(run))).expand(3, -1)
        else:
            part_3N = grid_positions(*next(grids[kind == IMAGE]))
        parts.append(part_3N + start)
        start = int(parts[-1].max()) + 1
    return torch.cat(parts, dim=1)


def grid_positions(grid: Grid, step: float) -> Tensor:
    """Time, row and column of each cell of (T, Y, X), [3, T * Y * X]; time counts `step` for each patch, rounded down."""
    time_N, y_N, x_N = torch.meshgrid(*(torch.arange(size) for size in grid), indexing="ij")
    return torch.stack([(time_N.double() * step).long(), y_N, x_N]).flatten(1)


def row_by_row(tower: Any, patches_PC: Tensor, grid_V3: Tensor) -> Tensor:
    """The tower's patches, which come window by window, in the order of its merged features, cell by cell."""
    window_index, _ = get_vision_window_index(grid_V3, tower.spatial_merge_size, tower.window_size, tower.patch_size)
    cells = patches_PC.unflatten(0, (-1, tower.spatial_merge_size**2))
    return cells[torch.argsort(window_index).to(cells.device)].flatten(0, 1)


def stored_name(name: str) -> str:
    """What `save_pretrained` calls a weight: as in the released checkpoints, which are older than the module's names."""
    for ours, theirs in (("model.visual.", "visual."), ("model.language_model.", "model.")):
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def bound_pixels(videos: Any, max_pixels: int) -> None:
    """Set a Qwen2-VL video processor's bound of frames x height x width. Its own bound is of one frame; a budget of all
    frames together is counted in tokens, of which it uses 90 % (transformers 5.17, `cap_pixels_per_frame`).
    """
    cell_px = (videos.patch_size * videos.merge_size) ** 2
    videos.cap_pixels_per_frame = True
    videos.max_video_tokens = int(max_pixels / (0.9 * cell_px * videos.temporal_patch_size))
    videos.size = {"shortest_edge": cell_px, "longest_edge": min(videos.size["longest_edge"], max_pixels)}
