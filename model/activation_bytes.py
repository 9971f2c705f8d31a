"""Bytes that autograd keeps for the backward pass, counted in one LLM layer, one vision block and the grounder.

The modules run at their full sizes on fake tensors (shapes and dtypes without numbers), the grounder on real ones, since it
may look at which tokens are a frame's; what they save is seen by `saved_tensors_hooks`. A storage counts once; parameters
do not count. Contract with transformers 5.17: the signatures of a decoder layer and of a vision block, tested by
tests/test_sft_plan.py against the memory of a real step.

Shapes: B rows, L tokens, D width of the LLM, C width of the tower, T temporal patches of a sample, P patches and S cells
of one temporal patch, F frames for the spatial decoder, M tapped layers, K bridging queries.
"""

import copy
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import Qwen3VLConfig

from configs.model import ModelConfig
from model.backbone import LLMStates, VisionFeatures, decoder_layers
from model.grounder import Grounder
from model.grounding_model import GroundingModel
from model.shapes import empty_model


@dataclass(frozen=True)
class BatchShape:
    """One micro-batch of one rank. grid: (time, height, width) of a sample's vision input in patches."""

    rows: int
    tokens: int
    frames: int
    grid: tuple[int, int, int]

    @property
    def patches(self) -> int:
        """Of all rows."""
        return self.rows * int(np.prod(self.grid))


@dataclass(frozen=True)
class Precision:
    """weights: of what the forward reads. autocast: float32 weights and bfloat16 products, torch.autocast."""

    weights: torch.dtype
    autocast: bool = False


class Saved(NamedTuple):
    """activations: what one call keeps. casts: what calls share, autocast's copies of the weights.

    peak: the most that one call and its backward pass take together, these included, and the gradients of its weights.
    """

    activations: int
    casts: int
    peak: int


@dataclass(frozen=True)
class ActivationBytes:
    """llm_layer, vision_block: of one layer. llm_input, vision_input: the layer's input, what checkpointing keeps of it.

    merging: of patch embedding and mergers; 0 where the tower is frozen, as is vision_block. grounder: of all of it.
    features: the tower's outputs, which live until the grounder has read them; pixels: the batch's, float32.
    """

    llm_layer: Saved
    llm_input: int
    vision_block: Saved
    vision_input: int
    merging: int
    grounder: int
    features: int
    pixels: int


def count_activations(
    config: ModelConfig, backbone: Qwen3VLConfig, batch: BatchShape, precision: Precision
) -> ActivationBytes:
    """Count them for the sizes of `backbone`, whatever its depth: layers are alike."""
    vision, width = _vision(backbone), _text(backbone).hidden_size
    shallow = _shallow(backbone, num_layers=max(1, len(empty_model(config, backbone).taps)))
    model, grounder = empty_model(config, shallow), empty_model(config, shallow)
    grounder_bytes = _grounder(grounder, batch, precision, _stream(precision))
    with FakeTensorMode():
        _on_cpu(model, precision.weights)
        stream = _stream(precision)
        is_vision_trained = any(parameter.requires_grad for parameter in model.mllm.model.visual.parameters())
        nothing = Saved(0, 0, 0)
        cells = batch.patches // vision.spatial_merge_size**2
        return ActivationBytes(
            llm_layer=_llm_layer(model, batch, precision, stream),
            llm_input=batch.rows * batch.tokens * width * stream.itemsize,
            vision_block=_vision_block(model, batch, precision, stream) if is_vision_trained else nothing,
            vision_input=batch.patches * vision.hidden_size * stream.itemsize if is_vision_trained else 0,
            merging=_merging(model, batch, precision, stream) if is_vision_trained else 0,
            grounder=grounder_bytes,
            features=(
                batch.patches * vision.hidden_size * stream.itemsize
                + cells * width * _products(precision).itemsize * (1 + len(vision.deepstack_visual_indexes))
            ),
            pixels=batch.patches * vision.in_channels * vision.temporal_patch_size * vision.patch_size**2 * 4,
        )


def _stream(precision: Precision) -> torch.dtype:
    """Of what goes from layer to layer."""
    return torch.bfloat16 if precision.weights == torch.bfloat16 else torch.float32


def _products(precision: Precision) -> torch.dtype:
    """Of a matrix product's result."""
    return torch.bfloat16 if precision.autocast else precision.weights


def _shallow(backbone: Qwen3VLConfig, *, num_layers: int) -> Qwen3VLConfig:
    """The same widths with as few layers as the grounder needs, and one vision block."""
    shallow = copy.deepcopy(backbone)
    text, vision = _text(shallow), _vision(shallow)
    text.num_hidden_layers = num_layers
    vision.depth, vision.deepstack_visual_indexes = 1, [0]
    return shallow


def _on_cpu(model: nn.Module, dtype: torch.dtype) -> None:
    """Meta weights become fake ones of the CPU, whose kernels keep what CUDA's keep, and which autocast knows."""
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                fake = torch.empty(weight.shape, dtype=dtype)
                module._parameters[name] = nn.Parameter(fake, requires_grad=weight.requires_grad)
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else torch.empty(buffer.shape, dtype=buffer.dtype)


def _text(config: Any) -> Any:
    """Typed as a dict by transformers."""
    return config.text_config


def _vision(config: Any) -> Any:
    return config.vision_config


def _llm_layer(model: GroundingModel, batch: BatchShape, precision: Precision, stream: torch.dtype) -> Saved:
    layer, text = decoder_layers(model.mllm)[0], _text(model.mllm.config)
    angles = tuple(torch.empty(batch.rows, batch.tokens, text.head_dim, dtype=stream) for _ in range(2))
    # Rows of unequal length and slots beside their frames need a mask; without one, attention is causal by a flag.
    is_masked = batch.rows > 1 or type(model.grounder).query_reach is not Grounder.query_reach
    mask = torch.ones(batch.rows, 1, batch.tokens, batch.tokens, dtype=torch.bool) if is_masked else None

    def call() -> Any:
        hidden = torch.empty(batch.rows, batch.tokens, text.hidden_size, dtype=stream, requires_grad=True)
        return layer(hidden, position_embeddings=angles, attention_mask=mask)

    return _saved(call, layer, precision, shared=angles if mask is None else [*angles, mask])


def _vision_block(model: GroundingModel, batch: BatchShape, precision: Precision, stream: torch.dtype) -> Saved:
    tower = model.mllm.model.visual
    width, (time, rows, columns) = tower.config.hidden_size, batch.grid
    angles = tuple(torch.empty(batch.patches, width // tower.config.num_heads) for _ in range(2))
    # Attention stays within a temporal patch. An array: the block needs these numbers, and fake tensors have none.
    ends: Any = np.arange(batch.rows * time + 1) * (rows * columns)

    def call() -> Any:
        hidden = torch.empty(batch.patches, width, dtype=stream, requires_grad=True)
        return tower.blocks[0](hidden, cu_seqlens=ends, max_seqlen=rows * columns, position_embeddings=angles)

    return _saved(call, tower.blocks[0], precision, shared=angles)


def _merging(model: GroundingModel, batch: BatchShape, precision: Precision, stream: torch.dtype) -> int:
    tower, vision = model.mllm.model.visual, _vision(model.mllm.config)
    hidden = torch.empty(batch.patches, vision.hidden_size, dtype=stream, requires_grad=True)
    last, deepstack = (
        _kept(_saved(lambda module=module: module(hidden), module, precision, shared=[hidden]))
        for module in (tower.merger, tower.deepstack_merger_list[0])
    )
    return last + deepstack * len(vision.deepstack_visual_indexes)


def _grounder(model: GroundingModel, batch: BatchShape, precision: Precision, stream: torch.dtype) -> int:
    """Bytes. Its weights have no numbers that matter."""
    text, vision = _text(model.mllm.config), _vision(model.mllm.config)
    time, height, width = batch.grid
    num_cells = height * width // vision.spatial_merge_size**2
    grounder = model.grounder.to_empty(device="cpu").to(precision.weights)

    def new(*shape: int, dtype: torch.dtype = stream) -> Tensor:
        return torch.zeros(*shape, dtype=dtype, requires_grad=True)

    grid: Any = np.array([batch.grid] * batch.rows)
    features = VisionFeatures(
        merged=tuple(new(time * num_cells, text.hidden_size, dtype=_products(precision)) for _ in grid),
        deepstack=(),
        patches=tuple(new(time * height * width, vision.hidden_size) for _ in grid),
        grid_V3=grid,
        merge=vision.spatial_merge_size,
    )
    num_slots = batch.frames if model.num_queries == "per_frame" else model.num_queries
    states = LLMStates(
        new(batch.rows, batch.tokens, text.hidden_size),
        new(batch.rows, len(model.taps), num_slots, text.hidden_size) if model.taps else None,
        tuple(new(time, num_cells, text.hidden_size) for _ in grid),
    )
    inputs = _inputs(batch, num_vision=time * num_cells, num_slots=num_slots)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision.autocast):
        kept = _storages(lambda: grounder(states, features, inputs))
    return sum(kept[key] for key in kept.keys() - {_key(parameter) for parameter in grounder.parameters()})


def _inputs(batch: BatchShape, *, num_vision: int, num_slots: int) -> dict[str, Tensor]:
    """Rows of data/collate.py: a token, the video, the question, and the slots."""
    type_ids, query_mask = torch.zeros(2, batch.rows, batch.tokens, dtype=torch.long)
    type_ids[:, 1 : 1 + num_vision] = 2
    query_mask[:, batch.tokens - num_slots :] = 1
    return {
        "attention_mask": torch.ones_like(type_ids),
        "mm_token_type_ids": type_ids,
        "query_mask": query_mask.bool(),
        "prompt_length": torch.full((batch.rows,), batch.tokens - num_slots),
        "grid_thw": torch.tensor([batch.grid] * batch.rows),
        "vision_of_row": torch.arange(batch.rows),
        "vision_is_image": torch.zeros(batch.rows, dtype=torch.bool),
        "frame_position": torch.zeros(batch.rows, batch.frames, dtype=torch.long),
        "frame_time_sec": torch.zeros(batch.rows, batch.frames),
    }


def _kept(saved: Saved) -> int:
    return saved.activations + saved.casts


def _saved(call: Callable[[], Any], module: nn.Module, precision: Precision, *, shared: Sequence[Tensor]) -> Saved:
    """Of one call. It is made twice: what both keep is not theirs, but autocast's copies of the weights."""
    known = {_key(tensor) for tensor in [*module.parameters(), *shared]}
    with torch.autocast("cpu", torch.bfloat16, enabled=precision.autocast):
        first, second = _storages(call), _storages(call)
    casts = (first.keys() & second.keys()) - known
    with _LiveBytes() as live:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision.autocast):
            output = [tensor for tensor in tree_leaves(call()) if isinstance(tensor, Tensor) and tensor.requires_grad]
        torch.autograd.backward(output, [torch.empty_like(tensor) for tensor in output])
    return Saved(
        activations=sum(size for key, size in second.items() if key not in known | casts),
        casts=sum(second[key] for key in casts),
        peak=live.peak,
    )


def _storages(call: Callable[[], Any]) -> dict[int, int]:
    """Storage -> bytes of what autograd keeps of the call."""
    kept: list[Tensor] = []
    with saved_tensors_hooks(lambda tensor: (kept.append(tensor), tensor)[1], lambda tensor: tensor):
        output = call()
    storages = {_key(tensor): tensor.untyped_storage().nbytes() for tensor in kept}
    del output
    return storages


class _LiveBytes(TorchDispatchMode):
    """Follows the storages that are made in it, from their making to their end."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {_key(tensor) for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and _key(tensor) not in before | self._known:
                self._add(tensor.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
