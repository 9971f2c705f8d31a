"""Supervised multi-task training of one grounder.

    python -m sft.train --config configs/demo/sft.yaml
    torchrun --nproc_per_node 8 -m sft.train --config configs/sft/bridge_2b.yaml run.out=runs/sft optim.learning_rate=2e-5
    deepspeed --num_gpus 8 --module sft.train --config configs/sft/bridge_2b.yaml

On Ray: sft/ray_train.py. All give a rank the same environment, so a run may go on under another launcher with as many ranks.

Writes into run.out: config.yaml, environment.json, metrics.jsonl, checkpoints/step-*/ and the final checkpoint/
(model/grounding_model.py says what is in one). Started again, it goes on from its last checkpoint.
"""

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.base import ConfigError
from configs.checkpoints import CheckpointError, CheckpointStore, check_checkpoint, written_aside
from configs.command_line import config_from_command_line, explained
from configs.data import ExposureConfig
from configs.run import Run, check_same_run, quiet_environment, setup_logging
from configs.sft import SFTConfig
from data.annotations import AnnotationError
from data.sources import load_samples
from data.types import GroundingSample
from data.video import VideoDecodeError
from model.attention import check_attention
from model.grounders import GrounderError, check_grounder
from sft.errors import NonFiniteLoss, TooManyUnreadableError
from sft.zero import read_zero

logger = logging.getLogger("sft.train")


ONE_RANK = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
"""What a launcher tells a rank, for DeepSpeed in a single process; port 0 is any free one."""


def main() -> None:
    """Entry point."""
    config = config_from_command_line(SFTConfig, __doc__, without_local_rank(sys.argv[1:]))
    quiet_environment()
    setup_logging()
    with explained(
        AnnotationError, CheckpointError, GrounderError, NonFiniteLoss, TooManyUnreadableError, VideoDecodeError
    ):
        train(config)


def without_local_rank(arguments: Sequence[str]) -> list[str]:
    """The command line without what DeepSpeed's launcher adds to it and says in the environment too."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--local_rank", help="as the environment says too")
    return parser.parse_known_args(arguments)[1]


def train(config: SFTConfig) -> None:
    """Train, from the folder's last checkpoint on if it has one, and write the final model; rank 0 logs."""
    if not has_work(config, num_ranks=int(os.environ.get("WORLD_SIZE", "1"))):
        return
    samples = check_and_read(config)
    # Last: a kernel that needs CUDA imports torch to look for it.
    check_attention(config.model.attention, config.model.dtype)
    from torch.distributed.elastic.multiprocessing.errors import record

    # What ends a rank is in the frame that torchrun ends with.
    record(_train)(config, samples)


def _train(config: SFTConfig, samples: "SampleSplits") -> None:
    from model.build import save_checkpoint

    is_main = int(os.environ.get("RANK", "0")) == 0
    store = CheckpointStore(config.run.out, config.checkpoints)
    step, resumed = store.last() or (0, None)
    with contextlib.ExitStack() as stack:
        run = stack.enter_context(Run(config.run, config, stage="sft", resume_step=step)) if is_main else None
        trainer, processor = make_trainer(config, samples, run, store=store, resumed=resumed)
        trainer.train(resume_from_checkpoint=None if resumed is None else str(resumed))
        state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
        if is_main:
            final = Path(config.run.out) / "checkpoint"
            with written_aside(final) as folder:
                save_checkpoint(trainer.accelerator.unwrap_model(trainer.model), processor, folder, state=state)
            logger.info("checkpoint: %s", final)


def has_work(config: SFTConfig, *, num_ranks: int) -> bool:
    """Whether the run is not finished. Raises ConfigError where its folder holds another run, or one on other ranks."""
    check_same_run(config, config.run.out)
    final = Path(config.run.out) / "checkpoint"
    if final.exists():
        logger.info("%s: this run is finished", final)
        return False
    if last := CheckpointStore(config.run.out, config.checkpoints).last():
        _check_ranks(last[1], num_ranks)
    return True


def _check_ranks(checkpoint: Path, num_ranks: int) -> None:
    """Every rank has written the state of its generators, and under ZeRO its part of the optimizer's."""
    written = len(list(checkpoint.glob("rng_state*.pth")))
    if written != num_ranks:
        raise ConfigError(
            f"{checkpoint}: number of ranks: {written} -> {num_ranks}; a run folder belongs to one number of ranks: start "
            f"{written}, or choose another run.out"
        )


@dataclass(frozen=True)
class SampleSplits:
    """validation: None without validation."""

    train: list[GroundingSample]
    validation: list[GroundingSample] | None


def check_and_read(config: SFTConfig) -> SampleSplits:
    """What can be wrong with names and files, found before torch is imported and anything is started.

    Raises AnnotationError for splits that cannot be read, CheckpointError, ConfigError and GrounderError.
    """
    check_deepspeed(config)
    _check_start(config)
    check_grounder(config.model.grounder, config.model.grounder_args)
    return SampleSplits(
        train=load_samples(config.data, config.data.train_split),
        validation=None
        if config.validation.every_steps is None
        else load_samples(config.data, config.validation.split),
    )


def _check_start(config: SFTConfig) -> None:
    """Raises CheckpointError for a `checkpoint` that is none, where `start_model` (model/build.py) will read it."""
    goes_on = CheckpointStore(config.run.out, config.checkpoints).last() is not None
    if config.checkpoint is not None and (config.model.lora is not None or not goes_on):
        check_checkpoint(config.checkpoint, origin="checkpoint=")


def make_trainer(
    config: SFTConfig, samples: SampleSplits, run: Run | None, *, store: CheckpointStore, resumed: Path | None = None
) -> tuple[Any, Any]:
    """The trainer and the processor; `resumed`: the checkpoint that `trainer.train` goes on from."""
    from transformers import set_seed

    from model.build import start_model
    from sft.trainer import GroundingSFTTrainer, MetricsCallback

    set_seed(config.run.seed)
    if config.deepspeed is not None and "RANK" not in os.environ:
        os.environ.update(ONE_RANK)
    arguments = training_arguments(config)
    if config.deepspeed is not None:
        _tell_deepspeed_of_ranks()
    model, processor = start_model(config.model, config.data, checkpoint=config.checkpoint, resumed=resumed)
    encoder, collator = _encoder_and_collator(config, model, processor)
    trainer = GroundingSFTTrainer(
        model=model,
        args=arguments,
        train_dataset=training_dataset(config, samples.train, encoder, world_size=arguments.world_size),
        eval_dataset=None
        if samples.validation is None
        else validation_rows(config, samples.validation, encoder).as_dataset(),
        data_collator=collator,
        processing_class=processor,
        loss_weights=config.loss,
        optim=config.optim,
        metrics=MetricsCallback(run),
        store=store,
        unreadable=_unreadable_rows(config, arguments.world_size),
    )
    return trainer, processor


def _encoder_and_collator(config: SFTConfig, model: Any, processor: Any) -> tuple[Any, Any]:
    from data.dataset import PromptEncoder, SupervisedCollator
    from data.unreadable import SkippingCollator, SkippingEncoder

    skips = config.unreadable_videos.policy == "skip"
    encoder = (SkippingEncoder if skips else PromptEncoder)(
        processor, config.data, answer_format=model.grounder.answer_format
    )
    collator = (SkippingCollator if skips else SupervisedCollator)(
        num_queries=model.num_queries,
        pad_id=processor.tokenizer.pad_token_id,
        temporal_patch_size=model.temporal_patch_size,
    )
    return encoder, collator


def _unreadable_rows(config: SFTConfig, world_size: int) -> Any:
    """None where an unreadable video ends the run."""
    if config.unreadable_videos.policy == "error":
        return None
    from sft.unreadable import UnreadableRows

    return UnreadableRows(
        config.unreadable_videos, total_rows=config.max_steps * rows_per_step(config, world_size=world_size)
    )


def rows_per_step(config: SFTConfig, *, world_size: int) -> int:
    """Of all micro-batches and ranks."""
    return config.per_device_train_batch_size * config.gradient_accumulation_steps * world_size


def training_dataset(config: SFTConfig, samples: list[GroundingSample], encoder: Any, *, world_size: int) -> Any:
    """The rows of the run; with micro_batches=by_length an item is a whole micro-batch."""
    from data.batching import balanced, prompt_lengths

    rows = training_rows(config, samples, encoder, world_size=world_size)
    if config.micro_batches == "as_drawn":
        return rows.as_dataset()
    lengths = prompt_lengths(rows.samples, rows.order, encoder.budget)
    micro_batches = balanced(
        lengths,
        rows=config.per_device_train_batch_size,
        ranks=world_size,
        accumulation=config.gradient_accumulation_steps,
    )
    return rows.as_dataset(micro_batches)


def _tell_deepspeed_of_ranks() -> None:
    """ZeRO-3 divides the weights while they are read, when DeepSpeed has not yet looked how many ranks there are."""
    import deepspeed

    deepspeed.init_distributed()


def training_rows(config: SFTConfig, samples: list[GroundingSample], encoder: Any, *, world_size: int) -> Any:
    """Position -> row of the whole run, all ranks together."""
    from data.dataset import SupervisedRows
    from data.mixture import draw_order, sample_groups
    from data.token_budget import report_budget

    report_budget(samples, encoder.budget, config.data.train_split)
    per_step = rows_per_step(config, world_size=world_size)
    order = draw_order(
        sample_groups(samples, config.data),
        total=config.max_steps * per_step,
        seed=config.run.seed,
        per_task=per_step if config.data.batches == "per_task" else None,
    )
    return SupervisedRows(
        samples, order, encoder, frames=config.frames, exposure=config.exposure,
        max_error_sec=config.annotation_error.max_error_sec, seed=config.run.seed,
    )  # fmt: skip


def validation_rows(config: SFTConfig, samples: list[GroundingSample], encoder: Any) -> Any:
    """A fixed draw of the validation split in the proportions of training, every answer true."""
    from data.dataset import SupervisedRows
    from data.mixture import draw_order, sample_groups
    from data.token_budget import report_budget

    report_budget(samples, encoder.budget, config.validation.split)
    total = min(config.validation.max_samples, len(samples))
    order = draw_order(sample_groups(samples, config.data), total=total, seed=0)
    return SupervisedRows(
        samples, order, encoder, frames=config.frames, exposure=ExposureConfig(probability=0.0), seed=0
    )


def check_deepspeed(config: SFTConfig) -> None:
    """Raises ConfigError for a DeepSpeed file that is not there, or that the micro-batches do not go with.

    Ranks fetch the weights of ZeRO-3 together, as modules are called, and some modules are called row by row.
    """
    if config.deepspeed is None:
        return
    if not Path(config.deepspeed).is_file():
        raise ConfigError(f"deepspeed: no such file: {config.deepspeed}")
    if config.micro_batches == "by_length" and read_zero(config.deepspeed).stage == 3:
        raise ConfigError(
            f"micro_batches=by_length gives ranks different numbers of rows, for which ZeRO stage 3 ({config.deepspeed}) "
            "does not work; use stage 2, or micro_batches=as_drawn"
        )


def training_arguments(config: SFTConfig) -> Any:
    """TRL's arguments; the order of samples is ours, so nothing is shuffled again."""
    import torch
    from trl import SFTConfig as TRLConfig

    save_every, validate_every = config.checkpoints.every_steps, config.validation.every_steps
    return TRLConfig(
        output_dir=str(Path(config.run.out) / "checkpoints" / ".partial-trainer"),
        max_steps=config.max_steps,
        per_device_train_batch_size=1 if config.micro_batches == "by_length" else config.per_device_train_batch_size,
        per_device_eval_batch_size=config.per_device_train_batch_size,
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
        save_strategy="no" if save_every is None else "steps",
        save_steps=save_every or 1,
        eval_strategy="no" if validate_every is None else "steps",
        eval_steps=validate_every,
        report_to=[],
        seed=config.run.seed,
        max_length=None,
        ddp_find_unused_parameters=True,
    )


if __name__ == "__main__":
    main()
