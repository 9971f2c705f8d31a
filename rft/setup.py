"""What a trainer rank needs before the loop: accelerator, model, optimizer."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import set_seed
from transformers import get_scheduler

from configs.rft import RFTConfig
from data.dataset import PromptEncoder
from evaluation.vllm_engine import SamplingArgs
from model.backbone import freeze_vision_tower
from model.build import as_trained, load_checkpoint, make_optimizer
from model.grounding_model import GroundingModel
from model.lora import add_lora


@dataclass
class Learner:
    """The policy and what updates it; `model` may be wrapped by DDP, `unwrapped` is not."""

    accelerator: Accelerator
    model: Any
    unwrapped: GroundingModel
    processor: Any
    encoder: PromptEncoder
    optimizer: Any
    schedule: Any

    def all_ranks(self, values: torch.Tensor) -> torch.Tensor:
        """The values of every rank; every rank must call."""
        gathered: Any = self.accelerator.gather(values)
        return gathered

    def mean_over_ranks(self, value: float) -> float:
        """The mean of a number that every rank has; every rank must call."""
        return float(self.all_ranks(torch.tensor([float(value)], device=self.accelerator.device)).mean())

    def largest_over_ranks(self, value: int) -> int:
        """The largest of a number that every rank has; every rank must call."""
        return int(self.all_ranks(torch.tensor([value], device=self.accelerator.device)).max())

    def clip_gradient(self, max_norm: float) -> float:
        """Scale the gradient down to at most `max_norm`; -> its norm before, the same on every rank."""
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), max_norm)
        assert norm is not None
        return float(norm)

    def gathered_state(self) -> dict[str, torch.Tensor]:
        """All weights, on the main rank; every rank must call."""
        state: Any = self.accelerator.get_state_dict(self.model)
        return state


def build_learner(config: RFTConfig, *, resumed: Path | None = None) -> Learner:
    """Load the checkpoint, or the run's own that it is resumed from, in float32; freeze what is frozen; wrap."""
    set_seed(config.run.seed)
    accelerator = make_accelerator(config)
    start = config.checkpoint if config.lora is not None else resumed or config.checkpoint
    model, processor = load_checkpoint(start, dtype="float32")
    if config.lora is not None:
        add_lora(model, config.lora, resumed=resumed)
    data, answer_format = as_trained(config.data, model.config), model.grounder.answer_format
    encoder = PromptEncoder(processor, data, answer_format=answer_format)
    model.train()
    if config.freeze_vision:
        freeze_vision_tower(model.mllm)
    if config.objective.decoder_update == "frozen":
        model.grounder.requires_grad_(False)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    optimizer = make_optimizer(model, config.optim)
    # Not prepared: accelerate would step it once for every rank.
    schedule = get_scheduler(config.optim.lr_scheduler_type, optimizer, config.optim.warmup_steps, config.max_steps)
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    return Learner(accelerator, wrapped, model, processor, encoder, optimizer, schedule)


def use_threads(accelerator: Accelerator, asked: int | None) -> None:
    """Torch's threads of a rank on CPU: as many as were asked for (launchers/ray_cluster.py), else its share of the cores.

    Ray gives a worker one; but ranks and engine take turns, so all cores are free while one works.
    """
    if accelerator.device.type == "cpu":
        torch.set_num_threads(asked or max(1, num_cores() // accelerator.num_processes))


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def make_accelerator(config: RFTConfig) -> Accelerator:
    """accelerate with the config's precision; DDP where there are several ranks."""
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision="bf16" if config.dtype == "bfloat16" else "no",
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    # Weights are stored as a checkpoint folder (rft/checkpointing.py), and read from one in `build_learner`.
    accelerator.register_save_state_pre_hook(lambda models, weights, folder: weights.clear())
    accelerator.register_load_state_pre_hook(lambda models, folder: models.clear())
    return accelerator


def sampling_args(config: RFTConfig, learner: Learner) -> SamplingArgs:
    """How completions are drawn; no token that stands for pixels may be."""
    return SamplingArgs(
        num_generations=config.rollout.num_generations,
        temperature=config.rollout.temperature,
        max_completion_length=config.rollout.max_completion_length,
        eos_id=learner.processor.tokenizer.eos_token_id,
        banned_ids=tuple(learner.unwrapped.banned_ids),
    )
