"""Query slots that stand beside their frame: where they are, and what they read.

In SpaceVLLM (2503.13983) a frame's query follows the frame's tokens. vLLM expands one placeholder into all frames, so a
rollout can have nothing between them. Here the slots come after the answer and are made to look as if they stood there:
the position of the token that follows the frame, and nothing to read but the prompt up to the frame and themselves. What
differs from the paper: the tokens after a query do not read it, and queries do not read one another.

A token's reach is how many tokens of its row it reads, itself not counted among later ones: l + 1 for an ordinary one.

Shapes: B rows, L tokens, N slots of the batch (row by row), Q reading tokens, K tokens that are read.
"""

import torch
from torch import Tensor


def reach_of_tokens(query_mask_BL: Tensor, reach_N: Tensor) -> Tensor:
    """[B, L]: causal, but for the slots, whose reach is given."""
    causal_L = torch.arange(1, query_mask_BL.shape[1] + 1, device=query_mask_BL.device)
    return causal_L.expand_as(query_mask_BL).masked_scatter(query_mask_BL, reach_N.to(causal_L.dtype))


def beside_frames(positions_3BL: Tensor, query_mask_BL: Tensor, reach_BL: Tensor) -> Tensor:
    """M-RoPE positions, of each slot that of a text token right after the last one in its reach."""
    last_BL = (reach_BL - 1).clamp(min=0)
    after_BL = positions_3BL.gather(2, last_BL.expand_as(positions_3BL)).amax(dim=0) + 1
    return torch.where(query_mask_BL, after_BL, positions_3BL)


def reading_mask(place_BQ: Tensor, reach_BQ: Tensor, key_place_BK: Tensor, key_is_real_BK: Tensor) -> Tensor:
    """[B, 1, Q, K], True where a token may be read: within the reach, or the token itself; places count in the row."""
    key_B1K = key_place_BK[:, None]
    may_read_BQK = (key_B1K < reach_BQ[..., None]) | (key_B1K == place_BQ[..., None])
    return (may_read_BQK & key_is_real_BK[:, None])[:, None]
