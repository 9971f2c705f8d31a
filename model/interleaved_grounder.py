"""The `interleaved` grounder (SpaceVLLM, 2503.13983): a query beside every frame, dual attention, a box from an MLP.

    states of the frame's tokens ◀─ the question's tokens      visual <- text
    state of the frame's query   ◀─ the frame's tokens         query <- its frame
                                 └▶ MLP ─▶ box

The method section read for this is a note's: queries per frame and one more for single images, dual cross attention on the
last layer without parameters of its own, a light MLP, boxes learned inside the true interval alone. Ours: scaled dot
products, the residual sums, the MLP's width, and where the queries stand (model/side_tokens.py). In a temporal patch of
two frames both have the same tokens to read; their queries tell them apart.

Shapes: B rows, F chosen frames, L tokens, D width of the LLM, E width of the attention, S cells of a temporal patch,
X tokens of the question, N slots of the batch.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from model.backbone import LLMStates, VisionFeatures
from model.grounder import Batch, Grounder, GrounderOutput
from model.spatial_decoder import Attention


class FreeAttention(nn.Module):
    """Scaled dot products of the states as they are, one head and no parameters."""

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """[R, Q, E], [R, S, E], [R, S, E], [R, S] -> [R, Q, E]; `mask` is True where a key may be read."""
        return nn.functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask[:, None])


class Tokens(NamedTuple):
    """Places of tokens in their rows, and which of them are real."""

    place: Tensor
    is_real: Tensor


class InterleavedGrounder(Grounder):
    """One query for each sampled frame, and another for a single image."""

    answer_format = "span"
    reward_terms = frozenset({"format", "temporal", "spatial", "viou", "gated"})
    num_queries = "per_frame"

    def __init__(
        self, *, llm_width: int, temporal_patch_size: int, max_frames: int, attention: str, width: int, num_heads: int,
        mlp_width: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.temporal_patch_size, self.max_frames = temporal_patch_size, max_frames
        self.queries = nn.Embedding(max_frames + 1, llm_width)
        nn.init.normal_(self.queries.weight, std=0.02)
        is_free = attention == "free"
        width = llm_width if is_free else width
        self.embed = nn.Identity() if is_free else nn.Sequential(nn.LayerNorm(llm_width), nn.Linear(llm_width, width))
        self.read_text = FreeAttention() if is_free else Attention(width, num_heads)
        self.read_frame = FreeAttention() if is_free else Attention(width, num_heads)
        self.box = nn.Sequential(
            nn.Linear(width, mlp_width), nn.GELU(), nn.Linear(mlp_width, mlp_width), nn.GELU(), nn.Linear(mlp_width, 4)
        )

    @classmethod
    def build(cls, mllm: Any, args: Mapping[str, Any]) -> Self:
        """A grounder for the backbone's sizes. Raises ValueError for an attention that takes no mask of ours."""
        attention = mllm.config.text_config._attn_implementation
        if attention != "sdpa":
            raise ValueError(
                f"model.attention: grounder interleaved needs sdpa for the mask of its queries, got {attention}"
            )
        return cls(
            llm_width=mllm.config.text_config.hidden_size,
            temporal_patch_size=mllm.config.vision_config.temporal_patch_size,
            **args,
        )

    def query_embeddings(self, batch: Batch) -> Tensor:
        """Of each slot, [N, D]. Raises ValueError for a frame that has no query."""
        position_BF = batch["frame_position"]
        position_N = position_BF[position_BF >= 0]
        if len(position_N) and int(position_N.max()) >= self.max_frames:
            raise ValueError(
                f"model.interleaved.max_frames={self.max_frames}: expected no fewer than the sampled frames of a video, "
                f"got frame {int(position_N.max())}"
            )
        is_image_BF = batch["vision_is_image"][batch["vision_of_row"]][:, None].expand_as(position_BF)
        return self.queries(torch.where(is_image_BF[position_BF >= 0], self.max_frames, position_N))

    def query_reach(self, batch: Batch) -> Tensor:
        """The prompt up to the last token of the frame."""
        position_BF = batch["frame_position"]
        place_BFS, is_real_BFS = self._frame_tokens(batch)
        last_BF = torch.where(is_real_BFS, place_BFS, -1).amax(dim=-1)
        return last_BF[position_BF >= 0] + 1

    def forward(self, states: LLMStates, vision: VisionFeatures, batch: Batch) -> GrounderOutput:
        """Boxes alone, of one layer."""
        last_BLE = self.embed(states.last_BLD.to(self.queries.weight.dtype))
        position_BF = batch["frame_position"]
        num_rows, num_frames = position_BF.shape
        shape = (num_rows, num_frames, last_BLE.shape[-1])
        of_slots = last_BLE[batch["query_mask"].bool()]
        query_BFE = last_BLE.new_zeros(shape).masked_scatter((position_BF >= 0)[..., None], of_slots)
        cells_BFSE, cell_mask_BFS = self._enhanced_cells(last_BLE, batch)
        query_R1E, cells_RSE = query_BFE.flatten(0, 1)[:, None], cells_BFSE.flatten(0, 1)
        query_R1E = query_R1E + self.read_frame(query_R1E, cells_RSE, cells_RSE, cell_mask_BFS.flatten(0, 1))
        boxes_BF4 = self.box(query_R1E[:, 0]).float().sigmoid().reshape(num_rows, num_frames, 4)
        return GrounderOutput(boxes_BF4[None], presence_NBF=boxes_BF4.new_zeros(0, num_rows, num_frames))

    def _enhanced_cells(self, last_BLE: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Tokens of each chosen frame after they have read the question: [B, F, S, E], and which are real, [B, F, S]."""
        place_BFS, is_real_BFS = self._frame_tokens(batch)
        text = _question_tokens(batch)
        cells_BNE, text_BXE = _take(last_BLE, place_BFS.flatten(1)), _take(last_BLE, text.place)
        cells_BNE = cells_BNE + self.read_text(cells_BNE, text_BXE, text_BXE, text.is_real)
        return cells_BNE.unflatten(1, place_BFS.shape[1:]), is_real_BFS

    def _frame_tokens(self, batch: Batch) -> Tokens:
        """The vision tokens of each chosen frame's temporal patch, [B, F, S]; those of the first patch for padding."""
        count_BL = (batch["mm_token_type_ids"] > 0).cumsum(dim=1)
        size_B = count_BL[:, -1] // batch["grid_thw"][batch["vision_of_row"], 0]
        patch_BF = batch["frame_position"].clamp(min=0) // self.temporal_patch_size
        cell_S = torch.arange(int(size_B.max()), device=count_BL.device)
        is_real_BFS = (cell_S < size_B[:, None, None]).expand(*patch_BF.shape, -1)
        number_BFS = patch_BF[..., None] * size_B[:, None, None] + cell_S
        # The token after which `number + 1` vision tokens have been seen.
        place_BN = torch.searchsorted(count_BL, number_BFS.flatten(1) + 1)
        place_BFS = place_BN.clamp(max=count_BL.shape[1] - 1).unflatten(1, number_BFS.shape[1:])
        return Tokens(place_BFS, is_real_BFS)


def _question_tokens(batch: Batch) -> Tokens:
    """The prompt's tokens after the last vision token, [B, X]: the question, whatever the prompt's order."""
    is_vision_BL = batch["mm_token_type_ids"] > 0
    place_L = torch.arange(is_vision_BL.shape[1], device=is_vision_BL.device)
    start_B = torch.where(is_vision_BL, place_L, -1).amax(dim=1) + 1
    end_B = batch["prompt_length"]
    place_BX = start_B[:, None] + place_L[: int((end_B - start_B).max())]
    return Tokens(place_BX.clamp(max=len(place_L) - 1), place_BX < end_B[:, None])


def _take(states_BLE: Tensor, place_BN: Tensor) -> Tensor:
    """States of the tokens at those places, [B, N, E]."""
    return states_BLE.gather(1, place_BN[..., None].expand(-1, -1, states_BLE.shape[-1]))
