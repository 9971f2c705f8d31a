"""ETA: explicit temporal alignment of the bridging queries with the frames.

Source: Bridge-STG (2604.08014), abstract, names it; this form is our choice. Every temporal patch is scored against
the queries by content alone (it is not told its time, or the score could copy the answer that the queries can read).
The scores are supervised with the true interval (BCE and InfoNCE, model/losses.py), and pool the aligned frames into
the queries, which the paper calls "enriched".

Shapes: B rows, T temporal patches, K queries, E width, C width of the vision features, N decoder layers.
"""

import math

import torch
from torch import Tensor, nn


class TemporalAlignment(nn.Module):
    """Scores a_t of every temporal patch, and queries enriched by the patches with a high score."""

    def __init__(self, *, vision_width: int, width: int) -> None:
        super().__init__()
        self.embed_frame = nn.Sequential(nn.LayerNorm(vision_width), nn.Linear(vision_width, width), nn.GELU())
        self.frame_key = nn.Linear(width, width)
        self.query_key = nn.Linear(width, width)
        # Of one element, not scalars: DeepSpeed 0.19 cannot broadcast a parameter without a dimension.
        self.log_scale = nn.Parameter(torch.full((1,), math.log(8.0)))
        self.bias = nn.Parameter(torch.zeros(1))
        self.enrich = nn.Linear(width, width)

    def forward(self, bridge_NBKE: Tensor, pooled_BTC: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
        """pooled_BTC: mean vision feature of each temporal patch. -> enriched queries [N, B, K, E], scores_BT.

        Scores are logits; padding gets the dtype's lowest value.
        """
        frames_BTE = self.embed_frame(pooled_BTC)
        keys_BTE = nn.functional.normalize(self.frame_key(frames_BTE), dim=-1)
        query_BE = nn.functional.normalize(self.query_key(bridge_NBKE[-1]).mean(dim=1), dim=-1)
        scores_BT = torch.einsum("bte,be->bt", keys_BTE, query_BE) * self.log_scale.exp() + self.bias
        scores_BT = scores_BT.masked_fill(~mask_BT, torch.finfo(scores_BT.dtype).min)
        pooled_BE = torch.einsum("bt,bte->be", scores_BT.softmax(dim=-1), frames_BTE)
        return bridge_NBKE + self.enrich(pooled_BE)[None, :, None], scores_BT
