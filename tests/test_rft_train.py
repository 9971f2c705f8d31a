"""The cluster that a run starts for itself."""

import ipaddress
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


def _is_loopback(host: str) -> bool:
    address = ipaddress.ip_address(host)
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
