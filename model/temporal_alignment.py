"""ETA: explicit temporal alignment of the sentence with the frames.

Source: Bridge-STG (2604.08014), abstract, names it; both forms are our choice. Every temporal patch gets a score,
supervised with the true interval (BCE and InfoNCE, model/losses.py), and the patches with a high score are pooled into
the queries, which the paper calls "enriched".

- `states`: from the LLM's own states of the patch's tokens, in its middle layer. They have read the sentence only if
  it stands before the video (prompt_order=query_video_query). What aligns them is there for the text to read in the
  layers above: the alignment teaches the answer (NOTES.md has the measurement).
- `features`: from vision features against the bridging queries. It is not told the time of a patch, or the score
  could copy the answer that the queries can read; for the same reason the text learns nothing from it.

Shapes: B rows, T temporal patches, S cells, K queries, E width, C width of the vision features, D width of the LLM,
N decoder layers.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence


class Alignment(NamedTuple):
    """scores_BT: logits, the dtype's lowest value for padding. enriched_NBKE: the queries with the aligned frames.

    cells_BN: a logit for every vision token, "the target is here"; None where cells are not scored.
    """

    scores_BT: Tensor
    enriched_NBKE: Tensor
    cells_BN: Tensor | None


class StateAlignment(nn.Module):
    """`states`: a small MLP on every token, averaged over a patch."""

    def __init__(self, *, llm_width: int, width: int, enrich: bool, feedback: bool) -> None:
        super().__init__()
        self.feedback = feedback
        self.embed_state = nn.Sequential(nn.LayerNorm(llm_width), nn.Linear(llm_width, width), nn.GELU())
        self.score = nn.Linear(width, 1)
        self.score_cell = nn.Linear(width, 1)
        self.enrich = nn.Linear(width, width) if enrich else None

    def forward(self, bridge_NBKE: Tensor, states: Sequence[Tensor], mask_BT: Tensor) -> Alignment:
        """states: of each row, the LLM's states of every patch's tokens, [T, S, D]."""
        tokens_ND = torch.cat([row_TSD.flatten(0, 1) for row_TSD in states]).to(self.score.weight.dtype)
        tokens_ND = tokens_ND if self.feedback else tokens_ND.detach()
        embedded = self.embed_state(tokens_ND).split([row.shape[0] * row.shape[1] for row in states])
        frames_BTE = pad_sequence(
            [part.unflatten(0, row.shape[:2]).mean(dim=1) for part, row in zip(embedded, states, strict=True)],
            batch_first=True,
        )
        scores_BT = _masked(self.score(frames_BTE)[..., 0], mask_BT)
        cells_BN = pad_sequence([self.score_cell(part)[:, 0] for part in embedded], batch_first=True)
        return Alignment(scores_BT, _enriched(bridge_NBKE, scores_BT, frames_BTE, self.enrich), cells_BN)


class FeatureAlignment(nn.Module):
    """`features`: scaled cosine of a patch's mean vision feature and the mean bridging query."""

    def __init__(self, *, vision_width: int, width: int, enrich: bool) -> None:
        super().__init__()
        self.embed_frame = nn.Sequential(nn.LayerNorm(vision_width), nn.Linear(vision_width, width), nn.GELU())
        self.frame_key = nn.Linear(width, width)
        self.query_key = nn.Linear(width, width)
        # Of one element, not scalars: DeepSpeed 0.19 cannot broadcast a parameter without a dimension.
        self.log_scale = nn.Parameter(torch.full((1,), math.log(8.0)))
        self.bias = nn.Parameter(torch.zeros(1))
        self.enrich = nn.Linear(width, width) if enrich else None

    def forward(self, bridge_NBKE: Tensor, features: Sequence[Tensor], mask_BT: Tensor) -> Alignment:
        """features: of each row, the vision features of every patch's cells, [T, S, C]."""
        pooled_BTC = pad_sequence([row_TSC.mean(dim=1) for row_TSC in features], batch_first=True)
        frames_BTE = self.embed_frame(pooled_BTC.to(bridge_NBKE.dtype))
        keys_BTE = nn.functional.normalize(self.frame_key(frames_BTE), dim=-1)
        query_BE = nn.functional.normalize(self.query_key(bridge_NBKE[-1]).mean(dim=1), dim=-1)
        cosine_BT = torch.einsum("bte,be->bt", keys_BTE, query_BE)
        scores_BT = _masked(cosine_BT * self.log_scale.exp() + self.bias, mask_BT)
        return Alignment(scores_BT, _enriched(bridge_NBKE, scores_BT, frames_BTE, self.enrich), None)


def _masked(scores_BT: Tensor, mask_BT: Tensor) -> Tensor:
    return scores_BT.masked_fill(~mask_BT, torch.finfo(scores_BT.dtype).min)


def _enriched(bridge_NBKE: Tensor, scores_BT: Tensor, frames_BTE: Tensor, enrich: nn.Linear | None) -> Tensor:
    """The queries with the aligned frames added to every one; as they are without `enrich`."""
    if enrich is None:
        return bridge_NBKE
    return bridge_NBKE + enrich(torch.einsum("bt,bte->be", scores_BT.softmax(dim=-1), frames_BTE))[None, :, None]
