"""TRL's SFTTrainer with our batch, our loss and our parameter groups; accumulation, schedule and DeepSpeed are its own.

TRL 1.16 has no video collator and its loss reads logits, so both are replaced: the collator by argument, `compute_loss`
by override. `create_optimizer` is the other override: DeepSpeed drops an optimizer that is passed in and calls it.

A micro-batch's loss is a mean over what it holds (its answers' tokens, its boxes), and micro-batches and ranks count
alike: with very small micro-batches of mixed tasks the box losses weigh less than in one large batch.
"""

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import SFTTrainer

from configs.model import LossConfig
from configs.optim import OptimConfig
from configs.run import Run
from data.dataset import model_inputs
from model.build import make_optimizer
from model.criterion import supervised_loss


class MetricsCallback(TrainerCallback):
    """Averages loss terms between two log events and hands everything to the run."""

    def __init__(self, run: Run | None) -> None:
        self.run = run
        self._terms: dict[str, list[float]] = defaultdict(list)

    def record(self, terms: dict[str, Tensor]) -> None:
        """Keep one step's terms."""
        for name, value in terms.items():
            self._terms[name].append(float(value.detach()))

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        """Write one line of metrics."""
        if self.run is None or not self._terms:
            return
        metrics = {f"loss/{name}": sum(values) / len(values) for name, values in self._terms.items()}
        for ours, theirs in (("loss/total", "loss"), ("optim/grad_norm", "grad_norm"), ("optim/lr", "learning_rate")):
            if theirs in (logs or {}):
                metrics[ours] = float(logs[theirs])
        self._terms.clear()
        self.run.log(metrics, step=state.global_step)


class GroundingSFTTrainer(SFTTrainer):
    """SFTTrainer on GroundingModel."""

    def __init__(
        self, *args: Any, loss_weights: LossConfig, optim: OptimConfig, metrics: MetricsCallback, **kwargs: Any
    ) -> None:
        super().__init__(*args, callbacks=[metrics], **kwargs)
        self.loss_weights, self.optim, self.metrics = loss_weights, optim, metrics

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW with a learning rate for the MLLM and one for the grounder."""
        if self.optimizer is None:
            grounding_model: Any = self.model if model is None else model
            self.optimizer = make_optimizer(grounding_model, self.optim)
        return self.optimizer

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The supervised loss of one micro-batch; a mean, so accumulation averages micro-batches."""
        output = model(**model_inputs(inputs))
        loss, terms = supervised_loss(output, inputs, self.loss_weights)
        self.metrics.record(terms)
        return (loss, output) if return_outputs else loss
