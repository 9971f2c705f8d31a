"""Checkpoints of GRPO: a checkpoint folder like any other, and beside it what training needs to go on.

    config.json, grounder.safetensors, mllm/     model/grounding_model.py; can be evaluated, exported, refined
    optimizer.bin, random_states_{rank}.pkl      by accelerate, read back with weights_only
    progress.json                                finished steps (also the version of the engine's weights), the running
                                                 standard deviation of each task, the learning-rate schedule

Between two steps no request is in flight, and the prompts of a step follow from the seed and its number: progress.json
is the whole state of the sampler.
"""

import json
from pathlib import Path
from typing import Any

from configs.checkpoints import CheckpointStore, written_aside
from model.backbone import checkpoint_names
from model.build import save_checkpoint
from model.lora import merged_state
from rft.advantages import RunningStd
from rft.rollout import EngineClient
from rft.setup import Learner

PROGRESS = "progress.json"


def save_state(
    learner: Learner, store: CheckpointStore, running_std: RunningStd, *, step: int, value: float | None
) -> None:
    """Write and publish the checkpoint after `step` steps; every rank must call. value: see CheckpointStore."""
    accelerator = learner.accelerator
    if accelerator.is_main_process:
        store.staging(step)
    accelerator.wait_for_everyone()
    staged = store.staged_path(step)
    accelerator.save_state(str(staged))
    state = learner.gathered_state()
    if accelerator.is_main_process:
        save_checkpoint(learner.unwrapped, learner.processor, staged, state=state)
        progress = {"step": step, "running_std": running_std.values, "schedule": learner.schedule.state_dict()}
        (staged / PROGRESS).write_text(json.dumps(progress, indent=2) + "\n")
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        store.publish(step, staged, value=value)
    accelerator.wait_for_everyone()


def load_state(learner: Learner, folder: Path, running_std: RunningStd) -> int:
    """Set everything but the weights, which `build_learner` read; every rank must call. -> finished steps."""
    learner.accelerator.load_state(str(folder))
    progress: dict[str, Any] = json.loads((folder / PROGRESS).read_text())
    learner.schedule.load_state_dict(progress["schedule"])
    running_std.values = progress["running_std"]
    return progress["step"]


def save_final(learner: Learner, folder: Path) -> None:
    """The checkpoint folder of the finished run, by the main rank; every rank must call."""
    state = learner.gathered_state()
    if learner.accelerator.is_main_process:
        with written_aside(folder) as staged:
            save_checkpoint(learner.unwrapped, learner.processor, staged, state=state)


def push_weights(learner: Learner, engine: EngineClient, *, version: int) -> None:
    """The MLLM's weights, adapters merged, to the engine under the names of a checkpoint, by the main rank; every rank must
    call, and wait for it."""
    state = learner.gathered_state()
    if learner.accelerator.is_main_process:
        state = merged_state(learner.unwrapped, state)
        mllm = {name.removeprefix("mllm."): value for name, value in state.items() if name.startswith("mllm.")}
        engine.push(checkpoint_names(mllm, learner.unwrapped.mllm.config), version=version)
