"""Where trainer ranks run on Ray; launchers/ray_cluster.py starts them."""

from typing import Annotated

from pydantic import Field

from configs.base import Config


class RayConfig(Config):
    """The cluster: one node is started in the process unless `address` names a running one."""

    address: str | None = None
    """`auto` or host:port of a running cluster; None starts one on this machine."""
    num_cpus: Annotated[int, Field(ge=1)] | None = None
    """Logical CPUs of a cluster started here; None takes the machine's."""
    num_workers: Annotated[int, Field(ge=1)] = 1
    """Trainer ranks."""
    use_gpu: bool = False
    max_failures: Annotated[int, Field(ge=0)] = 0
    """How often dead trainer ranks are started again, from the run's last checkpoint."""
