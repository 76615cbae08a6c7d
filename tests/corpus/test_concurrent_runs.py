"""The same command twice at once: both end well, with the bytes of one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from ctllm_ray.base import storage
from ctllm_ray.base.errors import StorageError
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.corpus import pipeline
from ctllm_ray.corpus.engine.section import Done
from ctllm_ray.corpus.engine.splits import Split
from ctllm_ray.shards.manifest import MANIFEST, Manifest
from tests.corpus.conftest import run_here
from tests.corpus.test_section import digests

Make = Callable[..., Recipe]


def assert_only_what_is_listed(recipe: Recipe, finished: Manifest) -> None:
    folder = Path(recipe.folder("clean"))
    files = [f for kind in ("kept", "rejected") for f in (folder / kind).iterdir()]
    assert sorted(str(f.relative_to(folder)) for f in files) == sorted(s.path for s in finished.shards)


def test_a_run_that_another_overtakes_ends_with_the_same_bytes(make: Make) -> None:
    calm, twice = make("calm"), make("twice")
    pipeline.clean(calm, run_here)
    others: list[Manifest] = []

    def overtaken(recipe: Recipe, folder: str, splits: Sequence[Split]) -> Iterator[Done]:
        yield from run_here(recipe, folder, splits[:2])
        others.append(pipeline.clean(recipe, run_here))
        yield from run_here(recipe, folder, splits[2:])

    assert [pipeline.clean(twice, overtaken)] == others
    assert digests(twice) == digests(calm)
    assert_only_what_is_listed(twice, others[0])


def test_a_run_whose_open_file_another_sweeps_away_takes_the_others_result(make: Make) -> None:
    calm, twice = make("calm"), make("twice")
    pipeline.clean(calm, run_here)

    def swept(recipe: Recipe, folder: str, splits: Sequence[Split]) -> Iterator[Done]:
        with storage.writing(storage.join(folder, "kept", "00003-000.arrow")) as local:
            Path(local).write_bytes(b"half a shard")
            pipeline.clean(recipe, run_here)
        yield from ()

    finished = pipeline.clean(twice, swept)
    assert digests(twice) == digests(calm)
    assert_only_what_is_listed(twice, finished)


def test_a_failure_of_storage_before_anyone_has_finished_is_raised(make: Make) -> None:
    recipe = make()

    def failing(*_: object) -> Iterator[Done]:
        raise StorageError("cannot be written")

    with pytest.raises(StorageError):
        pipeline.clean(recipe, failing)
    assert not storage.exists(storage.join(recipe.folder("clean"), MANIFEST))


def test_two_runs_at_the_same_time_end_with_the_same_bytes(make: Make) -> None:
    calm, twice = make("calm"), make("twice")
    pipeline.clean(calm, run_here)
    found: list[Manifest] = []
    threads = [
        threading.Thread(target=lambda: found.append(pipeline.clean(twice, run_here))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert found[0] == found[1] == found[2]
    assert digests(twice) == digests(calm)
    assert_only_what_is_listed(twice, found[0])
