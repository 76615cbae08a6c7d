"""The tokens section: kept clean shards into token shards, by group, with some documents held out for validation.

One split is one kept shard. Which documents are held out is a seeded hash of the id alone, so the same document is held
out of every version of the corpus that has it. Memory: one record batch of text (about 4 MB) and the ids of the open
token shards, which all together are no more than those of one clean shard.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from ctllm_ray.base import storage
from ctllm_ray.base.errors import InputError, RecipeError, StorageError
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.base.resolve import nearest
from ctllm_ray.base.storage import File
from ctllm_ray.base.training import Tokens
from ctllm_ray.corpus.clean import document_schema
from ctllm_ray.corpus.section import Work
from ctllm_ray.corpus.splits import Limits, Split
from ctllm_ray.corpus.tokenize import tokenize
from ctllm_ray.shards import manifest, reader
from ctllm_ray.shards.manifest import MANIFEST, Shard
from ctllm_ray.shards.tokens import HELD_OUT, TRAIN, TokenShardWriter, id_type
from ctllm_ray.tokenizer import tokenizer as tokenizers
from ctllm_ray.tokenizer.tokenizer import Tokenizer

PACKAGES = ("sentencepiece", "tokenizers")
UNLABELLED = "unlabelled"  # the group of documents whose label is null


def check(recipe: Recipe) -> None:
    """Raises `RecipeError` where token shards are asked for that the other parts of the recipe cannot give."""
    if not recipe.tokens:
        return
    if not recipe.tokenizer:
        raise RecipeError(
            "`tokens` without `tokenizer`", where="tokens", remedy="add `tokenizer: {vocab_size, sample_mb}` or a path"
        )
    documents = document_schema(recipe.stages)
    labels = ["source", *(field.name for field in documents.field("labels").type)]
    if recipe.tokens.group_by not in labels:
        reason = f"documents have no label {recipe.tokens.group_by!r}"
        raise RecipeError(reason, where="tokens.group_by", remedy=nearest(recipe.tokens.group_by, labels))
    scores = [field.name for field in documents.field("scores").type]
    for name in recipe.tokens.scores:
        if name not in scores:
            raise RecipeError(f"documents have no score {name!r}", where="tokens.scores", remedy=nearest(name, scores))


def list_splits(recipe: Recipe) -> list[Split]:
    """The kept shards of the finished clean section, one split each. Raises `InputError` where nothing was kept."""
    folder = recipe.folder("clean")
    kept = manifest.read(folder).of_kind("kept")
    if not kept:
        raise InputError(
            "the clean section kept no document", where=folder, remedy="look at its funnel: `ctllm prepare` prints it"
        )
    tokenizer = {"tokenizer": _loaded(recipe).sha256}
    return [
        Split(index, "clean", "", tokenizer, _file(folder, shard), 0, None, Limits(0, 0), section="tokens")
        for index, shard in enumerate(kept)
    ]


def _file(folder: str, shard: Shard) -> File:
    return File(storage.join(folder, shard.path), shard.path, shard.bytes, shard.sha256)


def sources(recipe: Recipe) -> dict[str, str]:
    """The hash of the clean shards' hashes, and the tokenizer: its hash, its size, and the ids that frame documents."""
    tokenizer = _loaded(recipe)
    return {
        "clean_shards": manifest.read(recipe.folder("clean")).digest("kept"),
        "tokenizer": tokenizer.sha256,
        "vocab_size": str(tokenizer.vocab_size),
        "bos": str(tokenizer.bos_id),
        "eos": str(tokenizer.eos_id),
        "pad": str(tokenizer.pad_id),
    }


def _loaded(recipe: Recipe) -> Tokenizer:
    return tokenizers.load(recipe.folder("tokenizer"))


def warm(recipe: Recipe) -> None:
    """Nothing is compiled."""


def work(recipe: Recipe, folder: str, split: Split) -> Work:
    """Reads a clean shard and writes the token shards of its groups. Raises `StorageError` where it changed."""
    part = recipe.tokens
    assert part is not None, "a tokens section without a tokens part"
    tokenizer = _same_tokenizer(recipe.folder("tokenizer"), split.options["tokenizer"])
    kind = id_type(tokenizer.vocab_size)
    columns = ["id", "text", "source" if part.group_by == "source" else "labels", "scores"]
    writers: dict[tuple[str, str], TokenShardWriter] = {}
    text_bytes = 0
    with ExitStack() as stack:
        for documents in reader.same_tables(split.file.uri, split.file.size, split.file.version, columns):
            table = tokenize(documents, tokenizer, part.scores)
            text_bytes += pc.sum(table["text_bytes"]).as_py() or 0
            for place, rows in _places(documents, part, recipe.seed):
                if place not in writers:
                    writer = TokenShardWriter(folder, *place, split.index, kind, part.scores)
                    writers[place] = stack.enter_context(writer)
                writers[place].write(table.filter(rows))
    shards = sorted((shard for writer in writers.values() for shard in writer.shards), key=lambda shard: shard.path)
    return Work(_counts(shards), text_bytes, shards)


@lru_cache(maxsize=1)
def _same_tokenizer(folder: str, sha256: str) -> Tokenizer:
    """The tokenizer of a folder, loaded once in each worker. Raises `StorageError` where it is not the one meant."""
    loaded = tokenizers.load(folder)
    if loaded.sha256 != sha256:
        raise StorageError(
            "the tokenizer changed while documents were encoded with it",
            where=folder,
            remedy="restore it, or delete the tokens section's folder and run the same command again",
        )
    return loaded


def _places(documents: pa.Table, part: Tokens, seed: int) -> Iterator[tuple[tuple[str, str], pa.Array]]:
    """((train or held_out, group), which rows go there) for each that has any, in order."""
    groups = _groups(documents, part.group_by)
    out = held_out(documents["id"].to_pylist(), part.held_out_share, seed)
    for group in sorted(pc.unique(groups).to_pylist()):
        inside = pc.equal(groups, group).to_numpy(zero_copy_only=False)
        for kind, rows in ((HELD_OUT, inside & out), (TRAIN, inside & ~out)):
            if rows.any():
                yield (kind, group), pa.array(rows)


def _groups(documents: pa.Table, group_by: str) -> pa.Array:
    if group_by == "source":
        return documents["source"].combine_chunks()
    labels = documents["labels"].combine_chunks().field(group_by)
    return pc.if_else(pc.equal(pc.fill_null(labels, ""), ""), UNLABELLED, labels)


def held_out(ids: list[str], share: float, seed: int) -> np.ndarray:
    """A boolean array, True for documents set aside: the same for the same id and seed, whatever else there is.

    The hash is of a word and the id, so that this draw is independent of other draws by the id.
    """
    hashes = [xxhash.xxh3_64_intdigest(b"held out " + name.encode(), seed) for name in ids]
    return np.array(hashes, np.uint64).astype(np.float64) < share * 2.0**64


def _counts(shards: list[Shard]) -> dict[str, int]:
    counts: Counter[str] = Counter({"tokens": 0, "held_out": 0, "held_out_tokens": 0})
    for shard in shards:
        counts.update({"in": shard.rows, "kept": shard.rows})
        if shard.path.startswith(f"{HELD_OUT}/"):
            named = {"held_out_tokens": shard.tokens, f"held_out_tokens:{shard.group}": shard.tokens}
            counts.update(named | {"held_out": shard.rows})
        else:
            counts.update({"tokens": shard.tokens, f"tokens:{shard.group}": shard.tokens})
    return dict(counts)


def finish(recipe: Recipe, folder: str, counts: dict[str, int]) -> None:
    """Copies the tokenizer beside the shards: whoever has them needs nothing else."""
    start, target = recipe.folder("tokenizer"), storage.join(folder, "tokenizer")
    for name in storage.list_names(start):
        if name != MANIFEST and not name.startswith(storage.TEMPORARY):
            storage.write_bytes(storage.join(target, name), storage.read_bytes(storage.join(start, name)))
