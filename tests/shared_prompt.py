"""Groups whose prompt is shared, the same with the prompt repeated, and what a backward gives for either.

    torchrun --nproc_per_node 2 tests/shared_prompt.py CHECKPOINT DATA.json

compares them under DeepSpeed ZeRO-2 and prints `largest_error` of each rank, cached and packed.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from configs.data import DataConfig
from data.collate import Batch, collate_inputs
from data.dataset import PromptEncoder
from data.encoding import text_ids
from data.sources import load_samples
from data.types import GroundingSample
from model.build import load_checkpoint
from model.grounding_model import GroundingModel

RELATIVE = 1e-5


def groups_of(
    encoder: PromptEncoder, samples: Sequence[GroundingSample], size: int, *, extra_words: int = 0
) -> tuple[Batch, Batch]:
    """`size` completions of one prompt and two of another, with frames for the decoder: shared, repeated."""
    prompts = [encoder(samples[0]), encoder(replace(samples[3], query="what is that?"))]
    owner = [0, 1, *[0] * (size - 1), 1]
    texts = [f"<time> {i % 4}.0 - {i / 4:.2f} </time>" + " and" * (i % 3 + extra_words) for i in range(len(owner))]
    answers = [text_ids(encoder.processor, text) for text in texts]
    frames = [[i % 5, 5 + i % 7] for i in range(len(owner))]
    args: dict[str, Any] = {"num_queries": 4, "pad_id": encoder.processor.tokenizer.pad_token_id}
    shared = collate_inputs(prompts, answers, frames, vision_of_row=owner, **args)
    return shared, collate_inputs([prompts[p] for p in owner], answers, frames, **args)


def loss_of(output: Any) -> Tensor:
    """Every token and every box, each with a weight of its own, over the number of rows."""
    logps_BL, boxes = output.logps_BL, output.grounding.boxes_cxcywh_NBF4
    weights_B1 = torch.linspace(-1, 1, len(logps_BL))[:, None] + 0.1
    return ((weights_B1 * logps_BL).sum() + boxes.square().sum()) / len(logps_BL)


def logps_and_gradients(model: GroundingModel, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """One forward and backward; gradients by parameter."""
    model.zero_grad()
    output = model(**batch)
    loss_of(output).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return output.logps_BL.detach(), gradients


def largest_error(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """Over parameters: norm of the difference / norm of the gradient.

    Some gradients are zero by theory, such as those of a key's bias, and are rounding alone: none counts as smaller than a
    thousandth of the largest.
    """
    largest = max(float(gradient.norm()) for gradient in theirs.values())
    return max(
        float((ours[name] - gradient).norm() / gradient.norm().clamp(min=1e-3 * largest))
        for name, gradient in theirs.items()
    )


def checkpointed(model: GroundingModel) -> GroundingModel:
    """A shared prompt may be packed then, since every layer of the LLM is computed again in the backward pass."""
    model.train()
    model.gradient_checkpointing_enable()
    return model


def gradients_under_zero2(folder: str, batch: Batch, *, is_checkpointed: bool = False) -> dict[str, Tensor]:
    """Of a checkpoint's model after one backward: the mean over ranks, collected from all of them."""
    import deepspeed
    from deepspeed.utils import safe_get_full_grad

    model = load_checkpoint(folder, dtype="float32")[0].train()
    if is_checkpointed:
        checkpointed(model)
    settings = {
        "train_micro_batch_size_per_gpu": 1,
        "zero_optimization": {"stage": 2},
        "optimizer": {"type": "AdamW", "params": {"torch_adam": True}},
        "zero_allow_untested_optimizer": True,
    }
    initialize: Any = deepspeed.initialize
    engine, *_ = initialize(model=model, model_parameters=model.parameters(), config=settings)
    engine.backward(loss_of(engine(**batch)))
    gradients: dict[str, Any] = {name: safe_get_full_grad(p) for name, p in model.named_parameters()}
    return {name: gradient for name, gradient in gradients.items() if gradient is not None}


def main() -> None:
    """One rank: groups of its own samples, shared and repeated."""
    import deepspeed

    deepspeed.init_distributed(dist_backend="gloo")
    folder, data = sys.argv[1], DataConfig.model_validate_json(Path(sys.argv[2]).read_text())
    encoder = PromptEncoder(load_checkpoint(folder, dtype="float32")[1], data)
    samples = [sample for sample in load_samples(data, data.train_split) if sample.task == "stvg"]
    shared, repeated = groups_of(encoder, samples[4 * int(os.environ["RANK"]) :], 5)
    theirs = gradients_under_zero2(folder, repeated)
    for is_checkpointed in (False, True):
        ours = gradients_under_zero2(folder, shared, is_checkpointed=is_checkpointed)
        assert ours.keys() == theirs.keys() and len(ours) > 100
        sys.stdout.write(f"largest_error {largest_error(ours, theirs)}\n")


if __name__ == "__main__":
    main()
