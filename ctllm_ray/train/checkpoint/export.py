"""A checkpoint as a Hugging Face folder: what training hands to serving, and the paper it comes with.

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
)  # files of the tokenizer's section that no model folder needs

Precision = Literal["bf16", "fp32"]


def export_checkpoint(recipe: Recipe, step: int | None = None, precision: Precision = "bf16") -> str:
    """The folder of an exported checkpoint: the newest one, or that of a step. One that is finished is left
    as it is.

    Raises `NotFound` where the run has no such checkpoint, `StorageError` where it is damaged, `RecipeError`
    where the recipe trains nothing.
    """
    recipe.training()  # or tell that there is nothing to export
    checkpoint = _checkpoint(recipe, step)
    folder = storage.join(recipe.folder("export"), str(checkpoint.state.step))
    if not _is_finished(folder, checkpoint, precision):
        write(recipe, checkpoint, folder, precision)
    checkpoint.forget_copies()
    return folder


def newest_export(recipe: Recipe) -> str:
    """The folder of the finished export with the most steps. Raises `NotFound` where there is none."""
    return exports.newest(recipe.folder("export"), "run `ctllm export`, or name a model: serve.model=PATH")


def _checkpoint(recipe: Recipe, step: int | None) -> Checkpoint:
    """The checkpoint to export, its files hashed: damaged weights would look like any others once
    exported."""
    from ctllm_ray.train.checkpoint import checkpoint  # brings torch

    run = recipe.folder("train")
    known = checkpoint.steps(run)
    if step is not None and known and step not in known:
        remedy = f"there are those of the steps {', '.join(map(str, known))}"
        raise NotFound(f"this run has no checkpoint of step {step}", where=run, remedy=remedy)
    result = checkpoint.newest(run) if step is None else checkpoint.open_at(checkpoint.folder_of(run, step))
    if wrong := result.verify(result.files):
        raise StorageError(wrong, where=result.folder, remedy="restore it, or export another with `step`")
    return result


def _is_finished(folder: str, checkpoint: Checkpoint, precision: str) -> bool:
    """True where the folder holds this checkpoint in this precision already."""
    path = storage.join(folder, LINEAGE)
    if not storage.exists(path):
        return False
    lineage = storage.read_json(path)
    return (lineage.get("checkpoint"), lineage.get("precision")) == (_identity(checkpoint), precision)


def _identity(checkpoint: Checkpoint) -> dict[str, Any]:
    state = checkpoint.state
    return {"folder": checkpoint.folder, "step": state.step, "batch": state.batch, "data": state.data}


def write(recipe: Recipe, checkpoint: Checkpoint, folder: str, precision: Precision) -> None:
    """Writes the folder: weights and configuration, tokenizer, lineage."""
    import torch

    from ctllm_ray.model.folder import write_folder
    from ctllm_ray.train import adapters

    vocabulary = _vocabulary(recipe)
    storage.remove(storage.join(folder, LINEAGE))  # from here on the folder is not finished
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
    """Ids that frame texts, as configurations name them; what was taught to answer also ends where its turn
    does."""
    ids: dict[str, Any] = {"bos_token_id": vocabulary.bos, "pad_token_id": vocabulary.pad}
    answers = objective.of(recipe.training()[1]).teaches_chat
    end = load_tokenizer(vocabulary.folder).specials.get(specials.END) if answers else None
    return ids | {"eos_token_id": vocabulary.eos if end is None else [vocabulary.eos, end]}


def _vocabulary(recipe: Recipe) -> corpora.Vocabulary:
    return corpora.shared_vocabulary(corpora.read_sections(recipe.token_folders()))


def _shape(recipe: Recipe, vocab_size: int) -> ModelConfig:
    model, train = recipe.training()
    return for_recipe(model, vocab_size, train.sequence_tokens)


def _copy_tokenizer(source: str, folder: str) -> None:
    """Copies the tokenizer beside the weights. Raises `InputError` where the token section has none."""
    names = [name for name in storage.list_names(source) if name not in NOT_TOKENIZER]
    if "tokenizer.json" not in names:
        raise InputError(
            "the token section holds no tokenizer.json",
            where=source,
            remedy="write it again with `ctllm prepare`",
        )
    for name in names:
        storage.write_bytes(storage.join(folder, name), storage.read_bytes(storage.join(source, name)))


def _lineage(recipe: Recipe, checkpoint: Checkpoint, folder: str, precision: str) -> dict[str, Any]:
    """Where the weights come from, as plain values."""
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
