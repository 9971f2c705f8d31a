"""Peak memory of a real training step, in a process of its own: `python tests/step_memory.py CONFIG.yaml` prints bytes.

The resident set's high-water mark of the steps after the first (the optimizer's moments are there by then), less what was
resident before there was a model: after a step of one row by another trainer, which is gone, so that libraries are loaded.
Large tensors are mapped for themselves, so that freeing them is seen.
"""

import gc
import sys
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import TrainerCallback

from configs.base import load_config
from configs.checkpoints import CheckpointStore
from configs.sft import SFTConfig
from sft.train import check_and_read, make_trainer

ENVIRONMENT = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}


class ForgetFirstStep(TrainerCallback):
    """Sets the high-water mark to what is resident now (proc(5), clear_refs)."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """After each step."""
        if state.global_step == 1:
            Path("/proc/self/clear_refs").write_text("5")


def high_water_bytes() -> int:
    """VmHWM of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def train(config: SFTConfig) -> None:
    """The steps of a run, without its folder."""
    trainer, _ = make_trainer(
        config, check_and_read(config), None, store=CheckpointStore(config.run.out, config.checkpoints)
    )
    trainer.add_callback(ForgetFirstStep())
    trainer.train()


def main() -> None:
    """Entry point."""
    config = load_config(SFTConfig, sys.argv[1])
    torch.set_num_threads(1)
    train(config.model_copy(update={"per_device_train_batch_size": 1, "max_steps": 1}))
    gc.collect()
    before = psutil.Process().memory_info().rss
    train(config)
    sys.stdout.write(f"{high_water_bytes() - before}\n")


if __name__ == "__main__":
    main()
