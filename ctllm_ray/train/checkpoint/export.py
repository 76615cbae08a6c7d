"""Exports a checkpoint as a Hugging Face folder for serving, with its lineage.

`<export>/<step>/` holds the weights (safetensors, in shards), config.json, generation_config.json, the
tokenizer's files as the token section has them, and lineage.json: which recipe, mixture, shards (by SHA-256),
code and checkpoint the weights come from, and the hashes of the weights themselves. lineage.json is written
last: a folder without it is not finished, and the next export writes it again. Weights pass one tensor at a
time, so memory holds one shard.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from ctllm_ray.base import exports, storage
from ctllm_ray.base.decisions import fingerprint
from ctllm_ray.base.errors import InputError, NotFound, StorageError
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.model.config import ModelConfig, for_recipe
from ctllm_ray.tokenizer import specials
from ctllm_ray.tokenizer.tokenizer import load_tokenizer
from ctllm_ray.train import objective
from ctllm_ray.train.data import corpora
from ctllm_ray.train.data.data_log import DATA

if TYPE_CHECKING:
    from ctllm_ray.train.checkpoint.checkpoint import Checkpoint

LINEAGE = exports.LINEAGE
NOT_TOKENIZER = (
    "report.json",
    "MANIFEST.json",
)  # files of the tokenizer section that a model folder does not need

Precision = Literal["bf16", "fp32"]


def export_checkpoint(recipe: Recipe, step: int | None = None, precision: Precision = "bf16") -> str:
    """Exports a checkpoint (the newest, or that of a step)
    and returns the folder. A finished export is not repeated.

    Raises `NotFound` if the run has no such checkpoint, `StorageError` where it is damaged, `RecipeError`
    where the recipe trains nothing.
    """
    recipe.training()  # raises if the recipe trains nothing
    checkpoint = _checkpoint(recipe, step)
    folder = storage.join(recipe.folder("export"), str(checkpoint.state.step))
    if not _is_finished(folder, checkpoint, precision):
        write_export(recipe, checkpoint, folder, precision)
    checkpoint.forget_copies()
    return folder


def newest_export(recipe: Recipe) -> str:
    """The folder of the finished export with the most steps. Raises `NotFound` if there is none."""
    return exports.newest(recipe.folder("export"), "run `ctllm export`, or set a model: serve.model=PATH")


def _checkpoint(recipe: Recipe, step: int | None) -> Checkpoint:
    """The checkpoint to export, with hashes checked: damaged weights would not
    be noticed after the export."""
    from ctllm_ray.train.checkpoint import checkpoint  # imports torch

    run = recipe.folder("train")
    known = checkpoint.steps(run)
    if step is not None and known and step not in known:
        remedy = f"existing steps: {', '.join(map(str, known))}"
        raise NotFound(f"this run has no checkpoint of step {step}", where=run, remedy=remedy)
    result = checkpoint.newest(run) if step is None else checkpoint.open_at(checkpoint.folder_of(run, step))
    if wrong := result.verify(result.files):
        raise StorageError(wrong, where=result.folder, remedy="restore it, or choose another --step")
    return result


def _is_finished(folder: str, checkpoint: Checkpoint, precision: str) -> bool:
    """True if the folder already holds this checkpoint in this precision."""
    path = storage.join(folder, LINEAGE)
    if not storage.exists(path):
        return False
    lineage = storage.read_json(path)
    return (lineage.get("checkpoint"), lineage.get("precision")) == (_identity(checkpoint), precision)


def _identity(checkpoint: Checkpoint) -> dict[str, Any]:
    state = checkpoint.state
    return {"folder": checkpoint.folder, "step": state.step, "batch": state.batch, "data": state.data}


def write_export(recipe: Recipe, checkpoint: Checkpoint, folder: str, precision: Precision) -> None:
    """Writes the folder: weights, configuration, tokenizer, lineage."""
    import torch

    from ctllm_ray.model.folder import write_folder
    from ctllm_ray.train import adapters

    vocabulary = _vocabulary(recipe)
    storage.remove(storage.join(folder, LINEAGE))  # from here on the folder counts as unfinished
    write_folder(
        folder,
        _shape(recipe, vocabulary.vocab_size),
        adapters.weights_of(recipe, vocabulary, checkpoint),
        dtype=torch.bfloat16 if precision == "bf16" else torch.float32,
        token_ids=_token_ids(recipe, vocabulary),
    )
    _copy_tokenizer(vocabulary.folder, folder)
    storage.write_json(storage.join(folder, LINEAGE), _lineage(recipe, checkpoint, folder, precision))


def _token_ids(recipe: Recipe, vocabulary: corpora.Vocabulary) -> dict[str, Any]:
    """Framing ids by their configuration names. A model trained on conversations also
    ends at the end of a turn."""
    ids: dict[str, Any] = {"bos_token_id": vocabulary.bos, "pad_token_id": vocabulary.pad}
    answers = objective.find_objective(recipe.training()[1]).teaches_chat
    end = load_tokenizer(vocabulary.folder).specials.get(specials.END) if answers else None
    return ids | {"eos_token_id": vocabulary.eos if end is None else [vocabulary.eos, end]}


def _vocabulary(recipe: Recipe) -> corpora.Vocabulary:
    return corpora.shared_vocabulary(corpora.read_sections(recipe.token_folders()))


def _shape(recipe: Recipe, vocab_size: int) -> ModelConfig:
    model, train = recipe.training()
    return for_recipe(model, vocab_size, train.sequence_tokens)


def _copy_tokenizer(source: str, folder: str) -> None:
    """Copies the tokenizer into the folder. Raises `InputError` if the token section has none."""
    names = [name for name in storage.list_names(source) if name not in NOT_TOKENIZER]
    if "tokenizer.json" not in names:
        raise InputError(
            "the token section has no tokenizer.json",
            where=source,
            remedy="delete the tokens section's folder and run `ctllm prepare` again",
        )
    for name in names:
        storage.write_bytes(storage.join(folder, name), storage.read_bytes(storage.join(source, name)))


def _lineage(recipe: Recipe, checkpoint: Checkpoint, folder: str, precision: str) -> dict[str, Any]:
    """The origin of the weights, as plain values."""
    _, train = recipe.training()
    state = checkpoint.state
    decided = state.recipe or recipe.decisions("train")
    data = storage.join(recipe.folder("train"), DATA)
    return {
        "name": recipe.name,
        "version": recipe.version,
        "run": train.run,
        "checkpoint": _identity(checkpoint),
        "precision": precision,
        "tokens": state.tokens,
        "targets": state.targets,
        "passed_over_batches": list(state.passed_over),
        "mixture": decided["train"]["mixture"],
        "data": storage.read_json(data) if storage.exists(data) else {},
        "recipe": decided,
        "recipe_fingerprint": fingerprint(decided),
        "code": state.lineage,
        "files": {name: _file(storage.join(folder, name)) for name in storage.list_names(folder)},
    }


def _file(uri: str) -> dict[str, Any]:
    size, sha256 = storage.size_and_sha256(uri)
    return {"bytes": size, "sha256": sha256}
