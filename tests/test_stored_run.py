"""A run that was begun by an earlier version goes on: what `stored_run.tar.xz` holds was left by commit 9085042.

That is a `clean` section killed after the first of its three splits, and a training run stopped after three of six
steps. Paths in it begin with `PLACE`, which is where it was made.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from ctllm_ray.base import recipe as recipes
from ctllm_ray.base.errors import VersionConflict
from ctllm_ray.corpus import pipeline
from ctllm_ray.corpus.engine import splits
from ctllm_ray.shards import manifest
from ctllm_ray.train.tracking import records
from tests.corpus.conftest import run_here
from tests.train import tiny_runs

STORED = Path(__file__).with_name("stored_run.tar.xz")
PLACE = "/tmp/mk/stored"


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the run, with the paths of this machine in its files; the working folder."""
    with tarfile.open(STORED) as archive:
        archive.extractall(tmp_path, filter="data")
    for path in (*tmp_path.rglob("*.json"), *tmp_path.rglob("*.jsonl")):
        if path.parent.name != "in":  # the age of an input is part of the plan
            path.write_text(path.read_text().replace(PLACE, str(tmp_path)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def test_a_section_of_an_earlier_version_goes_on_with_the_splits_that_are_left(
    stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = read(stored / "recipe.json")
    with monkeypatch.context() as patch:
        patch.setattr(splits, "MAX_FILES", 1)  # that version did not join small files
        whole = pipeline.prepare_corpus(recipes.parse_recipe(plain | {"root": "whole"}), run_here)
    split_ran: list[int] = []

    def run(recipe, folder, splits):  # type: ignore[no-untyped-def]
        if folder.endswith("clean"):
            split_ran.extend(split.index for split in splits)
        yield from run_here(recipe, folder, splits)

    resumed = pipeline.prepare_corpus(recipes.parse_recipe(plain), run)
    assert split_ran == [1, 2]
    for name in ("clean", "exact"):
        assert resumed[name].counts == whole[name].counts
        assert [s.sha256 for s in resumed[name].shards] == [s.sha256 for s in whole[name].shards]
        assert manifest.read_manifest(f"out/old/1/{name}") == resumed[name]
    assert resumed["exact"].rejects() == {"exact.duplicate": 4}


def test_a_section_of_an_earlier_version_still_refuses_other_decisions(stored: Path) -> None:
    plain = read(stored / "recipe.json")
    with pytest.raises(VersionConflict, match=r"seed: 5 -> 6"):
        pipeline.prepare_corpus(recipes.parse_recipe(plain | {"seed": 6}), run_here)


def test_a_training_run_of_an_earlier_version_goes_on_with_the_same_losses(stored: Path) -> None:
    recipe = recipes.parse_recipe(read(stored / "train.json"))
    state, losses, _ = tiny_runs.run(recipe)
    assert (state.step, len(losses)) == (6, 3)
    expected = read(stored / "losses.json")  # of a run that never stopped, by the earlier version
    assert losses == pytest.approx(expected[3:], abs=1e-5)  # other processors add in another order
    assert [record.step for record in records.read_steps(recipe.folder("train"))] == [1, 2, 3, 4, 5, 6]


def test_a_training_run_of_an_earlier_version_still_refuses_another_recipe(stored: Path) -> None:
    plain = read(stored / "train.json")
    schedule = plain["train"]["schedule"] | {"peak_rate": 0.004}
    changed = recipes.parse_recipe(plain | {"train": plain["train"] | {"schedule": schedule}})
    with pytest.raises(VersionConflict, match=r"peak_rate: 0\.003 -> 0\.004"):
        tiny_runs.run(changed)
