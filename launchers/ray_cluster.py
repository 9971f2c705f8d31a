"""Trainer ranks on a Ray cluster: a running one, or one node that is started here and listens to nobody else.

Ray Train gives a rank the environment that torchrun would (RANK, WORLD_SIZE, ...) and joins the process group.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from configs.base import ConfigError
from configs.cluster import RayConfig
from configs.run import quiet_environment

LOOPBACK_ONLY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Ray's switch for machines that are no cluster, whatever its name says: every server binds to loopback alone. Ray reads
it when it is imported."""


@contextlib.contextmanager
def cluster(config: RayConfig) -> Iterator[None]:
    """A connection to a Ray cluster: the one at `address`, or one node started here and stopped at the end."""
    environment = quiet_environment()
    if config.address is None:
        os.environ |= LOOPBACK_ONLY
    import ray

    if config.address is not None:
        ray.init(address=config.address, runtime_env={"env_vars": environment}, log_to_driver=True)
    else:
        with root_logger_kept():
            ray.init(
                num_cpus=config.num_cpus or max(os.cpu_count() or 1, config.num_workers + 1),
                include_dashboard=False,
                runtime_env={"env_vars": environment},
                logging_level=logging.WARNING,
                logging_config=ray.LoggingConfig(encoding="TEXT", log_level="ERROR"),
            )
    try:
        yield
    finally:
        ray.shutdown()


def threads_asked_for(environment: Mapping[str, str]) -> int | None:
    """OMP_NUM_THREADS of the driver's environment; None where it is not set. Of a list, one number a nesting level, the first.

    To be asked in the driver: in a worker Ray sets it to the CPUs of the worker where it is not set yet, and there nobody can
    tell who did (`set_omp_num_threads_if_unset` of ray 2.60; https://docs.ray.io/en/latest/ray-core/configure.html).

    Raises ConfigError.
    """
    value = environment.get("OMP_NUM_THREADS", "")
    if not value:
        return None
    first = value.split(",")[0].strip()
    if not (first.isdecimal() and int(first) > 0):
        raise ConfigError(f"OMP_NUM_THREADS={value} in the environment: expected a positive number of threads")
    return int(first)


@contextlib.contextmanager
def root_logger_kept() -> Iterator[None]:
    """Ray's LoggingConfig sets the level of the root logger too, and with it that of our lines; they keep their own.

    In a rank Ray Train sets it again, to INFO.
    """
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    try:
        yield
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers


def run_ranks(
    rank: Callable[[dict[str, Any]], None], arguments: dict[str, Any], config: RayConfig, *, out: str
) -> None:
    """`rank(arguments)` on every trainer rank, each in a process of its own; what Ray Train keeps goes to `out`/ray.

    When a rank dies all are started again, `max_failures` times, and an error of theirs is raised after that.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    trainer = TorchTrainer(
        rank,
        train_loop_config=arguments,
        torch_config=TorchConfig(backend="nccl" if config.use_gpu else "gloo"),
        scaling_config=ScalingConfig(num_workers=config.num_workers, use_gpu=config.use_gpu),
        run_config=RunConfig(
            name="ray",
            storage_path=str(Path(out).resolve()),
            failure_config=FailureConfig(max_failures=config.max_failures),
        ),
    )
    trainer.fit()
