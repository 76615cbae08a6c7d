"""The driver's part of a training run on Ray Train: workers, failures, resizing, preemption, validation.

Each worker runs `session.train`, as a single process would (worker.py). Checkpoints are ours (checkpoint.py):
at every start, after a failure, a resize or with a new driver, a worker resumes from the newest undamaged
one. Ray learns of a checkpoint only for its validation and deletes none (`num_to_keep` is not set). Ray's own
list of checkpoints is deleted at each launch: it would require those that our retention has deleted.

An error that a person has to mend comes back as a value, with its type, and nothing is tried again in vain.
Anything else (a killed worker, storage that fails) is Ray's to try again, up to `max_failures`.

It uses internals of Ray Train 2.60 for each worker's notice of a preemption: the public `get_preemption_info`
is a barrier of all workers, and the loop agrees on stopping by itself (worker.py). trainer.py names the
others.
"""

from __future__ import annotations

import os
import pickle
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import pyarrow.fs
import ray
from ray.train.torch import TorchConfig
from ray.train.v2.api.config import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError
from ray.train.v2.api.result import Result
from ray.train.v2.api.validation_config import ValidationConfig
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ctllm_ray.base import storage
from ctllm_ray.base.errors import CtllmError, NoCluster, RecipeError, WorkerLost
from ctllm_ray.base.recipe import ROOT, Recipe, parse_recipe
from ctllm_ray.base.recipe_training import Train, TrainResources
from ctllm_ray.model.config import for_recipe
from ctllm_ray.ray_session import check_nodes, environment, session
from ctllm_ray.shards.manifest import Shard
from ctllm_ray.train import objective
from ctllm_ray.train.checkpoint import resume, run_lock
from ctllm_ray.train.checkpoint.run_state import RunState
from ctllm_ray.train.data import corpora, reference_log_probs
from ctllm_ray.train.ray import reference_launch, worker
from ctllm_ray.train.ray.board import Board
from ctllm_ray.train.ray.trainer import Trainer
from ctllm_ray.train.ray.worker import first_line

COLLECTIVE_S = 3600  # timeout of a collective: rank 0 may validate in between
HEALTH_CHECK_S = 1.0  # between Ray's checks of the workers: the delay until a killed one is noticed
SNAPSHOT = "checkpoint_manager_snapshot.json"  # Ray's own list of checkpoints
_PATHS = (("tokenizer", "path"), ("model", "path"), ("train", "branch_from"))


def run_training(recipe: Recipe, tell: Callable[[str], None] = lambda text: None) -> RunState:
    """Runs the training and returns its final state. Ctrl-C
    or SIGTERM saves first; a second one does not wait.

    `tell` prints lines for people. Raises `CtllmError` of many kinds: those of the session, with their types.
    """
    model, train = recipe.training()
    resources = recipe.resources.train
    check_workers(train, resources)
    vocabulary = corpora.look(recipe).vocabulary  # missing data are reported before Ray starts
    for_recipe(model, vocabulary.vocab_size, train.sequence_tokens)
    if ended := resume.read_ended(recipe, train):
        return ended
    _check_writable(recipe.folder("train"))
    run_lock.wait_until_free(recipe.folder("train"))
    most = resources.worker_range[1]
    cpus = max(os.cpu_count() or 1, most)
    with session(cpus, recipe.resources.object_store_mb), environment(_settings(resources)):
        recipe = _absolute(recipe)
        check_nodes(recipe.resources.label_selector(resources.gpu))
        if objective.find_objective(train).needs_reference:
            reference_log_probs.complete(
                recipe, lambda recipe, shards: _score_reference(recipe, shards, tell)
            )
        launch = _Launch(recipe, tell)
        while True:
            result = launch.fit()
            if not result["preempted"]:
                return RunState.from_plain(result["state"])
            tell("a machine is being preempted: saved; restarting on the remaining machines")


def _score_reference(
    recipe: Recipe, shards: Sequence[tuple[str, Shard]], tell: Callable[[str], None]
) -> Iterator[Shard]:
    """Parts of the reference cache, as tasks finish them."""
    tell(f"scoring the pairs of {len(shards)} token shards once with the initial model")
    return reference_launch.run_reference(recipe, shards)


def _check_writable(folder: str) -> None:
    """Raises `StorageError` if the run's folder is not writable: Ray would end in a traceback of its own."""
    probe = storage.join(folder, f"{storage.TEMPORARY}{uuid.uuid4().hex}")
    storage.write_bytes(probe, b"")
    storage.remove(probe)


def check_workers(train: Train, resources: TrainResources) -> None:
    """Raises `RecipeError` if no allowed number of workers divides the sequences of a batch."""
    sequences = train.batch_tokens // train.sequence_tokens
    least, most = resources.worker_range
    if least > most:
        raise RecipeError(f"resources.train.workers: the minimum {least} is larger than the maximum {most}")
    if not any(sequences % workers == 0 for workers in range(least, most + 1)):
        divide = ", ".join(str(workers) for workers in range(1, sequences + 1) if sequences % workers == 0)
        raise RecipeError(
            f"a batch of {sequences} sequences cannot be divided among {_words(resources)} workers",
            where="resources.train.workers",
            remedy=f"use a number of workers that divides it: {divide}; or change train.batch_tokens",
        )


def _words(resources: TrainResources) -> str:
    least, most = resources.worker_range
    return str(least) if least == most else f"{least} to {most}"


def _absolute(recipe: Recipe) -> Recipe:
    """The recipe with absolute paths, which mean the same in a worker's folder."""
    plain = recipe.model_dump(mode="json") | {"root": storage.absolute(recipe.root)}
    for part, key in _PATHS:
        if plain.get(part) and plain[part][key]:
            plain[part][key] = _absolute_path(plain[part][key])
    folders = plain["train"]
    folders["corpora"] = [_absolute_path(folder) for folder in folders["corpora"]]
    if folders["validation"]:
        folders["validation"]["corpora"] = [
            _absolute_path(folder) for folder in folders["validation"]["corpora"]
        ]
    return parse_recipe(plain)


def _absolute_path(path: str) -> str:
    """The absolute path. Paths below the recipe's root are already absolute, like the root."""
    return path if path.startswith(ROOT) else storage.absolute(path)


def _settings(resources: TrainResources) -> dict[str, str]:
    """Environment variables for Ray Train in the driver."""
    return {
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(resources.start_timeout_s),
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": str(HEALTH_CHECK_S),
        "RAY_TRAIN_COLLECTIVE_TIMEOUT_S": str(COLLECTIVE_S),
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        "RAY_TRAIN_METRICS_ENABLED": "0",
    }


class _Launch:
    """The part of one driver in a run."""

    def __init__(self, recipe: Recipe, tell: Callable[[str], None]) -> None:
        self._recipe, self._tell = recipe, tell
        self._resources = recipe.resources.train
        self._folder = recipe.folder("train")
        self._validates_aside = bool(recipe.train and recipe.train.validation) and self._has_spare()
        self._owner = uuid.uuid4().hex  # of all worker groups of this driver
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._board: Any = ray.remote(Board).options(num_cpus=0, scheduling_strategy=here).remote()

    def fit(self) -> dict[str, Any]:
        """Rank 0's final state as plain values, and whether a preemption ended it."""
        storage.remove(storage.join(self._folder, SNAPSHOT))
        trainer, result = self._trainer(), _Outcome()
        thread = threading.Thread(target=result.of, args=(trainer.fit,), name="ray-train", daemon=True)
        thread.start()
        stopped_by = self._wait(result)
        error = ray.get(self._board.failure.remote())
        if error:
            raise pickle.loads(error)
        if result.error is not None:
            raise self._explain_failure(result.error) from result.error
        if stopped_by is not None:
            raise stopped_by
        return result.value

    def _wait(self, outcome: _Outcome) -> BaseException | None:
        """Waits for the end of training in the main thread, where signals arrive;
        prints messages of the workers."""
        stopped_by: BaseException | None = None
        while not outcome.is_there.is_set():
            try:
                outcome.is_there.wait(
                    HEALTH_CHECK_S
                )  # not Thread.join: in Python 3.11 a signal during it ends `is_alive`
                for note in ray.get(self._board.notes.remote()):
                    self._tell(note)
            except (KeyboardInterrupt, SystemExit) as error:
                if stopped_by is not None:
                    raise
                stopped_by = error
                self._tell("stopping: saving a checkpoint first; press Ctrl-C again to stop without it")
                ray.get(self._board.ask_to_stop.remote())
        return stopped_by

    def _trainer(self) -> Trainer:
        resources, (_, train) = self._resources, self._recipe.training()
        fs, path = storage.filesystem(self._folder)
        parent, _, name = path.rstrip("/").rpartition("/")
        remote = storage.is_remote(self._folder)
        elastic = isinstance(resources.workers, tuple)
        return Trainer(
            worker.work,
            sequences=train.batch_tokens // train.sequence_tokens,
            train_loop_config={
                "recipe": self._recipe.model_dump_json(),
                "owner": self._owner,
                "board": self._board,
                "validates_aside": self._validates_aside,
            },
            torch_config=TorchConfig("nccl" if resources.gpu else "gloo", timeout_s=COLLECTIVE_S),
            scaling_config=ScalingConfig(
                num_workers=resources.worker_range if elastic else resources.worker_range[0],
                use_gpu=resources.gpu,
                resources_per_worker=self._each(),
                elastic_resize_monitor_interval_s=resources.resize_s,
                label_selector=self._recipe.resources.label_selector(resources.gpu) or None,
            ),
            run_config=RunConfig(
                name=name,
                storage_path=parent,
                storage_filesystem=pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(fs)) if remote else None,
                failure_config=FailureConfig(
                    max_failures=resources.max_failures, controller_failure_limit=resources.max_failures
                ),
                worker_runtime_env={"env_vars": _worker_environment(resources)},
                logging_config=LoggingConfig(log_level="ERROR"),
            ),
            validation_config=self._validation() if self._validates_aside else None,
        )

    def _each(self) -> dict[str, float]:
        """Ray resources of a worker: its threads as CPUs, or a GPU and a CPU to feed it."""
        if self._resources.gpu:
            return {"CPU": 1, "GPU": 1}
        most = self._resources.worker_range[1]
        return {"CPU": self._resources.threads or max(1, int(ray.cluster_resources().get("CPU", 1)) // most)}

    def _has_spare(self) -> bool:
        """True if the cluster has room for a validation besides the workers."""
        kind = "GPU" if self._resources.gpu else "CPU"
        reserved = self._resources.worker_range[1] * self._each()[kind]
        return ray.cluster_resources().get(kind, 0) - reserved >= 1

    def _validation(self) -> ValidationConfig:
        gpus = int(self._resources.gpu)
        cost: dict[str, Any] = {"num_cpus": 1, "num_gpus": gpus}
        if selector := self._recipe.resources.label_selector(gpus):
            cost["label_selector"] = selector
        environment = {"env_vars": _worker_environment(self._resources)}
        return ValidationConfig(
            cast(Any, worker.validate), ray_remote_kwargs=cost | {"runtime_env": environment}
        )

    def _explain_failure(self, error: BaseException) -> BaseException:
        """The outcome of Ray's last attempt, in one message."""
        if isinstance(error, ControllerError):
            have = {k: v for k, v in ray.cluster_resources().items() if k in ("CPU", "GPU")}
            return NoCluster(
                f"the {_words(self._resources)} workers did not start: "
                f"{first_line(error.controller_failure)}",
                where=f"each needs {self._each()}; the cluster has {have}",
                remedy="use fewer workers (resources.train.workers), or raise "
                "resources.train.start_timeout_s",
            )
        if not isinstance(error, WorkerGroupError):
            return error
        failures = list(error.worker_failures.items())
        for _, failure in failures:
            if isinstance(failure, CtllmError):
                return failure
        # A lost connection is how the others see the worker that failed.
        rank, failure = min(failures, key=lambda f: "onnection" in str(f[1]))
        return WorkerLost(
            f"the workers failed {self._resources.max_failures + 1} times; last error: {first_line(failure)}",
            where=f"worker {rank}, {self._folder}",
            remedy="run the same command again; it resumes from the newest checkpoint. If memory "
            "ran out, set resources.train.micro_sequences=1, activation_checkpointing=true "
            "or a higher zero_stage",
        )


class _Outcome:
    """The result of a function in a thread."""

    def __init__(self) -> None:
        self.value: dict[str, Any] = {}
        self.error: Exception | None = None
        self.is_there = threading.Event()

    def of(self, fit: Callable[[], Result]) -> None:
        """Calls it."""
        try:
            self.value = fit().return_value or {}
        except Exception as error:
            self.error = error
        finally:
            self.is_there.set()


def _worker_environment(resources: TrainResources) -> dict[str, str]:
    """Environment of the workers. Variables set by the user for the driver take precedence."""
    wanted = {
        "OMP_NUM_THREADS": str(max(1, resources.threads)),
        "TOKENIZERS_PARALLELISM": "false",
        "DEEPSPEED_LOG_LEVEL": "error",
    }
    if resources.gpu:
        wanted |= {
            "NCCL_DEBUG": "WARN",
            "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1",  # a hanging collective ends its process
            "PYTORCH_ALLOC_CONF": "expandable_segments:True",
        }
    else:
        wanted |= {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    return {name: os.environ.get(name, value) for name, value in wanted.items()}
