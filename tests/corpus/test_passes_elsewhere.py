"""Passes on Ray, in a bucket and on a full disk: the same bytes, and nothing lost."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from ctllm_ray.base import storage
from ctllm_ray.base.errors import StorageError
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.corpus import pipeline
from ctllm_ray.shards import manifest
from tests.base.test_storage_s3 import endpoint  # noqa: F401  # a fixture
from tests.corpus.conftest import fill, run_here
from tests.corpus.dedup_recipes import EXACT, NEAR, hashes, over, texts, write_crawl
from tests.corpus.test_launch import kill_workers
from tests.corpus.test_near import body, edited

BOILERPLATE = {"use": "boilerplate", "min_pages": 8, "min_share": 0.1, "own_line_cost": 3}
DECONTAMINATE = {
    "use": "decontaminate",
    "ngram_chars": 8,
    "max_items": 4,
    "min_overlap": 0.5,
    "action": "cut",
}


def passes(crawl: Path, partition_rows: int = 4000) -> list[dict[str, Any]]:
    """All four; the evaluation set stands beside the crawl."""
    exam = {"name": "exam", "path": str(crawl.parent / "exam.jsonl"), "fields": ["question"]}
    near = NEAR | {"partition_rows": partition_rows, "local_pairs": 60}
    boilerplate = BOILERPLATE | {"partition_rows": partition_rows // 10}
    return [EXACT, near, boilerplate, DECONTAMINATE | {"sets": [exam]}]


def write_copies(folder: Path, pages: int = 120) -> Path:
    """Four files of so many pages, copies of sixty, with a line above all; a question out of each of the first ten."""
    draw = random.Random(2)

    def page(seed: int) -> str:
        return "首页\n" + edited(body(draw.randrange(60)), draw.randrange(6), seed)

    files = [[page(i * 200 + n) for n in range(pages)] for i in range(4)]
    questions = [json.dumps({"question": body(number)[100:140]}) for number in range(10)]
    (folder / "exam.jsonl").write_text("\n".join(questions), encoding="utf-8")
    return write_crawl(folder / "crawl", files)


@pytest.fixture(scope="module")
def crawl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_copies(tmp_path_factory.mktemp("copies"))


@pytest.fixture(scope="module")
def calm(crawl: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """What a plain loop makes of them."""
    recipe = over(crawl, tmp_path_factory.mktemp("calm"), passes(crawl))
    pipeline.prepare(recipe, run_here)
    assert not any("首页" in text for text in texts(recipe))
    assert manifest.read_manifest(recipe.folder("decontaminate")).counts["cut:exam"] > 5
    return recipe


def same(calm: Recipe, other: Recipe) -> None:
    """The passes wrote the same bytes."""
    for section in ("exact", "near", "boilerplate", "decontaminate"):
        assert hashes(other, section) == hashes(calm, section)
        assert (
            manifest.read_manifest(other.folder(section)).shards
            == manifest.read_manifest(calm.folder(section)).shards
        )


@pytest.mark.cluster
def test_ray_writes_what_a_plain_loop_writes_through_killed_workers(
    crawl: Path, calm: Recipe, tmp_path: Path, cluster: None
) -> None:
    recipe = over(crawl, tmp_path, passes(crawl))
    stop, killed = threading.Event(), []
    storm = threading.Thread(target=kill_workers, args=(stop, killed, 3))
    storm.start()
    try:
        pipeline.prepare(recipe)
    finally:
        stop.set()
        storm.join()
    assert len(killed) >= 2
    same(calm, recipe)


def an_agent(process: psutil.Process) -> bool:
    """One of Ray's, which write nothing of ours and outlive a driver by minutes."""
    return "Agent" in " ".join(process.cmdline())


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_a_driver_killed_in_every_phase_goes_on_and_changes_no_byte(
    crawl: Path, calm: Recipe, tmp_path: Path
) -> None:
    recipe = over(crawl, tmp_path / "out", passes(crawl))
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json")), encoding="utf-8")
    command = [sys.executable, "-m", "jobs.prepare", str(path)]
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    phases = ("exact/keys", "near/keys", "near/bands", "near/edges", "near/small-00", "near")
    for phase in (*phases, "boilerplate/counts", "boilerplate/bounds", "decontaminate/hits"):
        markers = Path(recipe.folder(phase)) / "splits"
        driver = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 240
        while not list(markers.glob("*.json")):
            assert driver.poll() is None, phase
            assert time.monotonic() < deadline, phase
            time.sleep(0.01)
        family = [each for each in psutil.Process(driver.pid).children(recursive=True) if not an_agent(each)]
        driver.kill()
        driver.wait()
        psutil.wait_procs(family, timeout=60)
    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    same(calm, recipe)


@pytest.mark.usefixtures("endpoint")
def test_in_a_bucket_the_same_bytes_are_written_and_nothing_is_left_behind(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of few pages: each partition of each split is an object, and the server of the tests is a slow one."""
    folder = tmp_path_factory.mktemp("few")
    few = write_copies(folder, 25)
    calm = over(few, folder / "calm", passes(few, 1500))
    pipeline.prepare(calm, run_here)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    root = f"s3://bucket/{tmp_path.name}"
    recipe = over(few, tmp_path, passes(few, 1500)).model_copy(update={"root": root})
    pipeline.prepare(recipe, run_here)
    for section in ("near", "boilerplate", "decontaminate"):
        folder = recipe.folder(section)
        found = {name: storage.read_bytes(storage.join(folder, name)) for name in storage.list_tree(folder)}
        written = {
            name: hashlib.sha256(data).hexdigest() for name, data in found.items() if name.endswith(".arrow")
        }
        assert written == hashes(calm, section)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_in_a_shuffle_is_one_message_and_costs_no_finished_unit(
    crawl: Path, calm: Recipe, small_disk: Path
) -> None:
    recipe = over(crawl, small_disk / "out", passes(crawl))

    def filling(given: Recipe, folder: str, splits: list) -> Iterator:
        for done in run_here(given, folder, splits[:1]):
            yield done
            if folder.endswith("near/keys"):
                filling_file.append(fill(small_disk, 100_000))
        yield from run_here(given, folder, splits[1:])

    filling_file: list[Path] = []
    with pytest.raises(StorageError, match="No space left") as caught:
        pipeline.prepare(recipe, filling)
    assert "near/keys" in caught.value.where
    filling_file[0].unlink()
    worked: list[str] = []

    def counting(given: Recipe, folder: str, splits: list) -> Iterator:
        worked.extend(f"{split.section} {split.index}" for split in splits)
        yield from run_here(given, folder, splits)

    pipeline.prepare(recipe, counting)
    assert worked[:3] == ["near/keys 1", "near/keys 2", "near/keys 3"]
    same(calm, recipe)
