"""Where the tokens of a batch stand in time, height and width, by the MLLM's own rule.

Shapes: B rows, L tokens, V vision inputs.
"""

from typing import Any

from torch import Tensor


def rope_positions(mllm: Any, batch: dict[str, Tensor], grid_B3: Tensor) -> Tensor:
    """M-RoPE positions [3, B, L]; query slots count on like text. grid_B3: of the vision input of each row."""
    is_image_B = batch["vision_is_image"][batch["vision_of_row"]]
    images, videos = grid_B3[is_image_B], grid_B3[~is_image_B]
    seconds = {}
    if "patch_sec" in batch:
        seconds["second_per_grid_ts"] = batch["patch_sec"][batch["vision_of_row"]][~is_image_B]
    positions, _ = mllm.model.get_rope_index(
        batch["input_ids"],
        mm_token_type_ids=batch["mm_token_type_ids"],
        image_grid_thw=images if len(images) else None,
        video_grid_thw=videos if len(videos) else None,
        attention_mask=batch["attention_mask"],
        **seconds,
    )
    return positions
