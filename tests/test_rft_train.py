"""The cluster that a run starts for itself."""

import ipaddress
import logging
from typing import Any

import psutil


def test_everything_listens_on_loopback_only(engine: Any) -> None:
    """Ray's servers, the workers and vLLM: no process of ours can be reached from another machine."""
    engine.wait_until_ready()
    processes = psutil.Process().children(recursive=True)
    listening = {
        (process.name(), connection.laddr.ip)
        for process in processes
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert any("raylet" in name for name, _ in listening), "the cluster's processes were not found"
    assert [entry for entry in sorted(listening) if not _is_loopback(entry[1])] == []


def test_rays_logging_leaves_ours_alone(engine: Any) -> None:
    """Ray is told to log errors alone; the level of the root logger, and of our lines, is what it was."""
    engine.wait_until_ready()
    assert logging.getLogger("ray").level == logging.ERROR
    assert logging.getLogger().level < logging.ERROR
    assert logging.ERROR not in {handler.level for handler in logging.getLogger().handlers}


def _is_loopback(host: str) -> bool:
    address = ipaddress.ip_address(host)
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
