"""Prompts of several lengths -> the inputs of transformers' `generate`, padded on the left."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from data.encoding import EncodedPrompt


def generation_inputs(prompts: Sequence[EncodedPrompt], *, pad_id: int, device: Any) -> dict[str, Tensor]:
    """input_ids, attention_mask, mm_token_type_ids [B, L], and pixels and grids of images and of videos."""
    length = max(len(prompt.input_ids_L) for prompt in prompts)

    def left_pad(rows: list[Tensor], value: int) -> Tensor:
        return torch.stack([torch.cat([row.new_full((length - len(row),), value), row]) for row in rows]).to(device)

    inputs = {
        "input_ids": left_pad([prompt.input_ids_L for prompt in prompts], pad_id),
        "attention_mask": left_pad([torch.ones_like(prompt.input_ids_L) for prompt in prompts], 0),
        "mm_token_type_ids": left_pad([prompt.mm_token_type_ids_L for prompt in prompts], 0),
    }
    for is_image, pixels, grid in (
        (True, "pixel_values", "image_grid_thw"),
        (False, "pixel_values_videos", "video_grid_thw"),
    ):
        chosen = [prompt for prompt in prompts if prompt.is_image == is_image]
        if chosen:
            inputs[pixels] = torch.cat([prompt.pixel_values_VC for prompt in chosen]).to(device)
            inputs[grid] = torch.stack([prompt.grid_3 for prompt in chosen]).to(device)
    seconds = [prompt.patch_sec for prompt in prompts if prompt.patch_sec is not None]
    if seconds:
        inputs["second_per_grid_ts"] = torch.tensor(seconds, device=device)
    return inputs
