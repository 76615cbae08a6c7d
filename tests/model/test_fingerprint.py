"""Which model a folder holds."""

from pathlib import Path

import pytest

from ctllm_ray.model.fingerprint import hash_model, hash_weights


def folder_with(path: Path, **files: str) -> str:
    path.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (path / name.replace("__", ".")).write_text(content)
    return str(path)


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        "model-00001-of-00002.safetensors",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
        "adapter_model.safetensors",
        "consolidated.00.pth",
    ],
)
def test_weights_of_every_format_tell_one_model_from_another(tmp_path: Path, name: str) -> None:
    folder = folder_with(tmp_path, config__json="{}")
    (tmp_path / name).write_text("one")
    before = hash_weights(folder), hash_model(folder)
    (tmp_path / name).write_text("two")
    assert hash_weights(folder) != before[0]
    assert hash_model(folder) != before[1]


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "generation_config.json", "chat_template.jinja"]
)
def test_what_else_answers_depend_on_tells_models_apart_but_is_no_weights(tmp_path: Path, name: str) -> None:
    folder = folder_with(tmp_path, model__safetensors="weights")
    (tmp_path / name).write_text("one")
    weights, before = hash_weights(folder), hash_model(folder)
    (tmp_path / name).write_text("two")
    assert hash_model(folder) != before
    assert hash_weights(folder) == weights


@pytest.mark.parametrize(
    "name", ["README.md", "training_args.bin", "optimizer.pt", "rng_state_0.pth", "scheduler.pt"]
)
def test_what_training_leaves_beside_the_weights_tells_nothing(tmp_path: Path, name: str) -> None:
    folder = folder_with(tmp_path, model__safetensors="weights", config__json="{}")
    before = hash_weights(folder), hash_model(folder)
    (tmp_path / name).write_text("anything")
    assert (hash_weights(folder), hash_model(folder)) == before
