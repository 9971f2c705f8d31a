"""Scoring a GRPO group with its prompt once, against the prompt repeated for every completion; forward and backward.

python -m benchmarks.packed_group --json
python -m benchmarks.packed_group --prompt-tokens 2000 --completions 8 --completion-tokens 100 --repeats 5
python -m benchmarks.packed_group --gradient-checkpointing

The tiny Qwen3-VL of the tests (4 layers of width 128, DeepStack) on one rendered video. The vision tower runs once on both
sides, so what is compared is the LLM and the scoring. Once is cached, and under gradient checkpointing packed where that pays
(model/prompt_pass.py); both sides are checkpointed then, and a layer's input is what they keep of it. Prints

    ratio                       median seconds, repeated / once, the two sides in turn
    memory_ratio                bytes that autograd keeps for one micro-batch of equal tokens: what the prompt-once side
                                needs for the whole group, against repeated rows of as many tokens in all
    memory_ratio_of_the_group   the same for the whole group on both sides
    llm_tokens                  that the LLM reads on each side; as many on both where packing does not pay
    max_abs_diff, max_rel_grad  of the log-probs; of all gradients, relative to their norm
"""

import argparse
import math
import tempfile
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.utils._pytree import tree_leaves

from benchmarks.turns import median_seconds, show
from configs.data import DataConfig
from configs.model import BridgeConfig, ModelConfig
from configs.sources import SyntheticSource
from configs.video import VideoConfig
from data.collate import Batch, collate_inputs
from data.dataset import PromptEncoder
from data.encoding import EncodedPrompt
from data.sources import synthetic
from data.types import FrameSpan, GroundingSample
from model.backbone import VisionFeatures, decoder_layers, encode_vision, hidden_states, score_tokens
from model.build import build_model
from model.grounding_model import GroundingModel
from model.tiny_backbone import make_tiny_backbone

SIZE_PX, FPS = 128, 8.0
FEWEST_TOKENS_PER_PATCH = 5
"""Of a prompt: one cell, since the processor makes the frames of a long video small, and a timestamp."""


@dataclass
class Side:
    """One way to compute a group: `rows` completions on `batch`."""

    model: GroundingModel
    batch: Batch
    is_shared: bool

    def __call__(self) -> Tensor:
        """Forward and backward. -> log-probs."""
        logps_BL = self.forward()
        self.model.zero_grad()
        logps_BL.sum().backward()
        return logps_BL.detach()

    def forward(self) -> Tensor:
        model, batch = self.model, self.batch
        vision: VisionFeatures = encode_vision(model.mllm, batch["pixel_values"], batch["grid_thw"])
        if not self.is_shared:
            rows_B = batch["vision_of_row"]
            vision = vision.select(rows_B)
            batch = batch | {
                "vision_of_row": torch.arange(len(rows_B)),
                "vision_is_image": batch["vision_is_image"][rows_B],
            }
        queries_KD = model.grounder.query_embeddings(batch)
        states = hidden_states(model.mllm, batch, vision, queries_KD, model.taps)
        return score_tokens(model.mllm, states.last_BLD, batch, banned_ids=model.banned_ids, temperature=1.0)[0]

    def llm_tokens(self) -> int:
        """That the LLM reads in one forward, padding included."""
        read: list[int] = []
        hook = lambda module, args, kwargs: read.append(kwargs["inputs_embeds"][..., 0].numel())  # noqa: E731
        handle = self.model.mllm.model.language_model.register_forward_pre_hook(hook, with_kwargs=True)
        with torch.no_grad():
            self.forward()
        handle.remove()
        return sum(read)

    def gradients(self) -> Tensor:
        """All gradients of the LLM as one vector."""
        self()
        parameters = self.model.mllm.model.language_model.parameters()
        return torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])

    def saved_bytes(self) -> int:
        """What is kept for the backward, parameters left out: by autograd, and of checkpointed layers what they are called with."""
        own = {p.untyped_storage().data_ptr() for p in self.model.parameters()}
        kept: dict[int, Tensor] = {}

        def pack(tensor: Tensor) -> Tensor:
            if tensor.untyped_storage().data_ptr() not in own:
                kept[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        def called(layer: Module, args: Any, kwargs: Any) -> None:
            for tensor in tree_leaves((args, kwargs)):
                if isinstance(tensor, Tensor):
                    pack(tensor)

        llm = decoder_layers(self.model.mllm)
        layers = llm if self.model.mllm.is_gradient_checkpointing else []
        hooks = [layer.register_forward_pre_hook(called, with_kwargs=True) for layer in layers]
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            logps_BL = self.forward()
        del logps_BL
        for hook in hooks:
            hook.remove()
        return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt-tokens", type=int, default=2000, help="at least; the video is as long as that takes")
    parser.add_argument("--completions", type=int, default=8, help="of the one prompt")
    parser.add_argument("--completion-tokens", type=int, default=100, help="of each completion")
    parser.add_argument("--repeats", type=int, default=5, help="timed steps; their median counts")
    parser.add_argument(
        "--gradient-checkpointing", action="store_true", help="of both sides: once is packed where that pays"
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of a table")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(folder, arguments)
    show(result, as_json=arguments.json)


def measure(folder: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Both sides in turn, then their memory and their differences."""
    make = sides(folder, arguments.prompt_tokens, arguments.completion_tokens)
    once, each = make(arguments.completions, True), make(arguments.completions, False)
    if arguments.gradient_checkpointing:
        once.model.train()  # that of both sides
        once.model.gradient_checkpointing_enable()
    prompt_length = int(once.batch["prompt_length"][0])
    row_tokens = prompt_length + arguments.completion_tokens
    group_tokens = prompt_length + arguments.completions * arguments.completion_tokens
    medians = median_seconds({"once": once, "each": each}, arguments.repeats)
    saved = {name: side.saved_bytes() for name, side in (("once", once), ("each", each), ("row", make(1, False)))}
    difference = once.gradients() - each.gradients()
    return {
        "benchmark": "packed_group",
        "prompt_tokens": prompt_length,
        "completions": arguments.completions,
        "completion_tokens": arguments.completion_tokens,
        "gradient_checkpointing": arguments.gradient_checkpointing,
        "ratio": round(medians["each"] / medians["once"], 3),
        "memory_ratio": round(saved["row"] * group_tokens / row_tokens / saved["once"], 3),
        "memory_ratio_of_the_group": round(saved["each"] / saved["once"], 3),
        "max_abs_diff": float((once() - each()).abs().max()),
        "max_rel_grad": float(difference.norm() / each.gradients().norm()),
        "llm_tokens": {"once": once.llm_tokens(), "each": each.llm_tokens()},
        "seconds": {name: round(value, 4) for name, value in medians.items()},
        "saved_mib": {name: round(value / 2**20, 1) for name, value in saved.items()},
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def sides(folder: str, prompt_tokens: int, completion_tokens: int) -> Callable[[int, bool], Side]:
    """How to make a side: number of completions, and whether their prompt is shared."""
    num_frames = 2 * math.ceil(prompt_tokens / FEWEST_TOKENS_PER_PATCH)
    source = SyntheticSource(
        root=f"{folder}/videos", num_videos={"train": 1}, size_px=SIZE_PX, fps=FPS, duration_sec=(num_frames + 1) / FPS
    )
    synthetic.render(source, num_processes=1)
    samples = synthetic.load(source, "train").samples
    make_tiny_backbone(samples, f"{folder}/backbone")
    data = DataConfig(source=source, video=VideoConfig(sample_fps=FPS, max_frames=num_frames))
    bridge = BridgeConfig(num_queries=1, width=32, num_layers=1, num_heads=4, ffn_width=64)
    model, processor = build_model(ModelConfig(backbone=f"{folder}/backbone", dtype="float32", bridge=bridge), data)
    prompt = prompt_of_length(PromptEncoder(processor, data), samples[0], prompt_tokens)
    ids = torch.randint(300, 500, (64, completion_tokens), generator=torch.Generator().manual_seed(0)).tolist()
    args = {"num_queries": model.num_queries, "pad_id": processor.tokenizer.pad_token_id}

    def make(count: int, is_shared: bool) -> Side:
        return Side(
            model, collate_inputs([prompt], ids[:count], [[0]] * count, vision_of_row=[0] * count, **args), is_shared
        )

    return make


def prompt_of_length(encode: PromptEncoder, sample: GroundingSample, prompt_tokens: int) -> EncodedPrompt:
    """Of the first frames of the video, as many as give at least so many tokens."""

    def of_frames(count: int) -> EncodedPrompt:
        return encode(replace(sample, clip=FrameSpan(0, count), span=None, boxes_xyxy_px=None))

    counts = range(2, len(sample.clip) + 1, 2)
    return of_frames(counts[bisect_left(counts, prompt_tokens, key=lambda count: len(of_frames(count).input_ids_L))])


if __name__ == "__main__":
    main()
