"""On Ray: one fused operator, the same bytes as a plain loop, through killed workers and a killed driver."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest
import yaml

from ctllm_ray.base.errors import InputError, WorkerLost
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.base.recipe_training import TokenizerPart, TokensPart
from ctllm_ray.corpus import pipeline
from ctllm_ray.corpus.engine import launch, splits
from ctllm_ray.corpus.engine.section import Done
from ctllm_ray.shards import manifest
from ctllm_ray.tokenizer import train
from tests.corpus.conftest import page, run_here
from tests.corpus.test_section import digests

pytestmark = pytest.mark.cluster
Make = Callable[..., Recipe]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen files of a few megabytes: enough for a run to be killed in the middle of it."""
    folder = tmp_path_factory.mktemp("large") / "crawl"
    folder.mkdir()
    pages = [page(i) for i in range(500)]
    draw = random.Random(5)
    for part in range(16):
        lines = [
            json.dumps({"text": draw.choice(pages) + draw.choice(pages)}, ensure_ascii=False)
            for _ in range(4000)
        ]
        (folder / f"{part:02d}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


def over(make: Make, folder: Path, root: str) -> Recipe:
    return make(
        root, data={"inputs": [{"use": "jsonl", "path": f"{folder}/*.jsonl"}], "max_error_share": 0.1}
    )


def test_a_section_is_one_fused_operator(
    make: Make, cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = make()
    launch.dataset(recipe, recipe.folder("clean"), splits.list_splits(recipe.data)).explain()
    plan = capsys.readouterr().out.partition("Physical Plan (Optimized)")[2]
    operators = [line for line in plan.splitlines() if "[" in line]
    assert len(operators) == 2, plan
    assert "TaskPoolMapOperator[MapBatches(_work)]" in operators[0]
    assert "InputDataBuffer[Input]" in operators[1]


def test_ray_writes_the_bytes_of_a_plain_loop(make: Make, cluster: None) -> None:
    plain, rayed = make("plain"), make("rayed")
    pipeline.clean(plain, run_here)
    pipeline.clean(rayed)
    assert digests(plain) == digests(rayed)


def test_a_users_mistake_inside_a_worker_arrives_as_itself(make: Make, cluster: None, tmp_path: Path) -> None:
    path = tmp_path / "gone.jsonl"
    path.write_text('{"text": "文"}', encoding="utf-8")

    def vanish(recipe: Recipe, folder: str, left: Sequence[splits.Split]) -> Iterator[Done]:
        path.unlink()
        return launch.run_splits(recipe, folder, left)

    data = {"inputs": [{"use": "jsonl", "path": str(path)}], "max_error_share": 0.1}
    with pytest.raises(InputError, match=r"gone\.jsonl"):
        pipeline.clean(make(data=data), vanish)


def kill_workers(stop: threading.Event, killed: list[int], wanted: int) -> None:
    """Ends worker processes of this test's Ray that are at work, at random moments."""
    draw = random.Random(7)
    while not stop.is_set() and len(killed) < wanted:
        time.sleep(draw.uniform(0.05, 0.4))
        busy = [
            p for p in psutil.Process().children(recursive=True) if _name(p).startswith("ray::MapBatches")
        ]
        if busy:
            victim = draw.choice(busy)
            victim.send_signal(signal.SIGKILL)
            killed.append(victim.pid)


def _name(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def test_killed_workers_change_no_byte(make: Make, cluster: None, large: Path) -> None:
    calm, stormy = over(make, large, "calm"), over(make, large, "stormy")
    pipeline.clean(calm, run_here)
    stop, killed = threading.Event(), []
    storm = threading.Thread(target=kill_workers, args=(stop, killed, 3))
    storm.start()
    try:
        pipeline.clean(stormy)
    finally:
        stop.set()
        storm.join()
    assert len(killed) >= 3
    assert digests(calm) == digests(stormy)


def test_a_split_that_keeps_ending_its_worker_is_named(make: Make, tmp_path: Path) -> None:
    recipe = make()
    folder = recipe.folder("clean")
    split = splits.list_splits(recipe.data)[2]
    for _ in range(3):
        launch._count_attempt(folder, split, 2)
    with pytest.raises(WorkerLost, match="3 times") as caught:
        launch._count_attempt(folder, split, 2)
    assert "2.jsonl" in str(caught.value)


@pytest.mark.slow
def test_a_killed_driver_goes_on_and_changes_no_byte(make: Make, large: Path, tmp_path: Path) -> None:
    calm, killed = over(make, large, "calm"), over(make, large, "killed")
    pipeline.clean(calm, run_here)
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(killed.model_dump(mode="json")), encoding="utf-8")
    command = [sys.executable, "-m", "jobs.prepare", str(path)]
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    driver = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    folder = Path(killed.folder("clean"))
    deadline = time.monotonic() + 300
    while len(list(folder.glob("splits/*.json"))) < 3:
        assert driver.poll() is None, driver.stdout.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    family = psutil.Process(driver.pid).children(recursive=True)
    driver.kill()
    driver.wait()
    psutil.wait_procs(family, timeout=60)
    before = len(list(folder.glob("splits/*.json")))
    assert not (folder / manifest.MANIFEST).exists()
    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert again.returncode == 0, again.stderr
    assert digests(calm) == digests(killed)
    runs = [json.loads(line) for line in (folder / manifest.RUNS).read_text().splitlines()]
    assert runs[-1]["splits_reused"] >= before - 2
    assert runs[-1]["splits_done"] + runs[-1]["splits_reused"] == 16


def with_tokens(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with token shards, its clean shards and a tokenizer made by a plain loop."""
    model = folder / "small.model"
    if not model.exists():
        model.write_bytes(train.train([page(i) for i in range(300)], 640))
    whole = recipe.model_copy(
        update={
            "tokenizer": TokenizerPart(path=str(model)),
            "tokens": TokensPart(group_by="genre", held_out_share=0.1),
        }
    )
    pipeline.prepare_tokenizer(whole, run_here)
    return whole


def files(recipe: Recipe) -> dict[str, str]:
    """SHA-256 of every token shard."""
    folder = Path(recipe.folder("tokens"))
    return {
        str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest()
        for f in folder.rglob("*.arrow")
    }


@pytest.mark.slow
def test_killed_workers_change_no_token(make: Make, cluster: None, large: Path, tmp_path: Path) -> None:
    calm, stormy = (with_tokens(over(make, large, root), tmp_path) for root in ("calm", "stormy"))
    pipeline.prepare(calm, run_here)
    stop, killed = threading.Event(), []
    storm = threading.Thread(target=kill_workers, args=(stop, killed, 5))
    storm.start()
    try:
        finished = pipeline.prepare(stormy)["tokens"]
    finally:
        stop.set()
        storm.join()
    assert len(killed) >= 3
    assert files(calm) == files(stormy)
    assert set(files(stormy)) == {shard.path for shard in finished.shards}
    assert finished.shards == manifest.read_manifest(calm.folder("tokens")).shards
