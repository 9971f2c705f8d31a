"""The LLM on rows that share prompts: three ways to the same states.

    whole    every row from its first token to its last
    cached   a prompt once, with keys and values that stay in the graph; then what follows it in each row
    packed   | prompt | rest of row 0 | rest of row 1 | ... as one sequence, with a block mask: a rest reads the prompt and
             itself. Where gradient checkpointing forbids the cache, and this costs less than whole rows do.

Positions are those of the rows: each rest of a packed sequence counts on from the prompt, in the three axes of M-RoPE.

Shapes: B rows, V vision inputs, L tokens of a row, P of the longest prompt, R of the longest rest, W of a packed sequence, K tokens that
are read, D width of the LLM.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from model.side_tokens import reading_mask
from model.vision_features import VisionFeatures

Layers = Callable[[int], Tensor]
"""Entry of transformers' `hidden_states` -> [B, L, D]; the last one is after the final norm."""


class LLMInput(NamedTuple):
    """Rows as the LLM reads them. reach_BL: how many tokens of its row each reads, where some do not read all before them.

    is_vision_BL: tokens that stand for pixels. is_real_BL: not padding.
    """

    embeds_BLD: Tensor
    positions_3BL: Tensor
    is_vision_BL: Tensor
    is_real_BL: Tensor
    reach_BL: Tensor | None


def whole_rows(language_model: Any, rows: LLMInput, per_row: VisionFeatures) -> Layers:
    """Every row from its first token to its last."""
    mask = rows.is_real_BL
    if rows.reach_BL is not None:
        place_BL = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
        mask = reading_mask(place_BL, rows.reach_BL, place_BL, mask)
    output = language_model(
        inputs_embeds=rows.embeds_BLD,
        attention_mask=mask,
        position_ids=rows.positions_3BL,
        **_deepstack(per_row, rows.is_vision_BL),
        use_cache=False,
        output_hidden_states=True,
    )
    return output.hidden_states.__getitem__


@dataclass(frozen=True)
class SharedPrompts:
    """Which tokens of the rows are a prompt's and which follow it. owner_B: a row's vision input; first_V: a row that has it.

    prompt_L, rest_BR: places in a row; prompt_mask_VL, rest_mask_BR: those that are not padding.
    """

    owner_B: Tensor
    length_B: Tensor
    first_V: Tensor
    prompt_L: Tensor
    prompt_mask_VL: Tensor
    rest_BR: Tensor
    rest_mask_BR: Tensor

    @classmethod
    def of(cls, owner_B: Tensor, length_B: Tensor, is_real_BL: Tensor, num_prompts: int) -> "SharedPrompts":
        """length_B: tokens of the prompt. Rows with the same owner have the same one."""
        total_B, number_B = is_real_BL.sum(dim=1), torch.arange(len(owner_B), device=owner_B.device)
        first_V = number_B.new_full((num_prompts,), len(owner_B)).scatter_reduce(0, owner_B, number_B, "amin")
        prompt_L = torch.arange(int(length_B.max()), device=owner_B.device)
        rest_BR = length_B[:, None] + torch.arange(int((total_B - length_B).max()), device=owner_B.device)
        return cls(
            owner_B=owner_B,
            length_B=length_B,
            first_V=first_V,
            prompt_L=prompt_L,
            prompt_mask_VL=prompt_L < length_B[first_V, None],
            rest_BR=rest_BR.clamp(max=is_real_BL.shape[1] - 1),
            rest_mask_BR=rest_BR < total_B[:, None],
        )

    @property
    def row_B1(self) -> Tensor:
        """Numbers of the rows."""
        return torch.arange(len(self.owner_B), device=self.owner_B.device)[:, None]

    def prompts(self, values_BL: Tensor) -> Tensor:
        """Of each prompt, [V, P, ...]."""
        return values_BL[self.first_V][:, self.prompt_L]

    def rests(self, values_BL: Tensor) -> Tensor:
        """What follows the prompt in each row, [B, R, ...]."""
        return values_BL[self.row_B1, self.rest_BR]

    def places(self, width: int) -> Tensor:
        """Where token l of a row is among the columns of a prompt and one rest: [B, width].

        The prompt's l below its length, l - length of the rest from there on; the last of the rest for padding.
        """
        place_L = torch.arange(width, device=self.length_B.device)
        after_BL = place_L - self.length_B[:, None]
        return torch.where(after_BL < 0, place_L, len(self.prompt_L) + after_BL.clamp(max=self.rest_BR.shape[1] - 1))


def cached_prompts(language_model: Any, rows: LLMInput, vision: VisionFeatures, shared: SharedPrompts) -> Layers:
    """The same numbers and gradients as `whole_rows`, for V prompts and B completions instead of B of both."""
    prompts = language_model(
        inputs_embeds=shared.prompts(rows.embeds_BLD),
        attention_mask=shared.prompt_mask_VL,
        position_ids=rows.positions_3BL[:, shared.first_V][..., shared.prompt_L],
        **_deepstack(vision, shared.prompts(rows.is_vision_BL)),
        use_cache=True,
        output_hidden_states=True,
    )
    for layer in prompts.past_key_values.layers:
        layer.keys, layer.values = layer.keys[shared.owner_B], layer.values[shared.owner_B]
    rest = language_model(
        inputs_embeds=shared.rests(rows.embeds_BLD),
        attention_mask=_mask_of_rests(rows, shared),
        position_ids=rows.positions_3BL[:, shared.row_B1, shared.rest_BR],
        past_key_values=prompts.past_key_values,
        use_cache=True,
        output_hidden_states=True,
    )
    place_BL = shared.places(rows.embeds_BLD.shape[1])

    def layers(entry: int) -> Tensor:
        both = torch.cat([prompts.hidden_states[entry][shared.owner_B], rest.hidden_states[entry]], dim=1)
        return both[shared.row_B1, place_BL]

    return layers


def _mask_of_rests(rows: LLMInput, shared: SharedPrompts) -> Tensor:
    """What is read by the tokens after a prompt: [B, K], or with a reach of their own [B, 1, R, K]."""
    is_real_BK = torch.cat([shared.prompt_mask_VL[shared.owner_B], shared.rest_mask_BR], dim=1)
    if rows.reach_BL is None:
        return is_real_BK
    place_BK = torch.cat([shared.prompt_L.expand(len(is_real_BK), -1), shared.rest_BR], dim=1)
    return reading_mask(shared.rest_BR, shared.rests(rows.reach_BL), place_BK, is_real_BK)


class Work(NamedTuple):
    """Of one pass: tokens in the linear layers, and pairs of tokens that the attention kernel computes."""

    tokens: int
    pairs: int

    @classmethod
    def of(cls, sequences: int, length: int, *, has_mask: bool) -> "Work":
        """With a mask every pair is computed, those that are not read too; without one the kernel skips that half."""
        return cls(sequences * length, sequences * length**2 // (1 if has_mask else 2))


def packing_pays(packed: Work, whole: Work, *, pairs_per_token: float) -> bool:
    """Whether the packed pass costs less than that of whole rows: cost = pairs_per_token x tokens + pairs.

    For G answers of R tokens after a prompt of P that is P + G R against G (P + R) tokens, and (P + G R)^2 against
    G (P + R)^2 pairs (half as many where no row is padded). So a long prompt with short answers is packed, and long
    answers are not, whose blocks of one answer and another are computed for nothing. The mask takes as many bytes as
    there are pairs. Measured: docs/benchmarks/packed_group.md.
    """
    return pairs_per_token * packed.tokens + packed.pairs < pairs_per_token * whole.tokens + whole.pairs


def pairs_per_token(config: Any) -> float:
    """Of an LLM: multiplications of a layer's linear maps for one token, in those of its attention for one pair of tokens.

    576 in the tiny backbone of the tests, 12,288 in Qwen3-VL-2B.
    """
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    queries, keys = config.num_attention_heads * head, config.num_key_value_heads * head
    per_token = config.hidden_size * (2 * queries + 2 * keys + 3 * config.intermediate_size)
    return per_token / (2 * queries)


def is_packed(language_model: Any, rows: LLMInput, shared: SharedPrompts) -> bool:
    """Whether rows are packed where there is no cache: never for a kernel other than sdpa, for which no block mask is made here."""
    config, (num_rows, length) = language_model.config, rows.is_real_BL.shape
    if config._attn_implementation != "sdpa":
        return False
    size = int(shared.owner_B.bincount().max())
    width = len(shared.prompt_L) + size * shared.rest_BR.shape[1]
    has_mask = rows.reach_BL is not None or not bool(rows.is_real_BL.all())
    packed, whole = (
        Work.of(len(shared.first_V), width, has_mask=True),
        Work.of(num_rows, length, has_mask=has_mask),
    )
    return packing_pays(packed, whole, pairs_per_token=pairs_per_token(config))


def packed_prompts(language_model: Any, rows: LLMInput, vision: VisionFeatures, shared: SharedPrompts) -> Layers:
    """As `cached_prompts`, in one pass of V sequences; for the kernel sdpa."""
    packing = Packing.of(shared)
    output = language_model(
        inputs_embeds=packing.pack(rows.embeds_BLD),
        attention_mask=packing.mask(rows, shared),
        position_ids=torch.stack([packing.pack(axis_BL) for axis_BL in rows.positions_3BL]),
        **_deepstack(vision, packing.pack(rows.is_vision_BL) & packing.is_prompt_W),
        use_cache=False,
        output_hidden_states=True,
    )
    place_BL = packing.places(shared, rows.embeds_BLD.shape[1])
    return lambda entry: output.hidden_states[entry][shared.owner_B[:, None], place_BL]


@dataclass(frozen=True)
class Packing:
    """Which token of which row stands in each column of a packed sequence, which has as many rests as the largest group rows.

    row_VW, place_VW: the token. rest_W: which rest it belongs to, -1 in the prompt. is_real_VW: not padding.
    order_B: which rest of its sequence a row has.
    """

    row_VW: Tensor
    place_VW: Tensor
    rest_W: Tensor
    is_real_VW: Tensor
    order_B: Tensor

    @classmethod
    def of(cls, shared: SharedPrompts) -> "Packing":
        """Prompts padded to the longest, then the rests of each one's rows, padded to the longest."""
        num_prompts, device = len(shared.first_V), shared.owner_B.device
        is_mine_BV = shared.owner_B[:, None] == torch.arange(num_prompts, device=device)
        order_B = (is_mine_BV.cumsum(dim=0) - 1).gather(1, shared.owner_B[:, None])[:, 0]
        size, width = int(order_B.max()) + 1, shared.rest_BR.shape[1]
        row_VS = shared.first_V[:, None].repeat(1, size)  # where a group has fewer rows, one of them as padding
        row_VS[shared.owner_B, order_B] = shared.row_B1[:, 0]
        has_row_VS = torch.zeros_like(row_VS, dtype=torch.bool)
        has_row_VS[shared.owner_B, order_B] = True
        rest_mask_VSR = shared.rest_mask_BR[row_VS] & has_row_VS[..., None]
        prompt = len(shared.prompt_L)
        return cls(
            row_VW=torch.cat(
                [shared.first_V[:, None].expand(-1, prompt), row_VS.repeat_interleave(width, dim=1)], dim=1
            ),
            place_VW=torch.cat([shared.prompt_L.expand(num_prompts, -1), shared.rest_BR[row_VS].flatten(1)], dim=1),
            rest_W=torch.cat(
                [torch.full_like(shared.prompt_L, -1), torch.arange(size, device=device).repeat_interleave(width)]
            ),
            is_real_VW=torch.cat([shared.prompt_mask_VL, rest_mask_VSR.flatten(1)], dim=1),
            order_B=order_B,
        )

    @property
    def is_prompt_W(self) -> Tensor:
        """Columns of the prompt."""
        return self.rest_W < 0

    def pack(self, values_BL: Tensor) -> Tensor:
        """[B, L, ...] -> [V, W, ...]."""
        return values_BL[self.row_VW, self.place_VW]

    def mask(self, rows: LLMInput, shared: SharedPrompts) -> Tensor:
        """[V, 1, W, W], True where a token may be read: one of the prompt or of the same rest, within the reach."""
        reach_VW = self.place_VW + 1 if rows.reach_BL is None else self.pack(rows.reach_BL)
        may_read_V1WW = reading_mask(self.place_VW, reach_VW, self.place_VW, self.is_real_VW)
        return may_read_V1WW & (self.is_prompt_W | (self.rest_W[:, None] == self.rest_W))

    def places(self, shared: SharedPrompts, width: int) -> Tensor:
        """Where token l of a row is in its packed sequence: [B, width]."""
        place_BL, prompt, rest = shared.places(width), len(shared.prompt_L), shared.rest_BR.shape[1]
        return torch.where(place_BL < prompt, place_BL, place_BL + self.order_B[:, None] * rest)


def _deepstack(vision: VisionFeatures, is_vision_BL: Tensor) -> dict[str, Any]:
    """What Qwen3-VL's LLM adds to its first layers; nothing in Qwen2.5-VL."""
    features = [torch.cat(layer) for layer in vision.deepstack]
    return {"visual_pos_masks": is_vision_BL, "deepstack_visual_embeds": features} if features else {}
