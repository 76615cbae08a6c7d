"""Jobs on a real cluster with a token, from a clone with an environment in it: `ray job submit` and `ctllm
submit`."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ctllm_ray.base import recipe
from ctllm_ray.corpus import pipeline
from tests.conftest import REPOSITORY
from tests.corpus.conftest import run_here
from tests.corpus.test_section import digests
from tests.ray_cluster import COMMAND_S, Cluster, started
from tests.test_cli import lines, write_recipe

SPLITS = 240  # of the long job: it must outlast the start of a second `ctllm submit` and of `ray job stop`
UPLOAD_LIMIT_BYTES = 104_857_600  # of a working directory: seen with Ray 2.60, HTTP 413 above

pytestmark = [pytest.mark.slow, pytest.mark.cluster]


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
def cluster() -> Iterator[Cluster]:
    with started() as found:
        yield found


@pytest.fixture(scope="module")
def long(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A recipe in the clone whose work takes a while: its name there."""
    folder = tmp_path_factory.mktemp("long")
    (folder / "crawl").mkdir()
    for part in range(SPLITS):
        (folder / "crawl" / f"{part:03d}.jsonl").write_text((lines(300, part) + "\n") * 12, encoding="utf-8")
    one_by_one = {"workers": 1, "object_store_mb": 100}
    written = Path(write_recipe(folder, f"{folder}/crawl/*.jsonl", resources=one_by_one))
    shutil.copy(written, clone / "long.yaml")
    return "long.yaml"


def test_a_job_from_a_fresh_clone_runs_on_the_cluster_and_writes_the_bytes_of_a_local_run(
    clone: Path, cluster: Cluster, tmp_path: Path
) -> None:
    job = [
        "--working-dir",
        ".",
        "--",
        "python",
        "-m",
        "jobs.prepare",
        "jobs/recipes/tiny.yaml",
        f"root={tmp_path}/job",
    ]
    ended = cluster.run("ray", "job", "submit", "--submission-id", "first", *job, cwd=clone)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "2/2 splits" in ended.stdout
    assert f"shards: {tmp_path}/job/tiny/1/clean" in ended.stdout
    listed = cluster.run("ray", "job", "list").stdout
    assert "driver_info=DriverInfo(" in listed  # it worked on this cluster: it started no Ray of its own
    local = recipe.load_recipe(str(clone / "jobs/recipes/tiny.yaml"), [f"root={tmp_path}/local"])
    pipeline.prepare(local, run_here)
    assert digests(
        recipe.load_recipe(str(clone / "jobs/recipes/tiny.yaml"), [f"root={tmp_path}/job"])
    ) == digests(local)


def test_submit_tells_the_log_and_ends_with_the_jobs_exit_code(
    clone: Path, cluster: Cluster, tmp_path: Path
) -> None:
    (clone / "narrow.yaml").write_bytes((clone / "jobs/recipes/tiny.yaml").read_bytes())
    (clone / ".env").write_text("SECRET=no node may see this")
    asked = ["ctllm", "submit", "prepare", "narrow.yaml", f"root={tmp_path}", "--address", cluster.address]
    for _ in range(2):  # the second finds all of it finished
        ended = cluster.run(*asked, cwd=clone)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert "sent " in ended.stdout
        assert f"shards: {tmp_path}/tiny/1/clean" in ended.stdout
    assert not list(cluster.home.rglob(".env"))
    made = json.loads((tmp_path / "tiny/1/clean/MANIFEST.json").read_text())["provenance"]
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=clone, capture_output=True, text=True, check=True)
    assert (made["commit"], made["dirty"]) == (head.stdout.strip(), "yes")  # the recipe is not in git
    assert re.fullmatch("[0-9a-f]{64}", made["sent_sha256"])
    export = [*asked[:2], "export", "narrow.yaml", f"root={tmp_path}", "--", "--step", "3"]
    ended = cluster.run(*export, cwd=clone)
    assert ended.returncode == 7  # there is no checkpoint: the job's own mistake, its message, its code
    assert "ctllm: " in ended.stdout
    assert "Traceback" not in ended.stdout + ended.stderr


def test_a_job_goes_on_without_its_terminal_is_found_again_and_goes_on_after_a_stop(
    clone: Path, cluster: Cluster, long: str
) -> None:
    loaded = recipe.load_recipe(str(clone / long))
    asked = ("ctllm", "submit", "prepare", long)
    markers = Path(loaded.folder("clean"), "splits")
    first = cluster.start(*asked, cwd=clone)
    wait_for(lambda: list(markers.glob("*.json")), first)
    first.send_signal(signal.SIGINT)
    told, error = first.communicate(timeout=COMMAND_S)
    assert first.returncode == 130
    [name] = set(re.findall(r"\bcli-1-prepare-\w+", told))
    assert f"{name} keeps running" in told
    assert "Traceback" not in error

    second = cluster.start(*asked, cwd=clone)
    assert second.stdout is not None
    assert f"{name} is already running" in second.stdout.readline()
    assert cluster.run("ray", "job", "stop", name).returncode == 0
    assert second.wait(COMMAND_S) == 143
    done = {file.name for file in markers.glob("*.json")}
    assert 0 < len(done) < SPLITS
    before = {file.name: file.stat().st_mtime_ns for file in markers.glob("*.json")}

    third = cluster.run(*asked, cwd=clone)
    assert third.returncode == 0, third.stdout + third.stderr
    assert name not in third.stdout
    after = {file.name: file.stat().st_mtime_ns for file in markers.glob("*.json")}
    assert len(after) == SPLITS
    assert {file: after[file] for file in before} == before  # nothing that was done is done again


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + COMMAND_S
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_cluster_wants_its_token(clone: Path, cluster: Cluster, tmp_path: Path) -> None:
    asked = ("ctllm", "submit", "prepare", "jobs/recipes/tiny.yaml", f"root={tmp_path}")
    for other in ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "fedcba9876543210" * 4}):
        ended = cluster.run(*asked, cwd=clone, **other)
        assert ended.returncode == 9, ended.stdout + ended.stderr
        assert "requires its token" in ended.stderr
        assert "RAY_AUTH_TOKEN_PATH" in ended.stderr
        assert "Traceback" not in ended.stderr


def test_a_local_root_is_refused_where_there_are_several_nodes(
    clone: Path, cluster: Cluster, tmp_path: Path
) -> None:
    asked = ("ctllm", "submit", "export", "jobs/recipes/tiny.yaml", f"root={tmp_path}")
    with cluster.another_node():
        refused = cluster.run(*asked, cwd=clone)
        assert refused.returncode == 2, refused.stdout + refused.stderr
        assert "root is a local folder, but the cluster has 2 nodes" in refused.stderr
        shared = cluster.run(*asked, "--shared-root", cwd=clone)
    assert shared.returncode == 7, shared.stdout + shared.stderr  # it ran: there is no checkpoint


def test_a_folder_that_is_too_large_is_not_sent(clone: Path, cluster: Cluster, tmp_path: Path) -> None:
    with (clone / "weights.bin").open("wb") as stream:
        stream.write(os.urandom(UPLOAD_LIMIT_BYTES + 1))
    subprocess.run(["git", "add", "weights.bin"], cwd=clone, check=True)
    try:
        ended = cluster.run(
            "ctllm", "submit", "prepare", "jobs/recipes/tiny.yaml", f"root={tmp_path}", cwd=clone
        )
    finally:
        subprocess.run(["git", "rm", "-q", "-f", "weights.bin"], cwd=clone, check=True)
    assert ended.returncode == 3, ended.stdout + ended.stderr
    assert "too large to send" in ended.stderr
    assert ".rayignore" in ended.stderr
