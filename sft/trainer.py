"""TRL's SFTTrainer with our batch, our loss and our parameter groups; accumulation, schedule and DeepSpeed are its own.

TRL 1.16 has no video collator and its loss reads logits, so both are replaced: the collator by argument, `compute_loss`
by override. `create_optimizer` is an override because DeepSpeed drops an optimizer that is passed in and calls it;
`prediction_step`, `_save` and `_load_from_checkpoint` because theirs expect logits and one file of weights.

A loss is a mean over what the whole step holds (its answers' tokens, its boxes): `get_batch_samples` counts the targets
of all micro-batches and ranks before the first forward, so that however a step is cut, its loss and gradient are the same.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import reduce
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import SFTTrainer

from configs.checkpoints import CheckpointStore
from configs.model import LossConfig
from configs.optim import OptimConfig
from configs.run import Run
from data.dataset import model_inputs
from model.build import make_optimizer, save_checkpoint
from model.criterion import supervised_loss, target_counts
from sft.errors import NonFiniteLoss
from sft.unreadable import UnreadableRows


def summed_over_ranks(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Scalars of one dtype, in one collective; every rank calls with the same names in the same order."""
    total: Any = reduce(torch.stack(list(values.values())), reduction="sum")
    return dict(zip(values, total, strict=True))


class MetricsCallback(TrainerCallback):
    """Averages the steps' loss terms between two log events and hands everything to the run."""

    def __init__(self, run: Run | None) -> None:
        self.run = run
        self.validation_loss: tuple[int, float] | None = None
        """Step and value of the last validation."""
        self._terms: dict[str, Tensor] = {}
        """Sums since the last log."""
        self._counts: dict[str, int] = defaultdict(int)
        self._steps = 0

    def record(self, terms: dict[str, Tensor]) -> None:
        """Keep a micro-batch's part of a step's terms."""
        for name, value in terms.items():
            self._terms[name] = self._terms.get(name, 0.0) + value.detach()

    def count(self, counts: dict[str, int]) -> None:
        """Keep counts of a step, of all ranks together; what is logged is their sum."""
        for name, value in counts.items():
            self._counts[name] += value

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Raise NonFiniteLoss, on all ranks alike, with the terms that are not finite: AdamW would carry one NaN into all weights,
        and transformers leaves it out of what is logged. DeepSpeed has updated by now; nothing is saved all the same."""
        sums = summed_over_ranks(dict(sorted(self._terms.items())))
        if not torch.stack(list(sums.values())).isfinite().all():
            bad = [f"loss/{name}={float(value)}" for name, value in sums.items() if not value.isfinite()]
            raise NonFiniteLoss(f"step {state.global_step}: expected finite losses, got {', '.join(bad)}")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """The last step is logged whatever log_every is: what follows it is not trained on again after a kill."""
        self._steps += 1
        control.should_log |= state.global_step >= state.max_steps

    def _means(self) -> dict[str, float]:
        """Of the steps since the last time: a step's term is the sum of its parts, those of the other ranks too."""
        sums = summed_over_ranks(dict(sorted(self._terms.items())))
        return {name: float(value) / self._steps for name, value in sums.items()}

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        """Write one line of metrics."""
        if not self._terms:
            return
        metrics = {f"loss/{name}": value for name, value in self._means().items()} | dict(self._counts)
        for ours, theirs in (("optim/grad_norm", "grad_norm"), ("optim/lr", "learning_rate")):
            if theirs in (logs or {}):
                metrics[ours] = float(logs[theirs])
        self._terms.clear()
        self._counts.clear()
        self._steps = 0
        if self.run is not None:
            self.run.log(metrics, step=state.global_step)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: Any = None, **kwargs: Any
    ) -> None:
        """Write the validation loss."""
        self.validation_loss = (state.global_step, float(metrics["eval_loss"]))
        if not math.isfinite(self.validation_loss[1]):
            raise NonFiniteLoss(
                f"step {state.global_step}: expected a finite validation loss, got {metrics['eval_loss']}"
            )
        if self.run is not None:
            self.run.log({"validation/loss": self.validation_loss[1]}, step=state.global_step)


class CheckpointCallback(TrainerCallback):
    """Moves what the Trainer has written to where complete checkpoints are."""

    def __init__(self, store: CheckpointStore, metrics: MetricsCallback) -> None:
        self.store, self.metrics = store, metrics

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Every rank has to have written its part before the folder gets its name."""
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
        validated = self.metrics.validation_loss
        if state.is_world_process_zero:
            value = -validated[1] if validated is not None and validated[0] == state.global_step else None
            written = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
            self.store.publish(state.global_step, written, value=value)


class GroundingSFTTrainer(SFTTrainer):
    """SFTTrainer on GroundingModel."""

    def __init__(
        self,
        *args: Any,
        loss_weights: LossConfig,
        optim: OptimConfig,
        metrics: MetricsCallback,
        store: CheckpointStore,
        unreadable: UnreadableRows | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, callbacks=[metrics, CheckpointCallback(store, metrics)], **kwargs)
        self.loss_weights, self.optim, self.metrics, self.unreadable = loss_weights, optim, metrics, unreadable
        self.model_accepts_loss_kwargs = True  # compute_loss takes the step's counts: the loss is not divided again

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW with a learning rate for the MLLM and one for the grounder."""
        if self.optimizer is None:
            grounding_model: Any = self.model if model is None else model
            self.optimizer = make_optimizer(grounding_model, self.optim)
        return self.optimizer

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: torch.device) -> tuple[list, Any]:
        """A step's micro-batches of this rank, and the targets of the step: all micro-batches, all ranks."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self.unreadable is not None:
            self.metrics.count(self.unreadable.add(batches))
        counts = [target_counts(batch) for batch in batches]
        ours = {name: torch.stack([count[name] for count in counts]).sum().to(device) for name in counts[0]}
        return batches, summed_over_ranks(ours)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """A micro-batch's part of the step's loss. num_items_in_batch: the step's targets; None (validation): its own."""
        output = model(**model_inputs(inputs))
        loss, terms = supervised_loss(output, inputs, self.loss_weights, num_items_in_batch)
        if num_items_in_batch is not None:
            self.metrics.record(terms | {"total": loss})
            loss = loss * self.accelerator.num_processes  # gradients are averaged over ranks
        return (loss, output) if return_outputs else loss

    def prediction_step(
        self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[Tensor, None, None]:
        """The loss alone."""
        with torch.no_grad():
            loss = self.compute_loss(model, self._prepare_inputs(inputs))
        return loss.detach(), None, None

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """A checkpoint folder of ours, so that any checkpoint of the run can be evaluated, exported or refined."""
        model: Any = self.accelerator.unwrap_model(self.model)
        save_checkpoint(model, self.processing_class, output_dir or str(self.args.output_dir), state=state_dict)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """The weights were read when the model was built (sft/train.py)."""
