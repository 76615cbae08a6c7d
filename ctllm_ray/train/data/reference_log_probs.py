"""Computes the reference's log-probabilities of preference
answers once, and stores them as Arrow for all runs.

DPO compares the model with the one it began with. That one never changes, so a second model beside the first
and a second forward pass in every step, as is usual, compute the same numbers again and again. Here one task
for each token shard (train/ray/reference_launch.py) writes `<reference>/<SHA-256 of the token shard>.arrow`:
a float32 for each document, the log-probability of its answers in nats. It is a section of work like any
other: PLAN.json when it begins, a marker for each finished shard, MANIFEST.json last; what a killed one has
finished is not computed again.

The cache belongs to a model and to data, whose hashes it carries. Runs of one recipe (`train.run`) share it,
whatever their beta, rates and adapters: with LoRA too the reference is the model that the run began with. A
cache of another model or other data is an error that says which of them changed; it is never used, and never
silently made again.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from ctllm_ray.base import storage
from ctllm_ray.base.decisions import fingerprint
from ctllm_ray.base.errors import StorageError
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.base.resumable import ResumableFolder
from ctllm_ray.model import llama
from ctllm_ray.model.config import for_recipe
from ctllm_ray.shards import manifest
from ctllm_ray.shards.manifest import Manifest, Shard
from ctllm_ray.shards.tokens import TRAIN
from ctllm_ray.train import initial_model
from ctllm_ray.train.data import corpora
from ctllm_ray.train.data.batch import blank
from ctllm_ray.train.data.corpora import Vocabulary
from ctllm_ray.train.data.packed_shards import Layout, PackedUnit, PackingUnit, References
from ctllm_ray.train.losses import preference_loss

SECTION = "reference"
MICRO_TOKENS = 16_384  # positions of one forward pass
_SCHEMA = pa.schema([("logprob", pa.float32())])
_AGAIN = "delete this folder; the next start computes it again"


@dataclass(frozen=True)
class CacheKey:
    """What a cache depends on: SHA-256 of the model, and over the sorted SHA-256 of the
    token shards; hexadecimal.

    Another precision changes the numbers by more than a first step of DPO does.
    Empty: the cache does not say.
    """

    model: str
    data: str
    precision: str = ""


@dataclass(frozen=True)
class NeededScores:
    """What a recipe's runs need: the shards (folder, shard), and the model."""

    key: CacheKey
    shards: tuple[tuple[str, Shard], ...]


#: Scores token shards of a recipe in the given order, and yields each part of the cache: Ray, or a plain
#: loop.
Runner = Callable[[Recipe, Sequence[tuple[str, Shard]]], Iterable[Shard]]


def list_needed(recipe: Recipe) -> NeededScores:
    """The pairs of all groups in the mixture, held-out ones included. Hashes the model, at about 1 GB/s."""
    model, train = recipe.training()
    own = corpora.read_sections(recipe.token_folders())
    validated = corpora.validation_sections(recipe, own)
    groups = {group for phase in train.mixture for group in phase.shares}
    results = [(folder, shard) for folder, section in own.items() for shard in section.of_kind(TRAIN)]
    results += corpora.held_out_shards(own | validated)
    shards = {shard.sha256: (folder, shard) for folder, shard in results if shard.group in groups}
    data = hashlib.sha256("".join(sorted(shards)).encode()).hexdigest()
    identity = initial_model.identity(model, corpora.shared_vocabulary(own), recipe.train_seed)
    return NeededScores(CacheKey(identity, data, train.precision), tuple(shards.values()))


def complete(recipe: Recipe, run: Runner) -> Manifest:
    """Completes the cache and returns its manifest. Raises `VersionConflict` if it is stale."""
    folder, need = recipe.folder(SECTION), list_needed(recipe)
    if manifest.is_finished(folder):
        return _check_manifest(manifest.read_manifest(folder), need.key, folder)
    files = _files(folder)
    if begun := files.read_begun():
        _check_key(CacheKey(**begun), need.key, folder)
    else:
        files.begin(asdict(need.key))
    done = {name: Shard(**files.read_unit(name)) for name in files.list_units()}
    left = [(at, shard) for at, shard in need.shards if shard.sha256 not in done]
    for part in run(recipe, left) if left else ():
        done[part.path.removesuffix(".arrow")] = part
    files.require_units([shard.sha256 for _, shard in need.shards])
    finished = _manifest(recipe, need, [done[shard.sha256] for _, shard in need.shards])
    manifest.write_manifest(folder, finished)
    return finished


def open_references(recipe: Recipe) -> References:
    """The cache of a recipe, in the form that batches read. Raises `NotFound` if it is missing,
    `VersionConflict` if stale."""
    folder = recipe.folder(SECTION)
    finished = _check_manifest(manifest.read_manifest(folder), list_needed(recipe).key, folder)
    parts = {shard.path.removesuffix(".arrow"): shard for shard in finished.shards}
    return lambda shard: _read_part(folder, parts[shard.sha256])


def here(recipe: Recipe, shards: Sequence[tuple[str, Shard]]) -> Iterable[Shard]:
    """Scores shards one after another in this process."""
    return (work(recipe, folder, shard) for folder, shard in shards)


def work(recipe: Recipe, folder: str, shard: Shard) -> Shard:
    """Scores a token shard; writes its part of the cache and the marker. A retry writes the same bytes."""
    to = recipe.folder(SECTION)
    result = score(_model(recipe), folder, shard, recipe)
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, _SCHEMA) as writer:
        writer.write_table(pa.table({"logprob": result}, schema=_SCHEMA))
    content, path = sink.getvalue(), f"{shard.sha256}.arrow"
    storage.write_bytes(storage.join(to, path), content)
    digest = hashlib.sha256(content).hexdigest()
    part = Shard(path, shard.rows, len(content), shard.text_bytes, digest, shard.tokens, shard.group)
    _files(to).write_unit(shard.sha256, asdict(part))
    return part


@torch.inference_mode()
def score(model: llama.LlamaForCausalLM, folder: str, shard: Shard, recipe: Recipe) -> np.ndarray:
    """Log-probabilities of the answers in each document of a shard of pairs, float32 in nats."""
    _, train = recipe.training()
    width, device = train.sequence_tokens, model.lm_head.weight.device
    unit = PackedUnit(PackingUnit(((folder, shard),)), Layout("best_fit", width, 0, "pair"))
    result = np.full(shard.rows, np.nan, np.float32)
    rows, at_once = unit.packing.fills.rows, max(1, MICRO_TOKENS // width)
    for first in range(0, rows, at_once):
        pieces = [unit.packing.pieces(row).documents for row in range(first, min(first + at_once, rows))]
        most = max(map(len, pieces))
        batch = blank(len(pieces), width, 0, apart=True, references=most)
        for at in range(len(pieces)):
            unit.fill(first + at, True, batch, at)
        with torch.autocast(device.type, torch.bfloat16, enabled=train.precision == "bf16"):
            logs, _ = preference_loss.of_pieces(model, llama.tensors(batch, device), most)
        for of_row, values in zip(pieces, logs.cpu().numpy(), strict=True):
            result[of_row] = values[: len(of_row)]
    return result


_held: dict[str, Any] = {}  # cached in this process: the model, by its cache folder and hash


def _model(recipe: Recipe) -> llama.LlamaForCausalLM:
    """The reference: the initial model of the recipe's runs. Loaded once per process."""
    model, train = recipe.training()
    vocabulary = _vocabulary(recipe)
    name = initial_model.identity(model, vocabulary, recipe.train_seed)
    folder = recipe.folder(SECTION)
    planned = CacheKey(**_files(folder).read_begun())
    _check_key(planned, replace(planned, model=name), folder)
    if name not in _held:
        _held.clear()
        config = for_recipe(model, vocabulary.vocab_size, train.sequence_tokens)
        result = initial_model.build_initial_model(
            model, config, vocabulary, recipe.train_seed, recipe.resources.train.attention
        )
        _held[name] = result.eval().to("cuda" if recipe.resources.train.gpu else "cpu")
    return _held[name]


def _vocabulary(recipe: Recipe) -> Vocabulary:
    return corpora.shared_vocabulary(corpora.read_sections(recipe.token_folders()))


def _files(folder: str) -> ResumableFolder:
    """The resumable folder; a unit is a token shard, by its SHA-256."""
    return manifest.section_files(folder, unit="shards/{}.json")


def _manifest(recipe: Recipe, need: NeededScores, parts: list[Shard]) -> Manifest:
    rows = sum(part.rows for part in parts)
    inputs = [{"input": folder, "name": shard.path, "bytes": shard.bytes} for folder, shard in need.shards]
    key, counts = asdict(need.key), {"in": rows, "kept": rows}
    return Manifest(SECTION, recipe.name, recipe.version, fingerprint(key), key, inputs, counts, parts, key)


def _check_manifest(finished: Manifest, key: CacheKey, folder: str) -> Manifest:
    made = finished.provenance
    _check_key(CacheKey(made["model"], made["data"], made.get("precision", "")), key, folder)
    return finished


def _check_key(then: CacheKey, now: CacheKey, folder: str) -> None:
    """Raises `VersionConflict` that names what changed."""
    _files(folder).check_unchanged(
        asdict(then),
        asdict(now),
        "the reference's log-probabilities are out of date, because these changed",
        remedy=f"restore what changed, or give the recipe another `version`; or {_AGAIN}",
    )


def _read_part(folder: str, part: Shard) -> np.ndarray:
    """The values of a token shard's documents. Raises `StorageError` if the file has changed."""
    uri = storage.join(folder, part.path)
    content = storage.read_bytes(uri)
    if hashlib.sha256(content).hexdigest() != part.sha256:
        raise StorageError(
            "a part of the reference cache has changed since it was written", where=uri, remedy=_AGAIN
        )
    return pa.ipc.open_file(content).read_all()["logprob"].to_numpy()
