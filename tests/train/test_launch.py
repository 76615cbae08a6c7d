"""Training on Ray: a worker killed in mid-step, errors with their types, a driver that is stopped, resizing."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster
from ray.train.v2.api.config import ScalingConfig

from ctllm_ray.base.errors import InputError, RecipeError
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.ray_session import environment
from ctllm_ray.train.checkpoint import checkpoint
from ctllm_ray.train.ray import launch, trainer
from ctllm_ray.train.ray.board import Board
from ctllm_ray.train.tracking import records
from tests.train.test_elastic import start
from tests.train.tiny_runs import BATCH_TOKENS, assert_same_model, recipe

WORKERS = {"workers": 2, "threads": 1}
STEPS = 3000  # long enough for a machine to come and go
PREEMPTION = 2  # autoscaler.proto: DRAIN_NODE_REASON_PREEMPTION


def workers() -> list[psutil.Process]:
    """The training workers of this process's Ray."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "RayTrainWorker" in " ".join(child.cmdline())]


def when_saved(of: Recipe, act: Any) -> threading.Thread:
    """A thread that acts once, when the run has its first checkpoint."""

    def watch() -> None:
        while not checkpoint.steps(of.folder("train")):
            time.sleep(0.05)
        act()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def losses(of: Recipe) -> list[tuple[int, int, float]]:
    return [(record.step, record.batch, record.loss) for record in records.read_steps(of.folder("train"))]


def events(of: Recipe, kind: str) -> list[records.Event]:
    return [event for event in records.read_events(of.folder("train")) if event.kind == kind]


@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_a_worker_killed_in_mid_step_changes_neither_losses_nor_batches_nor_the_model(
    tmp_path: Path, cluster: None
) -> None:
    resources = WORKERS | {"keep_every_tokens": 10 * BATCH_TOKENS, "zero_stage": 2}
    whole, killed = (recipe(tmp_path / name, 60, resources=resources) for name in ("whole", "killed"))
    assert start(whole, 2, 10**9, tmp_path / "processes")[0].step == 60  # without Ray
    died: list[float] = []

    def kill() -> None:
        os.kill(max(worker.pid for worker in workers()), signal.SIGKILL)
        died.append(time.time())

    when_saved(killed, kill)
    assert launch.run_training(killed).step == 60
    assert [event.kind for event in records.read_events(killed.folder("train"))].count("resumed") == 1
    assert losses(killed) == losses(whole)
    assert_same_model(killed, whole)
    first = min(
        record.time for record in records.read_steps(killed.folder("train")) if record.time > died[0] + 1
    )
    print(f"from the death of a worker to the first step after it: {first - died[0]:.1f} s")


@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_an_error_that_a_person_must_mend_reaches_the_driver_with_its_type_and_is_not_tried_again(
    tmp_path: Path, cluster: None
) -> None:
    of = recipe(tmp_path, resources=WORKERS | {"workers": 1})
    shard = next((tmp_path / "t" / "1" / "tokens" / "train").rglob("*.arrow"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match=shard.name) as caught:
        launch.run_training(of)
    assert caught.value.remedy
    assert not events(of, "started")


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_driver_that_is_stopped_and_run_again_goes_on(tmp_path: Path, how: signal.Signals) -> None:
    of = recipe(tmp_path, 400, resources=WORKERS | {"keep_every_tokens": 20 * BATCH_TOKENS})
    code = (
        "import sys; from pathlib import Path; from tests.train.tiny_runs import recipe\n"
        "from ctllm_ray.train.ray import launch; import signal\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
        f"resources = {dict(of.resources.train.model_dump())!r}\n"
        f"launch.run_training(recipe(Path({str(tmp_path)!r}), 400, resources=resources))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    first = subprocess.Popen([sys.executable, "-c", code], env=environment)
    when_saved(of, lambda: first.send_signal(how)).join()
    assert first.wait() == (143 if how == signal.SIGTERM else -signal.SIGKILL)
    assert len(events(of, "stopped")) == (how == signal.SIGTERM)
    assert checkpoint.newest(of.folder("train")).step < 400
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert checkpoint.newest(of.folder("train")).step == 400
    assert [step for step, _, _ in losses(of)] == list(range(1, 401))
    assert len(events(of, "resumed")) == 1


@pytest.mark.slow
@pytest.mark.cluster
def test_validation_runs_beside_training_where_a_cpu_is_spare(tmp_path: Path, cluster: None) -> None:
    validation = {"every_tokens": 4 * BATCH_TOKENS}
    of = recipe(tmp_path, 8, resources={"workers": 1, "threads": 1}, validation=validation)
    assert launch.run_training(of).step == 8
    folder = Path(of.folder("train"))
    assert [file.name for file in sorted((folder / records.VALIDATION).iterdir())] == [
        "00000004.json",
        "00000008.json",
    ]
    assert (folder / launch.SNAPSHOT).exists()  # Ray was told of them
    assert checkpoint.steps(str(folder)) == [4, 8]


def until(is_so: Callable[[], Any], training: threading.Thread) -> None:
    """Waits for it, while training goes on."""
    while not is_so():
        assert training.is_alive()
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(1800)
def test_a_group_grows_into_a_new_machine_and_saves_when_it_is_taken_away(
    tmp_path: Path, no_ray: None
) -> None:
    resources = {
        "workers": [1, 3],
        "threads": 1,
        "resize_s": 2,
        "keep_every_tokens": 50 * BATCH_TOKENS,
        "keep": 4,
    }
    of = recipe(tmp_path, STEPS, resources=resources, max_epochs=1e6)
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    ray.init(address=nodes.address, log_to_driver=False)
    told: list[str] = []
    ended: list[Any] = []
    training = threading.Thread(target=lambda: ended.append(launch.run_training(of, told.append)))
    training.start()
    until(lambda: checkpoint.steps(of.folder("train")), training)
    spot = nodes.add_node(num_cpus=2)
    until(lambda: events(of, "resized"), training)
    until(lambda: checkpoint.steps(of.folder("train"))[-1] > events(of, "resized")[0].step, training)
    client = ray._raylet.GcsClient(address=nodes.address)
    deadline_ms = int((time.time() + 600) * 1000)
    assert client.drain_node(spot.node_id, PREEMPTION, "a spot instance", deadline_ms)[0]
    until(lambda: len(events(of, "resized")) == 2, training)
    training.join()
    ray.shutdown()
    nodes.shutdown()
    assert ended[0].step == STEPS
    grown = [(event.facts["workers_before"], event.facts["workers"]) for event in events(of, "resized")]
    assert grown == [
        (1, 2),
        (2, 1),
    ]  # three workers have room, and do not divide the four sequences of a batch
    (saved,) = events(of, "stopped")
    assert [event.step for event in events(of, "resumed")][-1] == saved.step  # nothing was trained again
    assert any("a machine is being preempted" in line for line in told)
    assert [(step, batch) for step, batch, _ in losses(of)] == [(n + 1, n) for n in range(STEPS)]


# --- without Ray ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [3, (3, 3), (5, 7)])
def test_workers_that_do_not_divide_a_batch_are_refused_with_those_that_do(
    tmp_path: Path, workers: Any
) -> None:
    of = recipe(tmp_path, resources={"workers": workers})
    assert of.train
    with pytest.raises(RecipeError, match="4 sequences") as caught:
        launch.check_workers(of.train, of.resources.train)
    assert "1, 2, 4" in caught.value.remedy


def test_a_range_of_workers_needs_one_number_that_divides(tmp_path: Path) -> None:
    of = recipe(tmp_path, resources={"workers": [3, 5]})
    assert of.train
    launch.check_workers(of.train, of.resources.train)


def test_a_range_that_is_upside_down_is_refused(tmp_path: Path) -> None:
    of = recipe(tmp_path, resources={"workers": [4, 2]})
    assert of.train
    with pytest.raises(RecipeError, match="larger than the maximum"):
        launch.check_workers(of.train, of.resources.train)


@pytest.mark.parametrize(("room", "taken"), [(0, 0), (1, 1), (3, 3), (5, 4), (8, 6), (30, 6)])
def test_a_group_has_as_many_workers_as_divide_the_batch_and_have_room(room: int, taken: int) -> None:
    policy = trainer.Dividing(ScalingConfig(num_workers=(1, 8)), sequences=12, leaving=dict)
    assert policy._count_possible_workers({"node": {"CPU": float(room)}}) == taken


def test_a_group_starts_on_no_node_that_is_about_to_go_but_is_not_resized_away_from_it() -> None:
    policy = trainer.Dividing(ScalingConfig(num_workers=(1, 8)), sequences=12, leaving=lambda: {"spot": 0})
    room = {"head": {"CPU": 1.0}, "spot": {"CPU": 3.0}}
    policy._maybe_send_resource_request = lambda: None
    policy._get_reserved_resources = lambda: room
    assert policy.make_decision_for_non_running_worker_group().num_workers == 1
    assert policy._count_possible_workers(room) == 4


def test_the_first_error_on_the_board_counts_and_a_note_is_told_once() -> None:
    board = Board()
    assert board.failure() == b""
    board.fail(pickle.dumps(InputError("a")))
    board.fail(pickle.dumps(InputError("b")))
    assert pickle.loads(board.failure()).what == "a"
    board.note("plain")
    board.note("plain")
    assert board.notes() == ["plain"]
    assert board.notes() == []


def test_what_a_person_has_set_in_the_environment_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resources = recipe(tmp_path, resources={"threads": 3}).resources.train
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("NCCL_DEBUG", "INFO")
    assert launch._worker_environment(resources)["OMP_NUM_THREADS"] == "3"
    assert launch._worker_environment(resources.model_copy(update={"gpu": True}))["NCCL_DEBUG"] == "INFO"
    monkeypatch.setenv("RAY_TRAIN_METRICS_ENABLED", "1")
    with environment(launch._settings(resources)):
        assert os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] == "600.0"
        assert os.environ["RAY_TRAIN_METRICS_ENABLED"] == "1"
    assert "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S" not in os.environ
    assert os.environ["RAY_TRAIN_METRICS_ENABLED"] == "1"


def test_paths_mean_the_same_on_a_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    of = recipe(Path("out"), corpora=["more/tokens"], branch_from="other/train/checkpoints/00000004")
    moved = launch._absolute(of)
    assert moved.train
    assert moved.train.corpora == (str(tmp_path / "more" / "tokens"),)
    assert moved.train.branch_from == str(tmp_path / "other/train/checkpoints/00000004")
    assert moved.folder("train") == of.folder("train")
