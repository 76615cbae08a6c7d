"""`ray job submit --working-dir .` against a real cluster: a clone with an environment in it can be sent."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ctllm_ray.base import recipe
from ctllm_ray.corpus import pipeline
from tests.conftest import REPOSITORY
from tests.corpus.conftest import run_here
from tests.corpus.test_section import digests

START_S, JOB_S = 120, 600
UPLOAD_LIMIT_BYTES = 104_857_600  # of a working directory: seen with Ray 2.60, HTTP 413 above

pytestmark = [pytest.mark.slow, pytest.mark.cluster]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def tool(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh clone with an environment and output in it, each larger than what Ray takes."""
    folder = tmp_path_factory.mktemp("clone") / "repository"
    subprocess.run(["git", "clone", "-q", str(REPOSITORY), str(folder)], check=True)
    for name in (".venv/lib/libtorch.so", "out/tiny/1/clean/kept/00000-000.arrow"):
        (folder / name).parent.mkdir(parents=True)
        with (folder / name).open("wb") as stream:
            stream.truncate(UPLOAD_LIMIT_BYTES + 1)
    return folder


@pytest.fixture(scope="module")
def submit() -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Runs `ray job <arguments>` against a cluster of one node with two CPUs, on ports and with a token of its own."""
    pytest.importorskip("aiohttp_cors", reason="the dashboard that takes jobs comes with ray[default]")
    home = Path(tempfile.mkdtemp(prefix="ray"))  # its sockets must have short names
    (home / "token").write_text("0123456789abcdef" * 4)
    (home / "token").chmod(0o600)
    address = f"http://127.0.0.1:{free_port()}"
    environment = {key: value for key, value in os.environ.items() if key not in {"RAY_ADDRESS", "RAY_AUTH_TOKEN"}}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(home / "token"),
        "RAY_DISABLE_IMPORT_WARNING": "1",
    }
    command = [tool("ray"), "start", "--head", "--block", "--num-cpus=2", f"--object-store-memory={100 << 20}"]
    command += [f"--port={free_port()}", f"--dashboard-port={address.rpartition(':')[2]}", f"--temp-dir={home}"]
    command += [f"--ray-client-server-port={free_port()}", f"--dashboard-agent-listen-port={free_port()}"]
    with (home / "log").open("wb") as log:
        node = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)

    def run(*arguments: str, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
        options = {"cwd": cwd, "env": environment | {"RAY_API_SERVER_ADDRESS": address}, "timeout": JOB_S}
        return subprocess.run([tool("ray"), "job", *arguments], capture_output=True, text=True, **options)  # type: ignore[call-overload]

    try:
        deadline = time.monotonic() + START_S
        while run("list").returncode != 0:
            assert node.poll() is None, (home / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(1)
        yield run
    finally:
        node.terminate()
        node.wait(60)
        shutil.rmtree(home, ignore_errors=True)


def test_a_job_from_a_fresh_clone_runs_on_the_cluster_and_writes_the_bytes_of_a_local_run(
    clone: Path, submit: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    job = ["--working-dir", ".", "--", "python", "-m", "jobs.prepare", "jobs/recipes/tiny.yaml", f"root={tmp_path}/job"]
    ended = submit("submit", "--submission-id", "first", *job, cwd=clone)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "2/2 splits" in ended.stdout
    assert f"shards: {tmp_path}/job/tiny/1/clean" in ended.stdout
    listed = submit("list").stdout
    assert "driver_info=DriverInfo(" in listed  # it worked on this cluster: it started no Ray of its own
    local = recipe.load(str(clone / "jobs/recipes/tiny.yaml"), [f"root={tmp_path}/local"])
    pipeline.prepare(local, run_here)
    assert digests(recipe.load(str(clone / "jobs/recipes/tiny.yaml"), [f"root={tmp_path}/job"])) == digests(local)


def test_a_users_mistake_ends_the_job_with_its_message(
    clone: Path, submit: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    job = ["--working-dir", ".", "--", "python", "-m", "jobs.prepare", "jobs/recipes/tiny.yaml", "sed=1"]
    ended = submit("submit", *job, cwd=clone)
    assert ended.returncode != 0
    assert "did you mean 'seed'" in ended.stdout
    assert "exit code 2" in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stdout
