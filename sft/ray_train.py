"""Supervised training whose ranks are started by Ray Train; what they do is in sft/train.py.

    python -m sft.ray_train --config configs/sft/bridge_2b.yaml ray.num_workers=8 ray.use_gpu=true
    python -m sft.ray_train --config configs/sft/bridge_2b.yaml ray.address=auto ray.num_workers=16 ray.use_gpu=true ray.max_failures=3

One machine is a one-node cluster, started in this process; on a running cluster (`ray start` on every node) pass
ray.address=auto, and a run.out on storage that every node sees. When a rank dies, all are started again, ray.max_failures
times, and go on from the run's last checkpoint.
"""

import os
from typing import Any

from configs.checkpoints import CheckpointError
from configs.cluster import RayConfig
from configs.command_line import config_from_command_line, explained
from configs.run import quiet_environment, setup_logging
from configs.sft import RaySFTConfig, SFTConfig
from data.annotations import AnnotationError
from launchers.ray_cluster import cluster, run_ranks
from model.grounders import GrounderError
from sft.train import check_and_read, has_work, train


def main() -> None:
    """Entry point."""
    config = config_from_command_line(RaySFTConfig, __doc__)
    setup_logging()
    with explained(AnnotationError, CheckpointError, GrounderError):
        launch(config.of_run(), config.ray)


def launch(config: SFTConfig, ray: RayConfig) -> None:
    """Start the ranks and wait for them; what can be wrong is looked at before anything is started."""
    if not has_work(config, num_ranks=ray.num_workers):
        return
    check_and_read(config)
    arguments = {"config": config.model_dump(mode="json", exclude_unset=True), "cwd": os.getcwd()}
    with cluster(ray):
        run_ranks(train_rank, arguments, ray, out=config.run.out)


def train_rank(arguments: dict[str, Any]) -> None:
    """What every rank runs, in a process of its own."""
    os.chdir(arguments["cwd"])
    quiet_environment()
    setup_logging()
    train(SFTConfig.model_validate(arguments["config"]))


if __name__ == "__main__":
    main()
