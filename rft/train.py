"""GRPO on Ray: one vLLM engine actor, trainer ranks launched by Ray Train.

    python -m rft.train --config configs/demo/rft.yaml
    python -m rft.train --config configs/rft/bridge_2b.yaml checkpoint=runs/sft/checkpoint ray.address=auto

Writes into run.out: config.yaml, environment.json, metrics.jsonl, checkpoints/step-*/ and the final checkpoint/. Started
again, it goes on from its last checkpoint; run.out must be on storage that every node sees. One machine is a one-node cluster,
started in this process; on a running cluster (`ray start` on every node) pass ray.address=auto. On CPU a rank has as many
threads as OMP_NUM_THREADS says where this command is started, and else its share of the cores.
"""

import contextlib
import json
import logging
import os
from pathlib import Path
from typing import Any

from configs.base import ConfigError
from configs.checkpoints import CheckpointError, CheckpointStore, check_checkpoint
from configs.command_line import config_from_command_line, explained
from configs.rewards import check_grounder
from configs.rft import RFTConfig
from configs.run import Run, check_same_run, quiet_environment, setup_logging
from launchers.ray_cluster import cluster, run_ranks, threads_asked_for

logger = logging.getLogger("rft.train")


def main() -> None:
    """Entry point."""
    from data.annotations import AnnotationError
    from model.grounders import GrounderError

    config = config_from_command_line(RFTConfig, __doc__)
    setup_logging()
    with explained(AnnotationError, CheckpointError, GrounderError):
        train(config)


def train(config: RFTConfig) -> None:
    """Start what is needed, train, and stop it again; what can be wrong is looked at before anything is started."""
    from data.sources import load_samples

    check_checkpoint(config.checkpoint, origin="checkpoint=")
    check_answers(config)
    check_same_run(config, config.run.out)
    final = Path(config.run.out) / "checkpoint"
    if final.exists():
        logger.info("%s: this run is finished", final)
        return
    load_samples(config.data, config.data.train_split)
    if config.validation.every_steps is not None:
        load_samples(config.data, config.validation.split)
    num_threads = threads_asked_for(os.environ)
    with cluster(config.ray):
        launch(config, num_threads)


def check_answers(config: RFTConfig) -> None:
    """Raise ConfigError where the rewards, or the boxes' losses, are none that the checkpoint's grounder can have, and where a
    term of one's own cannot be imported."""
    name = json.loads((Path(config.checkpoint) / "config.json").read_text())["grounder"]
    from model.grounders import grounder_class
    from rewards.composer import RewardComposer

    grounder = grounder_class(name)
    check_grounder(config.rewards, name, grounder.reward_terms)
    RewardComposer(config.rewards)  # imports terms of one's own
    objective = config.objective
    if grounder.writes_boxes and objective.decoder_update != "frozen":
        raise ConfigError(
            f"objective.decoder_update={objective.decoder_update}: the grounder {name} has no decoder; expected frozen"
        )
    if grounder.writes_boxes and objective.loss_type == "dr_grpo":
        raise ConfigError(
            f"objective.loss_type=dr_grpo divides by one longest length, and written boxes have none (grounder {name})"
        )


def launch(config: RFTConfig, num_threads: int | None) -> None:
    """Engine and trainer ranks on the connected cluster; num_threads: of each rank, None for its share of the cores."""
    import ray

    from rft.engine_actor import start_engine

    engine = start_engine(str(Path(config.checkpoint).resolve() / "mllm"), config)
    try:
        arguments = {
            "config": config.model_dump(mode="json", exclude_unset=True),
            "engine": engine,
            "cwd": os.getcwd(),
            "num_threads": num_threads,
        }
        run_ranks(train_rank, arguments, config.ray, out=config.run.out)
    finally:
        ray.kill(engine)
    logger.info("checkpoint: %s", Path(config.run.out) / "checkpoint")


def train_rank(arguments: dict[str, Any]) -> None:
    """What every rank runs, in a process of its own."""
    import ray.train

    os.chdir(arguments["cwd"])
    quiet_environment()
    setup_logging()
    from rft.rollout import EngineClient
    from rft.setup import use_threads
    from rft.trainer import GRPOTrainer

    config = RFTConfig.model_validate(arguments["config"])
    engine = EngineClient(arguments["engine"], timeout_sec=config.rollout.timeout_sec)
    store = CheckpointStore(config.run.out, config.checkpoints)
    step, resumed = store.last() or (0, None)
    with contextlib.ExitStack() as stack:
        is_main = ray.train.get_context().get_world_rank() == 0
        run = stack.enter_context(Run(config.run, config, stage="rft", resume_step=step)) if is_main else None
        trainer = GRPOTrainer(config, engine, run, store, resumed)
        use_threads(trainer.learner.accelerator, arguments["num_threads"])
        engine.wait_until_ready()
        trainer.train()


if __name__ == "__main__":
    main()
