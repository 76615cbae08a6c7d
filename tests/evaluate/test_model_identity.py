"""A stored result is given again only for the same weights, tokenizer, settings, precision, engine and
device."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from ctllm_ray.base import storage
from ctllm_ray.base.errors import VersionConflict
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.base.recipe_serving import Serve
from ctllm_ray.evaluate import run
from ctllm_ray.evaluate.models import model_identity
from ctllm_ray.evaluate.models.model_identity import describe_engine, identify_model
from ctllm_ray.model import fingerprint
from ctllm_ray.tokenizer.tokenizer import SentencePiece
from tests.evaluate.test_run import plain, quiet, recipe


@pytest.fixture
def exported(folder: Path, tmp_path: Path) -> Path:
    """A copy of the model as `ctllm export` leaves it: every file in lineage.json, which is written last."""
    copy = tmp_path / "export"
    shutil.copytree(folder, copy)
    names = storage.list_names(str(copy))
    sizes = {name: storage.size_and_sha256(str(copy / name)) for name in names}
    files = {name: {"bytes": size, "sha256": sha256} for name, (size, sha256) in sizes.items()}
    (copy / "lineage.json").write_text(json.dumps({"files": files}))
    return copy


def with_precision(folder: Path, tmp_path: Path, precision: str) -> Recipe:
    from ctllm_ray.base import recipe as recipes

    given = plain(folder, tmp_path)
    return recipes.parse_recipe(given | {"serve": given["serve"] | {"precision": precision}})


def test_another_precision_is_another_evaluation(folder: Path, tmp_path: Path) -> None:
    results = run.evaluate(with_precision(folder, tmp_path, "fp32"), quiet)
    model = results["decisions"]["model"]
    assert (model["engine"], model["device"], model["precision"]) == ("torch", "cpu", "fp32")
    with pytest.raises(VersionConflict, match=r'model\.precision: "fp32" -> "bf16"'):
        run.evaluate(with_precision(folder, tmp_path, "bf16"), quiet)
    assert run.evaluate(with_precision(folder, tmp_path, "auto"), quiet) == results  # fp32 on a CPU


def test_another_context_is_another_evaluation(folder: Path, tmp_path: Path) -> None:
    from ctllm_ray.base import recipe as recipes

    run.evaluate(recipe(folder, tmp_path), quiet)
    given = plain(folder, tmp_path)
    shorter = recipes.parse_recipe(given | {"serve": given["serve"] | {"context_tokens": 256}})
    with pytest.raises(VersionConflict, match=r"model\.context_tokens: 512 -> 256"):
        run.evaluate(shorter, quiet)


def test_an_evaluation_of_an_earlier_version_is_refused_with_what_differs(
    folder: Path, tmp_path: Path
) -> None:
    asked = recipe(folder, tmp_path)
    begun = Path(asked.folder("evaluate")) / "begun.json"
    run.evaluate(asked, quiet)
    old = json.loads(begun.read_text())
    old["model"] = {key: old["model"][key] for key in ("weights", "tokenizer")}
    begun.write_text(json.dumps(old))
    with pytest.raises(VersionConflict, match=r"model\.engine: null") as error:
        run.evaluate(asked, quiet)
    assert "evaluate.run=NAME" in error.value.remedy


@pytest.mark.parametrize(
    ("given", "engine", "told"),
    [
        ({}, "torch", ("torch", "cpu", "fp32")),
        ({"gpus": 1}, "torch", ("torch", "cuda", "bf16")),
        ({"gpus": 1, "precision": "fp32"}, "torch", ("torch", "cuda", "fp32")),
        ({"gpus": 1}, "vllm", ("vllm", "cuda", "of the folder")),
    ],
)
def test_what_computes_is_told(given: dict[str, Any], engine: str, told: tuple[str, ...]) -> None:
    assert tuple(describe_engine(Serve.model_validate(given), engine).values()) == told


def test_weights_of_every_format_tell_models_apart(
    folder: Path, tmp_path: Path, tokenizer: SentencePiece
) -> None:
    copy = tmp_path / "bin"
    shutil.copytree(folder, copy)
    (copy / "model.safetensors").unlink()
    torch.save({"w": torch.zeros(3)}, copy / "pytorch_model.bin")
    before = identify_model(str(copy), tokenizer)
    assert before["weights"].keys() == {"pytorch_model.bin"}
    torch.save({"w": torch.ones(3)}, copy / "pytorch_model.bin")
    assert identify_model(str(copy), tokenizer) != before


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer_config.json"])
def test_a_setting_that_changes_answers_tells_models_apart(
    name: str, folder: Path, tmp_path: Path, tokenizer: SentencePiece
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    before = identify_model(str(copy), tokenizer)
    (copy / name).write_text(json.dumps({"changed": True}))
    assert identify_model(str(copy), tokenizer) != before


def test_an_export_is_identified_by_its_lineage_without_reading_its_weights(
    exported: Path, folder: Path, tokenizer: SentencePiece, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = identify_model(str(folder), tokenizer)  # has no lineage
    monkeypatch.setattr(fingerprint, "hash_weights", None)
    assert identify_model(str(exported), tokenizer) == hashed


@pytest.mark.parametrize("keeps_time", [False, True])
def test_a_replaced_file_beside_an_old_lineage_is_noticed(
    keeps_time: bool, exported: Path, tokenizer: SentencePiece
) -> None:
    before = identify_model(str(exported), tokenizer)
    weights = exported / "model.safetensors"
    content, stat = bytearray(weights.read_bytes()), weights.stat()
    content[-1] ^= 1  # as long as before
    (exported / "new").write_bytes(content)
    if keeps_time:  # as `cp -p` and rsync do
        os.utime(exported / "new", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    (exported / "new").rename(weights)
    after = identify_model(str(exported), tokenizer)
    assert after["weights"] != before["weights"]
    assert after["weights"] == fingerprint.hash_weights(str(exported))


def test_weights_that_were_put_beside_an_export_are_noticed(exported: Path, tokenizer: SentencePiece) -> None:
    before = identify_model(str(exported), tokenizer)
    (exported / "adapter_model.bin").write_bytes(b"adapter")
    assert identify_model(str(exported), tokenizer)["weights"].keys() == {
        *before["weights"],
        "adapter_model.bin",
    }


def test_the_time_of_a_file_is_read_in_the_form_of_each_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import UTC, datetime

    there: dict[str, dict[str, Any]] = {
        "local": {"created": 1.5, "mtime": 9.0},
        "s3": {"LastModified": datetime(1970, 1, 1, 0, 1, tzinfo=UTC)},
        "gcs": {"updated": "1970-01-01T00:02:00Z"},
        "other": {},
    }

    class Filesystem:
        def info(self, path: str) -> dict[str, Any]:
            return there[path]

    monkeypatch.setattr(storage, "filesystem", lambda uri: (Filesystem(), uri))
    assert [model_identity._changed_at(uri) for uri in there] == [1.5, 60.0, 120.0, 0.0]
