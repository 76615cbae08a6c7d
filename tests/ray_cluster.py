"""A Ray cluster of one node for jobs and `serve deploy`, apart from whatever runs here: own ports, folder and
token."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

START_S, COMMAND_S = 120, 600
ATTEMPTS = 3  # to start a node


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def tool(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


@dataclass(frozen=True)
class Cluster:
    """A node with two CPUs that takes jobs from whoever has its token."""

    address: str
    gcs: str  # where nodes join
    home: Path  # where Ray unpacks what jobs bring
    environment: dict[str, str]

    def start(self, *command: str, cwd: Path, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [tool(command[0]), *command[1:]],
            cwd=cwd,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(
        self, *command: str, cwd: Path = REPOSITORY, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        process = self.start(*command, cwd=cwd, **environment)
        out, err = process.communicate(timeout=COMMAND_S)
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    @contextmanager
    def another_node(self) -> Iterator[None]:
        """A second node, from when it is seen to the end of the block."""
        command = [tool("ray"), "start", "--block", "--num-cpus=1", f"--object-store-memory={80 << 20}"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        node = subprocess.Popen([*command, f"--address={self.gcs}"], env=self.environment, **quiet)  # type: ignore[call-overload]
        try:
            deadline = time.monotonic() + START_S
            while self.run("ray", "list", "nodes", "--format=json").stdout.count('"ALIVE"') < 2:
                assert node.poll() is None
                assert time.monotonic() < deadline
            yield
        finally:
            node.terminate()
            node.wait(60)


@contextmanager
def started() -> Iterator[Cluster]:
    """A cluster from when it takes jobs to the end of the block; the test is skipped where Ray has no job
    server."""
    pytest.importorskip("aiohttp_cors", reason="the dashboard that takes jobs comes with ray[default]")
    home = Path(tempfile.mkdtemp(prefix="ray"))  # its sockets must have short names
    (home / "token").write_text("0123456789abcdef" * 4)
    (home / "token").chmod(0o600)
    address, gcs = f"http://127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    environment = {
        key: value for key, value in os.environ.items() if key not in {"RAY_ADDRESS", "RAY_AUTH_TOKEN"}
    }
    environment |= {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(home / "token"),
        "RAY_API_SERVER_ADDRESS": address,  # of `ray job` and `ctllm submit`
        "RAY_DASHBOARD_ADDRESS": address,  # of `serve`
        "RAY_DISABLE_IMPORT_WARNING": "1",
    }
    command = [
        tool("ray"),
        "start",
        "--head",
        "--block",
        "--num-cpus=2",
        f"--object-store-memory={100 << 20}",
    ]
    command += [f"--port={gcs.rpartition(':')[2]}", f"--dashboard-port={address.rpartition(':')[2]}"]
    command += [f"--temp-dir={home}", f"--ray-client-server-port={free_port()}"]
    command += [f"--dashboard-agent-listen-port={free_port()}"]
    found = Cluster(address, gcs, home, environment)
    node = _node(command, found, home / "log")
    try:
        yield found
        assert node.poll() is None, (home / "log").read_text()
    finally:
        node.terminate()
        node.wait(60)
        shutil.rmtree(home, ignore_errors=True)


def _node(command: list[str], cluster: Cluster, log: Path) -> subprocess.Popen[bytes]:
    """The head, once it takes jobs. `ray start` gives its processes 30 s, which a busy machine may take
    longer than."""
    for _ in range(ATTEMPTS):
        with log.open("ab") as stream:
            options = {
                "env": cluster.environment,
                "cwd": REPOSITORY,
                "stdout": stream,
                "stderr": subprocess.STDOUT,
            }
            node = subprocess.Popen(command, start_new_session=True, **options)  # type: ignore[call-overload]
        deadline = time.monotonic() + START_S
        while node.poll() is None and time.monotonic() < deadline:
            if '"ALIVE"' in cluster.run("ray", "list", "nodes", "--format=json").stdout:
                return node
        node.terminate()
        node.wait(60)
    raise AssertionError(log.read_text())
