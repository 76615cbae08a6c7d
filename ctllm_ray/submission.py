"""Runs a verb as a job on a cluster: sends it, streams its log, and returns its exit code (`ctllm submit`).

The job's code is what git tracks in the current folder, and its recipe (job_files.py; at most 100 MiB when
packed). Data is not sent; recipes name it by path. The job runs on the cluster, so Ctrl-C only detaches. The
same command again attaches to a running job; else it sends a new job, which resumes, as every verb does. A
lost connection is opened again, and no line of the log is printed twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import os
import re
import secrets
import shlex
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from ctllm_ray import job_files
from ctllm_ray.base import provenance, storage
from ctllm_ray.base.errors import CtllmError, InputError, NoCluster, RecipeError, WorkerLost
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.job_files import JobFiles
from ctllm_ray.ray_session import check_port

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

#: Verbs that can run as jobs; jobs/ has a file for each, for `ray job submit`.
VERBS = ("evaluate", "export", "prepare", "serve", "sweep", "tokenizer", "train")
IDENTITY = "ctllm"  # key in a job's metadata: hash of its command and recipe
SENT = "ctllm_sent"  # key in a job's metadata: hash of the files sent with it
#: Errors of a broken connection; those of requests and aiohttp are OSErrors.
LOST = (OSError, RuntimeError)
POLL_S = 2.0
ATTEMPTS = 150  # to reconnect to a cluster: five minutes
AGAIN = "run the same command again; it resumes"

Tell = Callable[[str], None]


def submit(
    verb: str,
    path: str,
    arguments: Sequence[str],
    recipe: Recipe,
    address: str,
    shared_root: bool,
    tell: Tell,
) -> int:
    """Runs a verb with a recipe as a job on the cluster with this dashboard; returns the job's exit code.

    Raises `NoCluster` if the cluster accepts no jobs, `RecipeError` if the job could not see its
    recipe or keep its output, `InputError` if the folder is too large to send, `WorkerLost` if the
    job ended without an exit code.
    """
    below = below_here(path)
    entrypoint = shlex.join(["python", "-m", "ctllm_ray", verb, below, *map(carry_argument, arguments)])
    check_root(recipe.root)
    files = job_files.collect(Path.cwd(), below)
    jobs, nodes = _connect(address)
    check_nodes(recipe.root, nodes, shared_root)
    identity = hashlib.sha256(f"{entrypoint}\n{recipe.model_dump_json()}".encode()).hexdigest()
    with _explain_cluster_errors(address):
        job, sent = _under_way(jobs, identity)
    if job:
        other = (
            "" if sent == files.sha256 else " (it runs the files that were sent with it; yours differ now)"
        )
        tell(f"{job} is already running; following its log{other}\n")
    else:
        for line in files.summarize():
            tell(f"{line}\n")
        name = f"{recipe.name}-{recipe.version}-{verb}-{secrets.token_hex(3)}"
        job = _send(jobs, name, entrypoint, identity, files, address)
        tell(f"sent {job} to {address}\n")
    return follow(jobs, job, address, tell)


def list_files(path: str, tell: Tell) -> None:
    """Lists the files that would be sent with a recipe, and those that would not. Sends
    nothing. Raises `RecipeError`."""
    files = job_files.collect(Path.cwd(), below_here(path))
    for line in (*files.names, *files.summarize()):
        tell(f"{line}\n")


def below_here(path: str) -> str:
    """The recipe's path relative to this folder: a job sees nothing else. Raises
    `RecipeError` if it is outside."""
    result = Path(path).resolve()
    if not result.is_relative_to(Path.cwd()):
        remedy = "move the recipe below the current folder: only that folder is sent"
        raise RecipeError(
            "the recipe is outside the folder that is sent with the job", where=path, remedy=remedy
        )
    return str(result.relative_to(Path.cwd()))


def carry_argument(argument: str) -> str:
    """An argument in a form that a job can use: `key=@FILE` of a local file is replaced by the file's value.

    The file would be there only where git does not ignore it, and a sweep writes its mixture below `root`.
    """
    key, _, text = argument.partition("=")
    if not text.startswith("@") or storage.is_remote(text[1:]):
        return argument
    value = yaml.safe_load(storage.read_bytes(text[1:]))
    return (
        f"{key}={yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=math.inf).strip()}"
    )


def check_root(root: str) -> None:
    """Raises `RecipeError` if a job's output would be deleted with the job."""
    if not storage.is_remote(root) and not os.path.isabs(root.removeprefix("file://")):
        what = "a relative root lies in the job's copy of this folder, which is deleted with the job"
        remedy = (
            "set root to a bucket, for example root=s3://bucket/run, or to an absolute path on every node"
        )
        raise RecipeError(what, where=f"root={root}", remedy=remedy)


def check_nodes(root: str, nodes: int, shared: bool) -> None:
    """Raises `RecipeError` if the root would be another folder on each node."""
    if nodes > 1 and not shared and not storage.is_remote(root):
        remedy = (
            "set root to a bucket, for example root=s3://bucket/run; if all nodes mount this "
            "folder, add --shared-root"
        )
        raise RecipeError(
            f"root is a local folder, but the cluster has {nodes} nodes", where=f"root={root}", remedy=remedy
        )


def follow(jobs: JobSubmissionClient, job: str, address: str, tell: Tell) -> int:
    """Streams the log of a job and returns its exit code. Raises `WorkerLost` if it ended without one."""
    try:
        ended = asyncio.run(_follow_job(jobs, job, address, tell))
    except (KeyboardInterrupt, SystemExit):
        tell(f"\n{job} keeps running; to stop it: ray job stop --address {address} {job}\n")
        raise
    if ended.status == "STOPPED":
        return 128 + signal.SIGTERM
    if ended.driver_exit_code is None:
        raise WorkerLost(f"{job} ended without an exit code: {ended.message}", where=address, remedy=AGAIN)
    code = int(ended.driver_exit_code)
    return code if code >= 0 else 128 - code  # killed by a signal: the exit code that a shell gives


async def _follow_job(jobs: JobSubmissionClient, job: str, address: str, tell: Tell) -> JobDetails:
    """The final state of the job."""
    printed_chars, failures = 0, 0
    while True:
        try:
            at = 0  # a connection starts the log from its beginning
            async for text in jobs.tail_job_logs(job):
                at, failures = at + len(text), 0
                tell(text[max(0, printed_chars - at + len(text)) :])
                printed_chars = max(printed_chars, at)
            if (job_info := jobs.get_job_info(job)).status.is_terminal():
                return job_info
        except LOST as error:
            failures += 1
            if failures > ATTEMPTS:
                raise NoCluster(
                    f"the cluster no longer answers: {error}", where=address, remedy=AGAIN
                ) from error
        await asyncio.sleep(POLL_S)


def _connect(address: str) -> tuple[JobSubmissionClient, int]:
    """A client of the cluster's job server, and the number of nodes."""
    from ray.job_submission import JobSubmissionClient
    from ray.util.state import list_nodes

    if not re.match(r"https?://", address):
        raise NoCluster(
            "the cluster address is not the URL of a dashboard",
            where=address,
            remedy="give a URL like http://HEAD:8265",
        )
    # Ray would prefer another address in this variable to its argument.
    os.environ["RAY_API_SERVER_ADDRESS"] = address
    with _explain_cluster_errors(address):
        check_port(address.partition("://")[2].rstrip("/"))
        # Ray counts nodes that the filter leaves out as missing, and it still lists dead nodes.
        alive = list_nodes(address, filters=[("state", "=", "ALIVE")], raise_on_missing_output=False)
        return JobSubmissionClient(address), len(alive)


def _under_way(jobs: JobSubmissionClient, identity: str) -> tuple[str, str]:
    """The running job that does the same, and the hash of its files; empty if there is none."""
    for job in jobs.list_jobs():
        metadata = job.metadata or {}
        if metadata.get(IDENTITY) == identity and job.submission_id and not job.status.is_terminal():
            return job.submission_id, metadata.get(SENT, "")
    return "", ""


def _send(
    jobs: JobSubmissionClient, job: str, entrypoint: str, identity: str, files: JobFiles, address: str
) -> str:
    """Sends the new job; returns its id."""
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder, "job.zip")
        files.write_zip(archive)
        environment = {provenance.SOURCE: json.dumps(files.source(), sort_keys=True)}
        try:
            with _explain_cluster_errors(address):
                return jobs.submit_job(
                    submission_id=job,
                    entrypoint=entrypoint,
                    runtime_env={"working_dir": str(archive), "env_vars": environment},
                    metadata={IDENTITY: identity, SENT: files.sha256},
                )
        except NoCluster as error:
            if "413" not in error.what and "exceeds the maximum size" not in error.what:
                raise
            remedy = (
                f"add large files that the job does not need to {job_files.IGNORE}; --dry-run "
                "lists what is sent"
            )
            what = f"the folder is too large to send: {archive.stat().st_size / 1e6:,.1f} MB after packing"
            raise InputError(what, where=str(files.folder), remedy=remedy) from error


@contextmanager
def _explain_cluster_errors(address: str) -> Iterator[None]:
    """Converts errors of Ray's clients to `NoCluster`."""
    from ray.exceptions import AuthenticationError
    from ray.util.state.exception import RayStateApiException

    try:
        yield
    except CtllmError:
        raise
    except AuthenticationError as error:
        remedy = "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the cluster's token"
        raise NoCluster("the cluster requires its token", where=address, remedy=remedy) from error
    except (OSError, RuntimeError, ValueError, KeyError, RayStateApiException) as error:
        remedy = "give the URL of its dashboard, for example http://HEAD:8265, as seen from this machine"
        raise NoCluster(f"the cluster accepts no jobs: {error}", where=address, remedy=remedy) from error
