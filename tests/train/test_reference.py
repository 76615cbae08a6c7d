"""The reference's log-probabilities: what a forward pass gives, computed once, and never those of something
else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from ctllm_ray.base.errors import NotFound, StorageError, VersionConflict
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.model import llama
from ctllm_ray.shards import manifest
from ctllm_ray.shards.manifest import Shard
from ctllm_ray.shards.tokens import TokenShard
from ctllm_ray.train.data import reference_log_probs
from tests.train import pair_runs

STALE_MODEL = 'out of date, .*\n    model: "'


@pytest.fixture
def of(tmp_path: Path) -> Recipe:
    return pair_runs.recipe(tmp_path)


def test_a_value_is_the_sum_of_an_answers_log_probabilities_under_the_model(of: Recipe) -> None:
    reference_log_probs.complete(of, reference_log_probs.here)
    references, model = reference_log_probs.open_references(of), llama.load(of.training()[0].path)
    for shard in manifest.read_manifest(of.folder("tokens")).shards:
        opened, found = TokenShard.open(f"{of.folder('tokens')}/{shard.path}"), references(shard)
        assert len(found) == len(opened)
        spans, offsets = opened.answers()
        for document in range(0, len(opened), 7):
            ids = torch.from_numpy(opened.ids(document).astype(np.int64))
            with torch.no_grad():
                logs = model(ids[None, :-1]).logits.log_softmax(-1)[0].gather(1, ids[1:, None])[:, 0]
            start, stop = spans[offsets[document] : offsets[document + 1]].tolist()
            assert float(found[document]) == pytest.approx(float(logs[start - 1 : stop - 1].sum()), rel=1e-5)


def test_what_is_finished_is_not_computed_again(of: Recipe) -> None:
    asked: list[str] = []

    def cut_off(recipe: Recipe, shards: Sequence[tuple[str, Shard]]) -> list[Shard]:
        asked.extend(shard.path for _, shard in shards)
        done = [reference_log_probs.work(recipe, *shards[0])]
        raise KeyboardInterrupt(str(done))

    with pytest.raises(KeyboardInterrupt):
        reference_log_probs.complete(of, cut_off)
    with pytest.raises(NotFound):
        reference_log_probs.open_references(of)
    first = len(asked)
    with pytest.raises(KeyboardInterrupt):
        reference_log_probs.complete(of, cut_off)
    assert len(asked) - first == first - 1
    whole = reference_log_probs.complete(of, reference_log_probs.here)
    assert {part.path.removesuffix(".arrow") for part in whole.shards} == {
        shard.sha256 for shard in manifest.read_manifest(of.folder("tokens")).shards
    }


def test_other_runs_of_the_recipe_reuse_it(of: Recipe, tmp_path: Path) -> None:
    reference_log_probs.complete(of, reference_log_probs.here)
    other = pair_runs.recipe(
        tmp_path, run="other", objective={"use": "dpo", "beta": 1.0}, lora={"rank": 2, "alpha": 4}
    )
    reference_log_probs.complete(other, lambda recipe, shards: pytest.fail("computed again"))
    assert (
        len(reference_log_probs.open_references(other)(manifest.read_manifest(of.folder("tokens")).shards[0]))
        > 0
    )


def test_a_stale_cache_is_an_error_that_names_what_changed(of: Recipe, tmp_path: Path) -> None:
    reference_log_probs.complete(of, reference_log_probs.here)
    pair_runs.touch_model(tmp_path / "model")
    with pytest.raises(VersionConflict, match=STALE_MODEL) as conflict:
        reference_log_probs.open_references(of)
    assert "data: " not in conflict.value.what
    shutil.rmtree(of.folder("tokens"))
    pair_runs.write_pairs(Path(of.folder("tokens")), seed=8)
    with pytest.raises(VersionConflict, match=r'data: "\w+" -> "\w+"\n    model: "\w+" -> "\w+"\n'):
        reference_log_probs.complete(of, reference_log_probs.here)
    pair_runs.write_model(tmp_path / "model")
    with pytest.raises(VersionConflict, match=r"out of date, .*\n    data: "):
        reference_log_probs.open_references(of)


def test_weights_of_another_format_that_were_exchanged_make_it_stale(of: Recipe, tmp_path: Path) -> None:
    model, weights = llama.load(str(tmp_path / "model")), tmp_path / "model" / "pytorch_model.bin"
    (tmp_path / "model" / "model.safetensors").unlink()
    torch.save(model.state_dict(), weights)
    reference_log_probs.complete(of, reference_log_probs.here)
    reference_log_probs.open_references(of)
    torch.save({name: 2 * tensor for name, tensor in model.state_dict().items()}, weights)
    with pytest.raises(VersionConflict, match=STALE_MODEL):
        reference_log_probs.open_references(of)


def test_a_run_of_another_precision_does_not_take_it(of: Recipe, tmp_path: Path) -> None:
    reference_log_probs.complete(of, reference_log_probs.here)
    with pytest.raises(
        VersionConflict, match=r'out of date, .*\n    precision: "fp32" -> "bf16"\n'
    ) as conflict:
        reference_log_probs.open_references(pair_runs.recipe(tmp_path, run="other", precision="bf16"))
    assert "delete this folder" in conflict.value.remedy


def test_a_cache_that_does_not_say_its_precision_is_not_taken(of: Recipe) -> None:
    reference_log_probs.complete(of, reference_log_probs.here)
    path = Path(of.folder("reference"), "MANIFEST.json")
    said = json.loads(path.read_text())
    del said["provenance"]["precision"]
    path.write_text(json.dumps(said))
    with pytest.raises(VersionConflict, match=r'precision: "" -> "fp32"\n'):
        reference_log_probs.open_references(of)


def test_a_begun_cache_of_another_model_is_stale_too(of: Recipe, tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        reference_log_probs.complete(of, lambda recipe, shards: [])
    pair_runs.touch_model(tmp_path / "model")
    with pytest.raises(VersionConflict, match=STALE_MODEL):
        reference_log_probs.complete(of, reference_log_probs.here)


def test_a_part_that_was_changed_on_disk_is_not_read(of: Recipe) -> None:
    found = reference_log_probs.complete(of, reference_log_probs.here)
    part = Path(of.folder("reference"), found.shards[0].path)
    part.write_bytes(part.read_bytes()[:-9] + b"\0" * 9)
    shard = next(s for s in manifest.read_manifest(of.folder("tokens")).shards if s.sha256 == part.stem)
    with pytest.raises(StorageError, match="changed since it was written"):
        reference_log_probs.open_references(of)(shard)


def test_the_manifest_carries_hashes_and_precision(of: Recipe) -> None:
    reference_log_probs.complete(of, reference_log_probs.here)
    provenance = json.loads(Path(of.folder("reference"), "MANIFEST.json").read_text())["provenance"]
    assert (len(provenance["model"]), len(provenance["data"]), provenance["precision"]) == (64, 64, "fp32")
