"""The video MLLM: a Qwen3-VL, or a Qwen2.5-VL. This file and those that it is made of (model/qwen2_5_vl.py, positions.py,
prompt_pass.py, generation_inputs.py) are the only ones that know their internals in Hugging Face's transformers.

Contracts with transformers 5.17 (tests/test_model_backbone.py fails when upstream moves): `Qwen3VLModel` has `visual`,
`language_model` and `get_rope_index`; the vision tower returns merged features as `pooler_output`, patches before the
merger as `last_hidden_state` (patches of one merged cell are consecutive), and DeepStack features; the text model takes
`visual_pos_masks` and `deepstack_visual_embeds`.

Shapes: B rows, V vision inputs, L tokens, T temporal patches, S cells of one temporal patch, D width of the LLM,
C width of the vision features, N scored tokens, M tapped layers.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import (
    AutoProcessor,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLForConditionalGeneration,
    Qwen3VLVideoProcessor,
)

from model.checkpoint_keys import check_keys, check_model_type
from model.generation_inputs import generation_inputs
from model.positions import rope_positions
from model.prompt_pass import Layers, LLMInput, SharedPrompts, cached_prompts, is_packed, packed_prompts, whole_rows
from model.qwen2_5_vl import bound_pixels, row_by_row, stored_name, use_vllm_positions
from model.side_tokens import beside_frames, reach_of_tokens
from model.vision_features import VisionFeatures

CLASSES: dict[str, Any] = {
    "qwen3_vl": Qwen3VLForConditionalGeneration,
    "qwen2_5_vl": Qwen2_5_VLForConditionalGeneration,
}
"""By the `model_type` of a checkpoint's config."""


def load_mllm(path: str, *, dtype: torch.dtype, attention: str = "sdpa") -> Qwen3VLForConditionalGeneration:
    """A checkpoint by name or folder, strictly. Raises ValueError, naming a wrong model type or weights."""
    loaded: Any = CLASSES[check_model_type(path, tuple(CLASSES))].from_pretrained(
        path,
        dtype=dtype,
        attn_implementation="sdpa" if attention == "flex" else attention,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
    )
    mllm, info = loaded
    check_keys(path, info, is_tied=mllm.config.tie_word_embeddings)
    if mllm.config.model_type == "qwen2_5_vl":
        use_vllm_positions(mllm)
    if attention == "flex":
        use_flex_attention(mllm)
    return mllm


def use_flex_attention(mllm: Qwen3VLForConditionalGeneration) -> None:
    """torch's flex attention in the LLM; the vision tower, which attends without a mask, stays with sdpa.

    transformers 5.17 refuses the name for the dense Qwen3-VL, whose code is that of its mixture of experts, which may have it.
    """
    mllm.model.language_model.config._attn_implementation = "flex_attention"


def load_processor(path: str, *, max_pixels: int | None = None) -> Any:
    """The checkpoint's processor, with the budget of frames x height x width set where it is given."""
    processor = AutoProcessor.from_pretrained(path)
    video = processor.video_processor
    # The default changes to True in transformers 5.22, and with it every token count.
    video.cap_pixels_per_frame = False
    if max_pixels is not None and not isinstance(video, Qwen3VLVideoProcessor):
        bound_pixels(video, max_pixels)
    elif max_pixels is not None:
        video.size = {"shortest_edge": min(video.size["shortest_edge"], max_pixels), "longest_edge": max_pixels}
    return processor


def vision_token_ids(mllm: Qwen3VLForConditionalGeneration) -> list[int]:
    """Ids that stand for pixels. An answer that contains one breaks every later forward, so they are never sampled."""
    config = mllm.config
    return [config.image_token_id, config.video_token_id, config.vision_start_token_id, config.vision_end_token_id]


def encode_vision(mllm: Qwen3VLForConditionalGeneration, pixel_values: Tensor, grid_V3: Tensor) -> VisionFeatures:
    """One call of the vision tower for all images and videos of a batch."""
    tower = mllm.model.visual
    output = tower(pixel_values.to(tower.dtype), grid_thw=grid_V3, return_dict=True)
    is_windowed = mllm.config.model_type == "qwen2_5_vl"
    patches_PC = row_by_row(tower, output.last_hidden_state, grid_V3) if is_windowed else output.last_hidden_state
    layers = () if is_windowed else output.deepstack_features
    patches_V = grid_V3.prod(dim=-1).tolist()
    cells_V = [count // tower.spatial_merge_size**2 for count in patches_V]
    return VisionFeatures(
        merged=torch.split(output.pooler_output, cells_V),
        deepstack=tuple(torch.split(layer, cells_V) for layer in layers),
        patches=torch.split(patches_PC, patches_V),
        grid_V3=grid_V3,
        merge=tower.spatial_merge_size,
    )


class LLMStates(NamedTuple):
    """last_BLD: after the final norm. queries_BMKD: of the query slots after each tapped layer, None without taps; the
    last layer's are after the final norm too. frames: of each row's vision tokens after the middle layer, [T, S, D].
    """

    last_BLD: Tensor
    queries_BMKD: Tensor | None
    frames: tuple[Tensor, ...]


def hidden_states(
    mllm: Qwen3VLForConditionalGeneration,
    batch: dict[str, Tensor],
    vision: VisionFeatures,
    queries_KD: Tensor,
    taps: list[int],
    reach_N: Tensor | None = None,
) -> LLMStates:
    """The one forward of the LLM: prompt, completion and query slots together.

    queries_KD: what stands in the K slots of every row. With reach_N, the tokens that each slot of the batch may read
    (model/side_tokens.py), there is one for each of them, row by row.

    Row b has input vision_of_row[b] of `vision`. Rows with the same input have the same prompt, and where there are
    such rows it is computed once for all of them where that pays (model/prompt_pass.py).
    """
    per_row, query_mask = vision.select(batch["vision_of_row"]), batch["query_mask"].bool()
    queries = queries_KD.expand(len(query_mask), -1, -1) if reach_N is None else queries_KD
    embeds_BLD, positions_3BL = _embeddings(mllm, batch, per_row, queries), rope_positions(mllm, batch, per_row.grid_V3)
    reach_BL = None if reach_N is None else reach_of_tokens(query_mask, reach_N)
    if reach_BL is not None:
        positions_3BL = beside_frames(positions_3BL, query_mask, reach_BL)
    is_vision_BL, is_real_BL = batch["mm_token_type_ids"] > 0, batch["attention_mask"].bool()
    rows = LLMInput(embeds_BLD, positions_3BL, is_vision_BL, is_real_BL, reach_BL)
    layers = _layers(mllm, rows, vision, batch)
    # Entry 0 is the embedding, so layer l's output is entry l + 1.
    tapped = [layers(layer + 1)[query_mask].unflatten(0, (-1, len(queries_KD))) for layer in taps]
    middle_ND = layers(len(decoder_layers(mllm)) // 2)[is_vision_BL]
    frames = middle_ND.split([len(cells) for cells in per_row.merged])
    times = per_row.grid_V3[:, 0].tolist()
    return LLMStates(
        layers(-1),
        torch.stack(tapped, dim=1) if tapped else None,
        tuple(row.unflatten(0, (time, -1)) for row, time in zip(frames, times, strict=True)),
    )


def _layers(
    mllm: Qwen3VLForConditionalGeneration, rows: LLMInput, vision: VisionFeatures, batch: dict[str, Tensor]
) -> Layers:
    """A shared prompt once, but under gradient checkpointing only where that costs less."""
    llm, num_prompts, owner_B = mllm.model.language_model, len(vision.merged), batch["vision_of_row"]
    if num_prompts >= len(owner_B):
        return whole_rows(llm, rows, vision.select(owner_B))
    shared = SharedPrompts.of(owner_B, batch["prompt_length"], rows.is_real_BL, num_prompts)
    if not mllm.is_gradient_checkpointing:
        return cached_prompts(llm, rows, vision, shared)
    if is_packed(llm, rows, shared):
        return packed_prompts(llm, rows, vision, shared)
    return whole_rows(llm, rows, vision.select(owner_B))


def _embeddings(
    mllm: Qwen3VLForConditionalGeneration, batch: dict[str, Tensor], per_row: VisionFeatures, queries: Tensor
) -> Tensor:
    """[B, L, D], vision features and queries in their places."""
    embeds_BLD, is_vision_BL = mllm.get_input_embeddings()(batch["input_ids"]), batch["mm_token_type_ids"] > 0
    pixels_ND = torch.cat(per_row.merged).to(embeds_BLD.dtype)
    if len(pixels_ND) != int(is_vision_BL.sum()):
        raise ValueError(f"{int(is_vision_BL.sum())} placeholder tokens, {len(pixels_ND)} vision features")
    embeds_BLD = embeds_BLD.masked_scatter(is_vision_BL[..., None], pixels_ND)
    return embeds_BLD.masked_scatter(batch["query_mask"].bool()[..., None], queries.to(embeds_BLD.dtype))


def score_tokens(
    mllm: Qwen3VLForConditionalGeneration,
    hidden_BLD: Tensor,
    batch: dict[str, Tensor],
    *,
    banned_ids: list[int],
    temperature: float,
) -> tuple[Tensor, Tensor]:
    """Log-probability and entropy of the tokens in score_mask, in float32; logits are made for these alone.

    The banned ids get probability 0, as in sampling, and logits are divided by the sampling temperature, so that the
    numbers are those of vLLM's `processed_logprobs`. -> logps_BL, entropies_BL, 0 outside score_mask.
    """
    score_mask = batch["score_mask"].bool()
    predicts = score_mask.roll(-1, dims=1)
    predicts[:, -1] = False
    logits_NV = mllm.lm_head(hidden_BLD[predicts]).float() / temperature
    banned = torch.tensor(banned_ids, dtype=torch.long, device=logits_NV.device)
    all_logps_NV = logits_NV.index_fill(1, banned, float("-inf")).log_softmax(dim=-1)
    logps_N = all_logps_NV.gather(1, batch["input_ids"][score_mask][:, None])[:, 0]
    with torch.no_grad():  # reported, not trained
        entropies_N = -(all_logps_NV.exp() * all_logps_NV.nan_to_num(neginf=0.0)).sum(dim=-1)
    empty = torch.zeros(score_mask.shape, dtype=logps_N.dtype, device=logps_N.device)
    return empty.masked_scatter(score_mask, logps_N), empty.masked_scatter(score_mask, entropies_N)


def generate(
    mllm: Qwen3VLForConditionalGeneration,
    prompts: list[Any],
    *,
    max_new_tokens: int,
    eos_id: int,
    banned_ids: list[int],
    temperature: float = 0.0,
) -> list[list[int]]:
    """Completions of EncodedPrompts with transformers' own `generate`; the end-of-turn token is kept.

    temperature 0 is greedy; any other samples from the whole distribution with torch's global generator.
    """
    inputs = generation_inputs(prompts, pad_id=eos_id, device=mllm.device)
    with torch.inference_mode():
        generate_ids: Any = mllm.generate  # pyright: ignore[reportAttributeAccessIssue]
        sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        output = generate_ids(
            **inputs,
            **(sampling if temperature > 0 else {"do_sample": False}),
            max_new_tokens=max_new_tokens,
            eos_token_id=eos_id,
            pad_token_id=eos_id,
            suppress_tokens=banned_ids,
        )
    return [_until_eos(row, eos_id) for row in output[:, inputs["input_ids"].shape[1] :].tolist()]


def _until_eos(ids: list[int], eos_id: int) -> list[int]:
    return ids[: ids.index(eos_id) + 1] if eos_id in ids else ids


def checkpoint_names(state: dict[str, Tensor], config: Any) -> dict[str, Tensor]:
    """Weights under the names that `save_pretrained` writes: a tied output layer is stored once."""
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    rename = stored_name if config.model_type == "qwen2_5_vl" else str
    return {rename(name): tensor for name, tensor in state.items() if name not in tied}


def vision_tower(mllm: Qwen3VLForConditionalGeneration) -> nn.Module:
    """The tower and its mergers."""
    return mllm.model.visual


def freeze_vision_tower(mllm: Qwen3VLForConditionalGeneration) -> None:
    """No gradient for the tower and its mergers."""
    vision_tower(mllm).requires_grad_(False)


def decoder_layers(mllm: Qwen3VLForConditionalGeneration) -> nn.ModuleList:
    """The LLM's layers."""
    return mllm.model.language_model.layers


def vision_width(config: Any, kind: str) -> int:
    """Width of the features that the spatial decoder reads."""
    vision = config.vision_config
    return vision.out_hidden_size if kind == "merged" else vision.hidden_size
