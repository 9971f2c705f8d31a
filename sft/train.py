"""Supervised multi-task training of one grounder.

    python -m sft.train --config configs/demo/sft.yaml
    torchrun --nproc_per_node 8 -m sft.train --config configs/sft/bridge_2b.yaml run.out=runs/sft optim.learning_rate=2e-5

Writes into run.out: config.yaml, environment.json, metrics.jsonl and checkpoint/ (model/grounding_model.py says what
is in it).
"""

import contextlib
import logging
import os
from pathlib import Path
from typing import Any

from configs.command_line import config_from_command_line
from configs.run import Run, quiet_environment, setup_logging
from configs.sft import SFTConfig

logger = logging.getLogger("sft.train")


def main() -> None:
    """Entry point."""
    config = config_from_command_line(SFTConfig, __doc__)
    quiet_environment()
    setup_logging()
    train(config)


def train(config: SFTConfig) -> None:
    """Train and write the checkpoint; rank 0 logs."""
    from model.build import save_checkpoint

    is_main = int(os.environ.get("RANK", "0")) == 0
    with contextlib.ExitStack() as stack:
        run = stack.enter_context(Run(config.run, config, stage="sft")) if is_main else None
        trainer, processor = make_trainer(config, run)
        trainer.train()
        state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
        if is_main:
            folder = Path(config.run.out) / "checkpoint"
            save_checkpoint(trainer.accelerator.unwrap_model(trainer.model), processor, folder, state=state)
            logger.info("checkpoint: %s", folder)


def make_trainer(config: SFTConfig, run: Run | None) -> tuple[Any, Any]:
    """The trainer and the processor, ready for `trainer.train()`."""
    from transformers import set_seed

    from data.dataset import PromptEncoder, SupervisedCollator, SupervisedRows
    from data.mixture import draw_order
    from data.sources import load_samples
    from model.build import build_model
    from sft.trainer import GroundingSFTTrainer, MetricsCallback

    set_seed(config.run.seed)
    arguments = training_arguments(config)
    samples = load_samples(config.data, "train")
    model, processor = build_model(config.model, config.data)
    per_step = config.per_device_train_batch_size * config.gradient_accumulation_steps * arguments.world_size
    order = draw_order(samples, config.data.tasks, total=config.max_steps * per_step, seed=config.run.seed)
    rows = SupervisedRows(
        samples,
        order,
        PromptEncoder(processor, config.data),
        frames=config.frames,
        exposure=config.exposure,
        seed=config.run.seed,
    )
    collator = SupervisedCollator(
        num_queries=model.num_queries,
        pad_id=processor.tokenizer.pad_token_id,
        temporal_patch_size=model.temporal_patch_size,
    )
    trainer = GroundingSFTTrainer(
        model=model,
        args=arguments,
        train_dataset=rows.as_dataset(),
        data_collator=collator,
        processing_class=processor,
        loss_weights=config.loss,
        optim=config.optim,
        metrics=MetricsCallback(run),
    )
    return trainer, processor


def training_arguments(config: SFTConfig) -> Any:
    """TRL's arguments; the order of samples is ours, so nothing is shuffled again."""
    import torch
    from trl import SFTConfig as TRLConfig

    return TRLConfig(
        output_dir=str(Path(config.run.out) / "trainer"),
        max_steps=config.max_steps,
        per_device_train_batch_size=config.per_device_train_batch_size,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        learning_rate=config.optim.learning_rate,
        lr_scheduler_type=config.optim.lr_scheduler_type,
        warmup_steps=config.optim.warmup_steps,
        max_grad_norm=config.optim.max_grad_norm,
        gradient_checkpointing=config.model.gradient_checkpointing,
        bf16=config.model.dtype == "bfloat16",
        use_cpu=not torch.cuda.is_available(),
        deepspeed=config.deepspeed,
        dataloader_num_workers=config.dataloader_num_workers,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        train_sampling_strategy="sequential",
        logging_steps=config.run.log_every,
        save_strategy="no",
        report_to=[],
        seed=config.run.seed,
        max_length=None,
        ddp_find_unused_parameters=True,
    )


if __name__ == "__main__":
    main()
