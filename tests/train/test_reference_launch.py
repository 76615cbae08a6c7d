"""The reference on Ray: the same bytes as in this process, errors with their types, and DPO from there on."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ctllm_ray.base.errors import StorageError
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.shards import manifest
from ctllm_ray.train.data import reference_log_probs
from ctllm_ray.train.ray import launch, reference_launch
from ctllm_ray.train.tracking import records
from tests.train import pair_runs
from tests.train.test_launch import WORKERS, when_saved, workers
from tests.train.tiny_runs import assert_same_model

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("cluster")]


def files(of: Recipe) -> dict[str, bytes]:
    """The cache as it lies on disk."""
    folder = Path(of.folder(reference_log_probs.SECTION))
    return {path.name: path.read_bytes() for path in folder.glob("*.arrow")}


def losses(of: Recipe) -> list[float]:
    return [record.loss for record in records.read_steps(of.folder("train"))]


def test_tasks_write_what_one_process_writes(tmp_path: Path) -> None:
    alone = pair_runs.recipe(tmp_path / "alone")
    on_ray = pair_runs.recipe(
        tmp_path / "ray", resources={"threads": 2}
    )  # one task at a time: torch comes in once
    expected = reference_log_probs.complete(alone, reference_log_probs.here)
    found = reference_log_probs.complete(on_ray, reference_launch.run_reference)
    assert files(on_ray) == files(alone)
    assert replace(found, inputs=[]) == replace(expected, inputs=[])
    assert len(files(on_ray)) == 6


def test_an_error_that_a_person_must_mend_keeps_its_type(tmp_path: Path) -> None:
    of = pair_runs.recipe(tmp_path)
    shard = manifest.read_manifest(of.folder("tokens")).shards[0]
    Path(of.folder("tokens"), shard.path).unlink()
    with pytest.raises(StorageError, match=r"cannot be read|No such file"):
        reference_log_probs.complete(of, reference_launch.run_reference)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_dpo_scores_then_trains_and_a_killed_worker_changes_nothing(tmp_path: Path) -> None:
    batches = 100
    whole = pair_runs.recipe(tmp_path / "whole", batches, resources=WORKERS)
    often = WORKERS | {"keep_every_tokens": 5 * pair_runs.BATCH_TOKENS}
    cut = pair_runs.recipe(tmp_path / "cut", batches, resources=often)
    launch.run_training(whole)
    shutil.copytree(whole.folder(reference_log_probs.SECTION), cut.folder(reference_log_probs.SECTION))
    when_saved(cut, lambda: workers()[0].kill())
    launch.run_training(cut)
    assert [event.kind for event in records.read_events(cut.folder("train"))].count("resumed") == 1
    assert losses(cut) == losses(whole)
    assert_same_model(whole, cut)
