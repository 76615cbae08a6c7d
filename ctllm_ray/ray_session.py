"""A Ray to run on, for every room that has work for it: the one place that connects to a cluster or starts one."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray

from ctllm_ray.base.errors import NoCluster

CONNECT_S = 10  # seconds until a cluster's port must answer
STARTS = 3  # of a local Ray: on a busy machine its agent may need more than the 15 s it has; a second start is warm


@contextmanager
def session(cpus: int, object_store_mb: int) -> Iterator[None]:
    """A Ray to run on: the cluster named by RAY_ADDRESS (a submitted job has it), one that is up, or a local one.

    A local one has so many CPUs, counted not bound, and so large an object store. Raises `NoCluster` where it cannot
    be reached.
    """
    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS") or "local"
    local: dict[str, Any] = {
        "num_cpus": cpus,
        "object_store_memory": object_store_mb << 20,
        "include_dashboard": False,
    }
    options = local if address == "local" else {}
    answer = signal.getsignal(signal.SIGTERM)
    try:
        check_port(address)
        _start(address, options)
    except Exception as error:  # a start that times out is a bare Exception
        remedy = "check RAY_ADDRESS, or unset it: then this machine alone does the work"
        raise NoCluster(f"Ray cannot be reached: {error}", where=f"RAY_ADDRESS={address}", remedy=remedy) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, answer)  # Ray's answer is a dump of its stack and an abort
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def environment(wanted: Mapping[str, str]) -> Iterator[None]:
    """Settings that a Ray library reads from the driver's environment; those a person has set stay."""
    ours = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            del os.environ[name]


def _start(address: str, options: dict[str, Any]) -> None:
    """Connects to Ray, or starts one. Raises whatever Ray does."""
    for left in reversed(range(STARTS)):
        try:
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, **options)
            return
        except Exception as error:
            if not left or "timed out during startup" not in str(error):
                raise
            ray.shutdown()


def check_nodes(selector: Mapping[str, str]) -> None:
    """Raises `NoCluster` where no node takes work under a label selector and none will come: Ray would wait."""
    config = ray._private.state.state.get_cluster_config()
    if not selector or (config and config.node_group_configs):  # an autoscaler may bring one
        return
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    if nodes and not any(_matches(node["Labels"], selector) for node in nodes):
        remedy = (
            "set resources.cpu_nodes={} to let work without a GPU run on GPU nodes, or add a node without this label"
        )
        raise NoCluster(
            "no node takes work that asks for no GPU", where=f"resources.cpu_nodes={selector}", remedy=remedy
        )


def _matches(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    """As Ray has it: `a`, `!a`, `in(a,b)`, `!in(a,b)`; a label that is not there is none of them."""
    for key, value in selector.items():
        listed = value.removeprefix("!")
        values = listed.removeprefix("in(").removesuffix(")").split(",") if listed.startswith("in(") else [listed]
        if (labels.get(key) in [each.strip() for each in values]) == value.startswith("!"):
            return False
    return True


def check_port(address: str) -> None:
    """Raises `OSError` where nobody listens at host:port: Ray itself would try for many minutes."""
    host, _, port = address.rpartition(":")
    if port.isdecimal() and "/" not in host:
        socket.create_connection((host, int(port)), CONNECT_S).close()
