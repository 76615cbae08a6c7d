"""A verb as a job on a cluster: sent, followed to its end, its exit code brought back. What `ctllm submit`
does.

Of the folder that the command stands in what git tracks is the code of the job (job_files.py; 100 MiB at most
when packed), and its recipe; data goes by path. The job lives on the cluster and not in this terminal: Ctrl-C
stops following it. The same command again follows a job that is still under way, and otherwise sends a new
one, which goes on where the one before it was, as every verb does. A connection that is lost is made again,
and no line of the log is told twice.
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

#: What may run as a job; jobs/ has a file for each, for `ray job submit`.
VERBS = ("evaluate", "export", "prepare", "serve", "sweep", "tokenizer", "train")
IDENTITY = "ctllm"  # in a job's metadata: the hash of what it does
SENT = "ctllm_sent"  # there too: the hash of the files that went with it
LOST = (
    OSError,
    RuntimeError,
)  # what a connection that breaks looks like; requests' and aiohttp's errors are OSErrors
POLL_S = 2.0
ATTEMPTS = 150  # to reach a cluster again: five minutes
AGAIN = "run the same command again: it goes on"

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
    """The exit code of the job that runs a verb with a recipe on the cluster whose dashboard is at an
    address.

    Raises `NoCluster` where nobody takes jobs there, `RecipeError` where the job could not see its recipe or
    keep its output, `InputError` where this folder is too large to send, `WorkerLost` where the job ended
    without an exit code.
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
            "" if sent == files.sha256 else " (it runs the files as they were when it was sent: these differ)"
        )
        tell(f"{job} is under way: following it{other}\n")
    else:
        for line in files.summarize():
            tell(f"{line}\n")
        name = f"{recipe.name}-{recipe.version}-{verb}-{secrets.token_hex(3)}"
        job = _send(jobs, name, entrypoint, identity, files, address)
        tell(f"{job} is sent to {address}\n")
    return follow(jobs, job, address, tell)


def list_files(path: str, tell: Tell) -> None:
    """Lists what would go with a job of a recipe, and what would not; nothing is sent. Raises
    `RecipeError`."""
    files = job_files.collect(Path.cwd(), below_here(path))
    for line in (*files.names, *files.summarize()):
        tell(f"{line}\n")


def below_here(path: str) -> str:
    """The path of a recipe from this folder, which is all that a job sees. Raises `RecipeError` where it is
    outside."""
    result = Path(path).resolve()
    if not result.is_relative_to(Path.cwd()):
        remedy = "put it below the folder that this command stands in: that folder is what is sent"
        raise RecipeError("the job would not see this recipe", where=path, remedy=remedy)
    return str(result.relative_to(Path.cwd()))


def carry_argument(argument: str) -> str:
    """An argument as a job can take it: what stands in a local file (`key=@FILE`) goes along as the value
    itself.

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
    """Raises `RecipeError` where a job's output would go with the job."""
    if not storage.is_remote(root) and not os.path.isabs(root.removeprefix("file://")):
        what = "a relative root is a folder in the job's copy of this folder, which goes with the job"
        remedy = "give a bucket, such as root=s3://bucket/run, or a path from the root that every node has"
        raise RecipeError(what, where=f"root={root}", remedy=remedy)


def check_nodes(root: str, nodes: int, shared: bool) -> None:
    """Raises `RecipeError` where each node would see another folder under the name of the root."""
    if nodes > 1 and not shared and not storage.is_remote(root):
        remedy = "give a bucket, such as root=s3://bucket/run; where all nodes mount this folder, say --shared-root"
        raise RecipeError(f"a local root on a cluster of {nodes} nodes", where=f"root={root}", remedy=remedy)


def follow(jobs: JobSubmissionClient, job: str, address: str, tell: Tell) -> int:
    """The exit code of a job, its log told as it comes. Raises `WorkerLost` where it ended without one."""
    try:
        ended = asyncio.run(_follow_job(jobs, job, address, tell))
    except (KeyboardInterrupt, SystemExit):
        tell(f"\n{job} goes on without this terminal; `ray job stop --address {address} {job}` ends it\n")
        raise
    if ended.status == "STOPPED":
        return 128 + signal.SIGTERM
    if ended.driver_exit_code is None:
        raise WorkerLost(f"{job} ended without an exit code: {ended.message}", where=address, remedy=AGAIN)
    code = int(ended.driver_exit_code)
    return code if code >= 0 else 128 - code  # a signal, as a shell says it


async def _follow_job(jobs: JobSubmissionClient, job: str, address: str, tell: Tell) -> JobDetails:
    """The job as it ended."""
    told, failures = 0, 0
    while True:
        try:
            at = 0  # a connection tells the log from its beginning
            async for text in jobs.tail_job_logs(job):
                at, failures = at + len(text), 0
                tell(text[max(0, told - at + len(text)) :])
                told = max(told, at)
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
    """A client of the cluster's job server, and how many nodes the cluster has."""
    from ray.job_submission import JobSubmissionClient
    from ray.util.state import list_nodes

    if not re.match(r"https?://", address):
        raise NoCluster(
            "not the address of a dashboard", where=address, remedy="it looks like http://HEAD:8265"
        )
    os.environ["RAY_API_SERVER_ADDRESS"] = (
        address  # Ray would take another one from there, over what it is given
    )
    with _explain_cluster_errors(address):
        check_port(address.partition("://")[2].rstrip("/"))
        # What the filter leaves out is missing to Ray, and a node that has gone stays listed.
        alive = list_nodes(address, filters=[("state", "=", "ALIVE")], raise_on_missing_output=False)
        return JobSubmissionClient(address), len(alive)


def _under_way(jobs: JobSubmissionClient, identity: str) -> tuple[str, str]:
    """The job that does the same and has not ended, and the hash of its files; empty where there is none."""
    for job in jobs.list_jobs():
        told = job.metadata or {}
        if told.get(IDENTITY) == identity and job.submission_id and not job.status.is_terminal():
            return job.submission_id, told.get(SENT, "")
    return "", ""


def _send(
    jobs: JobSubmissionClient, job: str, entrypoint: str, identity: str, files: JobFiles, address: str
) -> str:
    """The id of the new job."""
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
            remedy = f"name large files that the job does not need in {job_files.IGNORE}; --dry-run lists what goes"
            what = f"{archive.stat().st_size / 1e6:,.1f} MB, packed, are too much to send"
            raise InputError(what, where=str(files.folder), remedy=remedy) from error


@contextmanager
def _explain_cluster_errors(address: str) -> Iterator[None]:
    """Turns what Ray's clients raise into `NoCluster`."""
    from ray.exceptions import AuthenticationError
    from ray.util.state.exception import RayStateApiException

    try:
        yield
    except CtllmError:
        raise
    except AuthenticationError as error:
        remedy = "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the cluster's token"
        raise NoCluster("the cluster refuses: it wants its token", where=address, remedy=remedy) from error
    except (OSError, RuntimeError, ValueError, KeyError, RayStateApiException) as error:
        remedy = "give the address of its dashboard, such as http://HEAD:8265, from where it can be reached"
        raise NoCluster(f"no cluster takes jobs there: {error}", where=address, remedy=remedy) from error
