"""`ctllm submit`: what is refused before anything is sent, and how a job is followed (a scripted job
server)."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ray.job_submission import JobStatus

from ctllm_ray import submission
from ctllm_ray.base import recipe as recipes
from ctllm_ray.base.errors import NoCluster, RecipeError, WorkerLost
from ctllm_ray.cli import run
from tests.conftest import REPOSITORY

RECIPE = "jobs/recipes/tiny.yaml"


class Server:
    """A job server that tells `log`, each connection up to one of `cuts`, and then how the job ended."""

    def __init__(self, log: list[str], cuts: list[int], status: JobStatus, code: int | None) -> None:
        self._log, self._cuts = log, cuts
        self._ended = SimpleNamespace(status=status, driver_exit_code=code, message="the node went away")

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        cut = self._cuts.pop(0) if self._cuts else None
        for line in self._log[:cut]:
            yield line
        if cut is not None:
            raise RuntimeError("WebSocket connection closed unexpectedly with close code 1006")

    def get_job_info(self, job: str) -> Any:
        return self._ended


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission, "POLL_S", 0)
    monkeypatch.chdir(REPOSITORY)


def followed(server: Any) -> tuple[int, str]:
    told: list[str] = []
    return submission.follow(server, "a-1-train-0", "http://head", told.append), "".join(told)


@pytest.mark.parametrize("cuts", [[], [0], [1], [2, 1, 3], [3, 3]])
def test_a_log_is_told_once_however_often_the_connection_breaks(cuts: list[int]) -> None:
    log = ["step 1\n", "step 2\nstep", " 3\n"]
    assert followed(Server(log, cuts, JobStatus.SUCCEEDED, 0)) == (0, "".join(log))


@pytest.mark.parametrize(
    ("status", "code", "ends_with"),
    [
        (JobStatus.SUCCEEDED, 0, 0),
        (JobStatus.FAILED, 2, 2),
        (JobStatus.FAILED, 143, 143),
        (JobStatus.FAILED, -9, 137),
        (JobStatus.STOPPED, None, 143),
    ],
)
def test_the_exit_code_is_the_jobs(status: JobStatus, code: int | None, ends_with: int) -> None:
    assert followed(Server([], [], status, code))[0] == ends_with


def test_a_job_that_ended_without_an_exit_code_says_why() -> None:
    with pytest.raises(WorkerLost, match="the node went away"):
        followed(Server([], [], JobStatus.FAILED, None))


def test_a_cluster_that_stays_away_is_given_up_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission, "ATTEMPTS", 3)
    with pytest.raises(NoCluster, match="no longer answers"):
        followed(Server(["a"], [0] * 9, JobStatus.SUCCEEDED, 0))
    assert followed(Server(["a"], [0] * 3, JobStatus.SUCCEEDED, 0)) == (0, "a")


def test_only_a_job_of_the_same_work_that_has_not_ended_is_followed_again() -> None:
    def job(name: str, identity: str, status: JobStatus) -> Any:
        told = {submission.IDENTITY: identity, submission.SENT: "its files"}
        return SimpleNamespace(submission_id=name, metadata=told, status=status)

    there = [
        SimpleNamespace(submission_id=None, metadata=None, status=JobStatus.RUNNING),  # somebody's driver
        job("ended", "same", JobStatus.STOPPED),
        job("other", "another", JobStatus.RUNNING),
        job("this", "same", JobStatus.PENDING),
    ]
    client: Any = SimpleNamespace(list_jobs=lambda: there)
    assert submission._under_way(client, "same") == ("this", "its files")
    assert submission._under_way(client, "new") == ("", "")


def test_a_recipe_outside_the_folder_that_is_sent_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(Path(RECIPE).read_bytes())
    with pytest.raises(RecipeError, match="outside the folder that is sent"):
        submission.below_here(str(tmp_path / "mine.yaml"))
    assert submission.below_here(str(REPOSITORY / RECIPE)) == RECIPE


def test_what_a_local_file_says_goes_along_with_the_job(tmp_path: Path) -> None:
    phases = [
        {"shares": {"text": 0.1 + 0.2, "web": 0.7 - 1e-16}, "until_tokens": 98304},
        {"shares": {"text": 1e-5, "web": 0.99999}},
    ]
    (tmp_path / "mixture.yaml").write_text(yaml.safe_dump(phases), encoding="utf-8")
    override = f"train.mixture=@{tmp_path}/mixture.yaml"
    taken = submission.carry_argument(override)
    assert "@" not in taken
    assert "\n" not in taken
    assert recipes.load_recipe(RECIPE, [taken]) == recipes.load_recipe(RECIPE, [override])
    for other in ("root=out", "--step", "train.mixture=@s3://bucket/mixture.yaml"):
        assert submission.carry_argument(other) == other


def test_a_root_that_goes_with_the_job_or_that_one_node_sees_is_refused() -> None:
    with pytest.raises(RecipeError, match="deleted with the job"):
        submission.check_root("out")
    for root in ("/data/run", "file:///data/run", "s3://bucket/run"):
        submission.check_root(root)
    with pytest.raises(RecipeError, match="root is a local folder, but the cluster has 3 nodes"):
        submission.check_nodes("/data/run", 3, shared=False)
    submission.check_nodes("/data/run", 3, shared=True)
    submission.check_nodes("/data/run", 1, shared=False)
    submission.check_nodes("s3://bucket/run", 3, shared=False)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["trane", RECIPE, "--address", "http://127.0.0.1:1"], 2, "no job is called 'trane'"),
        (["train", RECIPE], 2, "RAY_API_SERVER_ADDRESS"),
        (["train", "none.yaml", "--address", "http://127.0.0.1:1"], 2, "the recipe file does not exist"),
        (
            ["train", RECIPE, "root=/data", "sed=1", "--address", "http://127.0.0.1:1"],
            2,
            "did you mean 'seed'",
        ),
        (["train", RECIPE, "--address", "http://127.0.0.1:1"], 2, "deleted with the job"),
        (["train", RECIPE, "root=/data", "--address", "http://127.0.0.1:1"], 9, "Connection refused"),
        (["train", RECIPE, "root=/data", "--address", "127.0.0.1:6379"], 9, "http://HEAD:8265"),
    ],
)
def test_a_mistake_is_told_before_anything_is_sent(
    arguments: list[str],
    code: int,
    says: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())  # the address that was asked stays there
    os.environ.pop("RAY_API_SERVER_ADDRESS", None)
    assert run(["submit", *arguments]) == code
    assert says in capsys.readouterr().err


def test_every_job_is_a_verb() -> None:
    from ctllm_ray import cli

    verbs = {verb.__name__ for verb in cli.VERBS}
    for file in (REPOSITORY / "jobs").glob("[a-z]*.py"):
        assert file.stem in verbs
        assert f'main(["{file.stem}", *sys.argv[1:]])' in file.read_text(encoding="utf-8")
