"""Connects to a Ray cluster or starts a local one. No other file does."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any
from unittest import mock

import psutil
import ray

from ctllm_ray.base.errors import NoCluster

CONNECT_S = 10  # seconds until a cluster's port must answer
STARTS = 2  # attempts to start a local Ray; the second one finds in memory what the first one read from disk
#: Seconds per process of Ray: its own limits, 15 to 30 s, are too short on a machine at load 10.
START_S = 120
END_S = 5  # for processes of a failed start to disappear after they are killed
POLL_S = 0.1  # between checks for a signal while Ray starts
#: Environment variables of Ray's processes: how long each waits for another.
LIMITS = {
    "RAY_agent_register_timeout_ms": str(START_S * 1000),
    "RAY_raylet_start_wait_time_s": str(START_S),
    "RAY_gcs_server_port_wait_time_s": str(START_S),
    "RAY_gcs_rpc_server_connect_timeout_s": str(START_S),
}


@contextmanager
def session(cpus: int, object_store_mb: int) -> Iterator[None]:
    """A Ray to run on: the cluster named by RAY_ADDRESS
    (set in submitted jobs), a running one, or a local one.

    A local one has so many CPUs, counted not bound, and so large an object store. Raises `NoCluster` if it
    cannot be reached or does not start.
    """
    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS") or "local"
    answer = signal.getsignal(signal.SIGTERM)
    if address == "local":
        local = {"num_cpus": cpus, "object_store_memory": object_store_mb << 20, "include_dashboard": False}
        thread = _start(local)
    else:
        thread = _connect(address)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, answer)  # Ray's own handler prints its stack and aborts
    try:
        yield
    finally:
        ray.shutdown()
        thread.release()


@contextmanager
def environment(wanted: Mapping[str, str]) -> Iterator[None]:
    """Sets environment variables for a Ray library in the driver. Variables set by the user stay."""
    ours = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            del os.environ[name]


def _connect(address: str) -> _Beside:
    """Connects to a cluster; returns the thread that did. Raises `NoCluster`."""
    thread = _Beside(lambda: ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False))
    try:
        check_port(address)
        thread.wait()
    except Exception as error:
        remedy = "check RAY_ADDRESS, or unset it to run on this machine alone"
        raise NoCluster(
            f"cannot connect to Ray: {error}", where=f"RAY_ADDRESS={address}", remedy=remedy
        ) from error
    return thread


def _start(options: Mapping[str, Any]) -> _Beside:
    """Starts a Ray on this machine, and retries once if that fails; returns the thread that did.

    No process is left of an attempt that fails or is interrupted. Raises `NoCluster`.
    """
    look_for_node = _patient(ray._private.services.get_node)
    look_for_port = _patient(ray._private.node.wait_for_persisted_port, timeout_ms=1, poll_interval_ms=1)
    with (
        environment(LIMITS),
        mock.patch("ray._private.services.get_node", look_for_node),
        mock.patch("ray._private.node.wait_for_persisted_port", look_for_port),
    ):
        return _try_to_start(options)


def _try_to_start(options: Mapping[str, Any]) -> _Beside:
    for left in reversed(range(STARTS)):
        before = _children()
        thread = _Beside(
            lambda: ray.init("local", logging_level=logging.ERROR, log_to_driver=False, **options)
        )
        try:
            thread.wait()
            return thread
        except Exception as error:
            ray.shutdown()
            _kill(_children() - before)
            if not left:
                raise _explain_failed_start(error) from error
        except BaseException:
            # A signal. The thread that starts Ray may block for long, and Ray's own shutdown waits for it.
            atexit.unregister(ray.shutdown)
            while started := _children() - before:  # until the thread starts no more processes
                _kill(started)
                time.sleep(POLL_S)
            raise
    raise AssertionError("unreachable")


def _explain_failed_start(error: Exception) -> NoCluster:
    free_mb = psutil.virtual_memory().available >> 20
    where = f"load {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores, {free_mb:,} MiB of memory free"
    remedy = "run the same command again when the machine is less busy; finished work is kept"
    return NoCluster(f"Ray did not start on this machine: {error}", where=where, remedy=remedy)


class _Beside(threading.Thread):
    """Runs work in a thread, so that signals are handled at once: while Ray starts, it blocks them.

    The thread stays until `release`: the kernel kills Ray's processes when the thread that started them ends.
    """

    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__(name="ray-start", daemon=True)
        self._work, self._is_done, self._is_over = work, threading.Event(), threading.Event()
        self._failure: Exception | None = None

    def run(self) -> None:
        """Runs in the thread."""
        try:
            self._work()
        except Exception as error:
            self._failure = error
            self._is_over.set()
        self._is_done.set()
        self._is_over.wait()

    def wait(self) -> None:
        """Waits until the work is done. Raises what it raised."""
        self.start()
        while not self._is_done.wait(POLL_S):
            pass
        if self._failure is not None:
            raise self._failure

    def release(self) -> None:
        """Lets the thread end."""
        self._is_over.set()


def _patient(look: Callable[..., Any], **options: int) -> Callable[..., Any]:
    """Retries a check of Ray for a part of itself until `START_S` is over.

    For its node Ray waits 30 s by a number in its code; for a port it waits in C++ and lets no other thread
    run meanwhile, so a signal would not be answered. `options` make one look short.
    """

    def look_again(*arguments: Any, **_: Any) -> Any:
        until = time.monotonic() + START_S
        while True:
            try:
                return look(*arguments, **options)
            except RuntimeError:  # not there yet
                if time.monotonic() > until:
                    raise
                time.sleep(POLL_S)

    return look_again


def _children() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def _kill(processes: set[psutil.Process]) -> None:
    """Kills processes. A forked process that has not started yet would handle SIGTERM like this one."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, END_S)


def check_nodes(selector: Mapping[str, str]) -> None:
    """Raises `NoCluster` if no node accepts work with a label selector and none will
    come: Ray would wait forever."""
    config = ray._private.state.state.get_cluster_config()
    if not selector or (config and config.node_group_configs):  # an autoscaler may add one
        return
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    if nodes and not any(_matches(node["Labels"], selector) for node in nodes):
        remedy = "set resources.cpu_nodes={} to run CPU work on GPU nodes, or add a node without this label"
        raise NoCluster("no node accepts CPU work", where=f"resources.cpu_nodes={selector}", remedy=remedy)


def _matches(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    """Matches as Ray does: `a`, `!a`, `in(a,b)`, `!in(a,b)`. A missing label matches only the negations."""
    for key, value in selector.items():
        listed = value.removeprefix("!")
        values = (
            listed.removeprefix("in(").removesuffix(")").split(",") if listed.startswith("in(") else [listed]
        )
        if (labels.get(key) in [each.strip() for each in values]) == value.startswith("!"):
            return False
    return True


def check_port(address: str) -> None:
    """Raises `OSError` if nothing listens at host:port. Ray itself would retry for many minutes."""
    host, _, port = address.rpartition(":")
    if port.isdecimal() and "/" not in host:
        socket.create_connection((host, int(port)), CONNECT_S).close()
