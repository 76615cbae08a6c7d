"""Opens the token shards of a run, and checks that they have not changed.

A run reads the token sections that `train.corpora` names, or its recipe's own. All share one tokenizer. What
it was given stands in the run's folder (train/data/data_log.py): later starts must find every shard of it
unchanged, and shards that are not in it yet (a corpus appended to `train.corpora`) join at the batch where
the run stands.

Every rank opens the corpora itself and computes the same generations; rank 0 writes. Sizes are always
checked, and SHA-256 if `resources.train.verify_shards` is set: each rank hashes its part, at about 1 GB/s per
core. Held-out shards of the run's validation are checked too: bits per byte are comparable on the same
documents only.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from ctllm_ray.base import storage
from ctllm_ray.base.errors import InputError, RecipeError, StorageError, VersionConflict
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.shards import manifest
from ctllm_ray.shards.manifest import Manifest, Shard
from ctllm_ray.shards.tokens import HELD_OUT
from ctllm_ray.tokenizer import tokenizer
from ctllm_ray.train.data.data_log import (
    DATA,
    RESTORE,
    Branch,
    DataGeneration,
    Origin,
    fingerprint,
    join_generations,
    read_data,
    write_data,
)

_AGAIN = (
    "restore it; or delete the section's folder and run `ctllm prepare` again: the same recipe "
    "gives the same shards"
)


@dataclass(frozen=True)
class Vocabulary:
    """The common tokenizer of a run's shards. `folder` holds its files."""

    sha256: str
    vocab_size: int
    bos: int
    eos: int
    pad: int
    folder: str


@dataclass(frozen=True)
class Corpora:
    """The data of a run. `sections` are the manifests by folder, in the recipe's order."""

    generations: tuple[DataGeneration, ...]
    branch: Branch
    vocabulary: Vocabulary
    sections: dict[str, Manifest]

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hexadecimal) over all shards and the batches from which they count: `RunState.data`."""
        return fingerprint(self.generations, self.branch)

    def groups(self) -> list[str]:
        """The groups that have training shards, sorted."""
        return sorted({s.group for g in self.generations for c in g.corpora for s in c.shards})

    def held_out(self) -> dict[str, list[str]]:
        """URIs of held-out shards by group, in order."""
        return held_out(self.sections)


def open_corpora(
    recipe: Recipe,
    *,
    batch: int = 0,
    data: str = "",
    origin: Origin | None = None,
    rank: int = 0,
    world: int = 1,
) -> Corpora:
    """The verified corpora of a run at `batch`. `data` is the fingerprint in the state it resumes from.

    `origin` is what train/data/branches.py gives for a run that begins from another's checkpoint. Raises
    `NotFound` for a section that is not finished, `InputError` for a shard that is missing or changed,
    `VersionConflict` for corpora that were removed, reordered or tokenised otherwise, and where the state was
    trained on others.
    """
    assert recipe.train is not None
    folder = recipe.folder("train")
    sections = read_sections(recipe.token_folders())
    validated = validation_sections(recipe, sections)
    vocabulary = shared_vocabulary(sections | validated)
    if rank == 0:
        _check_tokenizer(vocabulary)
    start = _recorded_origin(folder, batch, origin)
    generations = join_generations(list(start.generations), sections, max(batch, start.branch.batch))
    corpora = Corpora(tuple(generations), start.branch, vocabulary, sections)
    _check_data(corpora, data, folder)
    shards = [(c.folder, s) for g in generations for c in g.corpora for s in c.shards]
    verify([*shards, *held_out_shards(validated)], recipe.resources.train.verify_shards, rank, world)
    path = storage.join(folder, DATA)
    if rank == 0 and (len(generations) != len(start.generations) or not storage.exists(path)):
        write_data(folder, replace(start, generations=tuple(generations)))
    return corpora


def look(recipe: Recipe) -> Corpora:
    """The corpora as the run has them or would start with. Nothing is hashed, joined or written."""
    assert recipe.train is not None
    sections = read_sections(recipe.token_folders())
    folder = recipe.folder("train")
    start = read_data(folder) if storage.exists(storage.join(folder, DATA)) else Origin(Branch())
    generations = join_generations(list(start.generations), sections, start.branch.batch)[
        : len(start.generations) or 1
    ]
    return Corpora(tuple(generations), start.branch, shared_vocabulary(sections), sections)


def read_sections(folders: Iterable[str]) -> dict[str, Manifest]:
    """The manifests of finished token sections by absolute folder."""
    results: dict[str, Manifest] = {}
    for folder in map(storage.absolute, folders):
        if folder in results:
            remedy = "list it once; train.mixture sets the weight of a group"
            raise RecipeError("a folder of token shards is listed twice", where=folder, remedy=remedy)
        section = manifest.read_manifest(folder)
        if section.section != "tokens":
            remedy = "give folders of token sections: <root>/<name>/<version>/tokens"
            raise InputError(
                f"the folder holds a section {section.section!r}, not tokens", where=folder, remedy=remedy
            )
        results[folder] = section
    return results


def validation_sections(recipe: Recipe, own: dict[str, Manifest]) -> dict[str, Manifest]:
    """The sections whose held-out documents validate a run:
    its own, or those it names; empty without validation.

    Raises `InputError` if they have no held-out documents.
    """
    assert recipe.train is not None
    if recipe.train.validation is None:
        return {}
    sections = read_sections(map(recipe.locate, recipe.train.validation.corpora)) or own
    if not any(shard.rows for _, shard in held_out_shards(sections)):
        remedy = "raise tokens.held_out_share, set train.validation.corpora, or remove train.validation"
        raise InputError(
            "there are no held-out documents for validation", where=", ".join(sections), remedy=remedy
        )
    return sections


def shared_vocabulary(sections: dict[str, Manifest]) -> Vocabulary:
    """The tokenizer of all sections. Raises `VersionConflict` if two differ."""
    results = {folder: _vocabulary(folder, section) for folder, section in sections.items()}
    first = next(iter(results.values()))
    for folder, vocabulary in results.items():
        if vocabulary.sha256 != first.sha256:
            raise VersionConflict(
                f"the sections have different tokenizers: {vocabulary.sha256[:9]}, but "
                    f"{first.sha256[:9]} in {first.folder}",
                where=folder, remedy="tokenise both with one tokenizer: `tokenizer: {path: ...}` in the recipe",
            )  # fmt: skip
    return first


def held_out(sections: dict[str, Manifest]) -> dict[str, list[str]]:
    """URIs of held-out shards of token sections by group, in order."""
    results: dict[str, list[str]] = {}
    for folder, shard in held_out_shards(sections):
        results.setdefault(shard.group, []).append(storage.join(folder, shard.path))
    return dict(sorted(results.items()))


def held_out_shards(sections: dict[str, Manifest]) -> list[tuple[str, Shard]]:
    """(folder, shard) of all held-out shards."""
    return [(folder, shard) for folder, section in sections.items() for shard in section.of_kind(HELD_OUT)]


def _check_tokenizer(vocabulary: Vocabulary) -> None:
    """Raises `InputError` if the tokenizer next to the shards is another one:
    ids would have another meaning."""
    if not storage.list_names(vocabulary.folder):
        return  # training reads ids only; an export needs it and reports it
    result = tokenizer.load_tokenizer(vocabulary.folder)
    if (result.sha256, result.vocab_size) != (vocabulary.sha256, vocabulary.vocab_size):
        raise InputError(
            "the tokenizer next to the token shards is not the one that made them: "
            f"{result.sha256[:9]} with {result.vocab_size} pieces, not "
            f"{vocabulary.sha256[:9]} with {vocabulary.vocab_size}",
            where=vocabulary.folder,
            remedy="restore it, or delete the tokens section's folder and run `ctllm prepare` again",
        )


def verify(shards: Sequence[tuple[str, Shard]], hashed: bool, rank: int, world: int) -> None:
    """Raises `InputError` for the first shard of this rank's part whose size or SHA-256 differs."""
    with ThreadPoolExecutor(min(16, 2 * (os.cpu_count() or 1))) as pool:
        for _ in pool.map(lambda pair: _verify(pair[0], pair[1], hashed), shards[rank::world]):
            pass


def _verify(folder: str, shard: Shard, hashed: bool) -> None:
    uri = storage.join(folder, shard.path)
    if not storage.exists(uri):
        raise InputError("a shard of this run is missing", where=uri, remedy=_AGAIN)
    size, digest = storage.size_and_sha256(uri) if hashed else (_size(uri), shard.sha256)
    if size != shard.bytes or digest != shard.sha256:
        what = f"{size} bytes, not {shard.bytes}" if size != shard.bytes else "its SHA-256 differs"
        raise InputError(f"a shard changed since it was written: {what}", where=uri, remedy=_AGAIN)


def _size(uri: str) -> int:
    with storage.reading(uri) as stream:
        return stream.seek(0, os.SEEK_END)


def _vocabulary(folder: str, section: Manifest) -> Vocabulary:
    facts = section.provenance
    try:
        size, bos, eos, pad = (int(facts[name]) for name in ("vocab_size", "bos", "eos", "pad"))
        return Vocabulary(facts["tokenizer"], size, bos, eos, pad, storage.join(folder, "tokenizer"))
    except (KeyError, ValueError) as error:
        remedy = "delete the section's folder and run `ctllm prepare` again"
        raise StorageError(
            f"the manifest does not name the tokenizer: {error}", where=folder, remedy=remedy
        ) from None


def _recorded_origin(folder: str, batch: int, origin: Origin | None) -> Origin:
    """What DATA.json says; at a first start what the parent run had read, or nothing."""
    path = storage.join(folder, DATA)
    if storage.exists(path):
        recorded = read_data(folder)
        if origin is not None and recorded.branch != origin.branch:
            remedy = "give this branch another name: train.run=<name>"
            raise VersionConflict(
                "a run with another origin exists under this name", where=path, remedy=remedy
            )
        return recorded
    if origin is None and batch:
        raise StorageError(
            f"the run is at batch {batch}, but its {DATA} is missing", where=path, remedy=RESTORE
        )
    return origin or Origin(Branch())


def _check_data(corpora: Corpora, data: str, folder: str) -> None:
    """Raises unless the state was trained on these generations or on the first of them."""
    counts = range(len(corpora.generations) + 1)
    if data and data not in {
        replace(corpora, generations=corpora.generations[:n]).fingerprint for n in counts
    }:
        raise VersionConflict(
            "the checkpoint was trained on other shards than this run", where=storage.join(folder, DATA),
            remedy="restore the file that belongs to the checkpoint, or start a new run with "
                "another `train.run`",
        )  # fmt: skip
