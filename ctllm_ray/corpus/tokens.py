"""The tokens section: encodes kept documents to token shards, by group, and holds some out for validation.

One split is one kept shard. Which documents are held out is a seeded hash of the id alone, so the same
document is held out of every version of the corpus that has it. Inputs that are conversations or preference
pairs, as their sources say, are rendered by the chat template (corpus/encoding/encode_conversations.py); a
pair stays together, on one side of the hold-out. Memory: one record batch of text (about 4 MB) and the ids of
the open token shards, which all together are no more than those of one clean shard.
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
from ctllm_ray.base.recipe_training import TokensPart
from ctllm_ray.base.resolve import nearest
from ctllm_ray.corpus import documents
from ctllm_ray.corpus.encoding.encode_conversations import EncodedTable, encode_table
from ctllm_ray.corpus.encoding.encode_documents import tokenize
from ctllm_ray.corpus.engine import splits
from ctllm_ray.corpus.engine.section import SplitWork
from ctllm_ray.corpus.engine.splits import Split
from ctllm_ray.corpus.readers import input_forms
from ctllm_ray.shards import manifest, reader
from ctllm_ray.shards.manifest import MANIFEST, Shard
from ctllm_ray.shards.schema import utf8_bytes
from ctllm_ray.shards.tokens import HELD_OUT, TRAIN, Form, TokenShardWriter, id_type
from ctllm_ray.tokenizer.tokenizer import Tokenizer, load_tokenizer

PACKAGES = ("sentencepiece", "tokenizers")
UNIT = "documents"
UNLABELLED = "unlabelled"  # group of documents with a null label


def check(recipe: Recipe) -> None:
    """Raises `RecipeError` if the recipe asks for token shards that its other parts cannot give."""
    if not recipe.tokens:
        return
    if not recipe.tokenizer:
        raise RecipeError(
            "the recipe has `tokens` but no `tokenizer`",
            where="tokens",
            remedy="add `tokenizer: {vocab_size: ..., sample_mb: ...}` or `tokenizer: {path: ...}`",
        )
    columns = documents.schema_of(recipe, recipe.corpus)
    labels = ["source", *(field.name for field in columns.field("labels").type)]
    if recipe.tokens.group_by not in labels:
        reason = f"the documents have no label {recipe.tokens.group_by!r}"
        raise RecipeError(reason, where="tokens.group_by", remedy=nearest(recipe.tokens.group_by, labels))
    scores = [field.name for field in columns.field("scores").type]
    for name in recipe.tokens.scores:
        if name not in scores:
            raise RecipeError(
                f"the documents have no score {name!r}", where="tokens.scores", remedy=nearest(name, scores)
            )
    _check_forms(recipe, recipe.tokens)


def _check_forms(recipe: Recipe, part: TokensPart) -> None:
    """Raises `RecipeError` if conversations lack their settings, share a group
    with texts, or exceed a row."""
    held = input_forms.inputs(recipe)
    talking = sorted(name for name, form in held.items() if form != "texts")
    if talking and part.conversations is None:
        remedy = "add `tokens.conversations: {max_tokens: ..., too_long: cut or reject}`"
        raise RecipeError(
            f"the input {talking[0]!r} holds {held[talking[0]]}, but tokens.conversations is not set",
            where="tokens",
            remedy=remedy,
        )
    if talking and recipe.tokenizer and recipe.tokenizer.vocab_size:
        remedy = "use the tokenizer of the model to align: `tokenizer: {path: ...}`"
        raise RecipeError(
            "a tokenizer is trained on texts, not on conversations", where="tokenizer", remedy=remedy
        )
    if part.group_by != "source" and len(set(held.values())) > 1:
        remedy = "set tokens.group_by=source, so that a shard holds one form only"
        raise RecipeError(
            f"the inputs have several forms: {', '.join(sorted(set(held.values())))}",
            where="tokens",
            remedy=remedy,
        )
    longest = part.conversations.max_tokens if part.conversations else 0
    if recipe.train and longest > recipe.train.sequence_tokens:
        raise RecipeError(
            f"conversations may have {longest} tokens, but a row holds {recipe.train.sequence_tokens}",
            where="tokens.conversations.max_tokens",
            remedy=f"set it to at most {recipe.train.sequence_tokens}, or raise train.sequence_tokens",
        )


def list_splits(recipe: Recipe) -> list[Split]:
    """The kept shards of the corpus, one split each. Raises `InputError` if nothing was kept."""
    folder, corpus = recipe.folder(recipe.corpus), recipe.corpus
    kept = manifest.read_manifest(folder).of_kind("kept")
    if not kept:
        reason, remedy = (
            f"the section {corpus!r} kept no documents",
            "check its funnel, which `ctllm prepare` prints",
        )
        raise InputError(reason, where=folder, remedy=remedy)
    tokenizer = {"tokenizer": _load_tokenizer(recipe).sha256}
    return [
        splits.of_shard(i, "tokens", folder, shard, tokenizer, input=corpus) for i, shard in enumerate(kept)
    ]


def sources(recipe: Recipe) -> dict[str, str]:
    """The hash of the documents' shards; and of the tokenizer its hash, size, and framing ids."""
    tokenizer = _load_tokenizer(recipe)
    before, behind = tokenizer.document_ids
    ours = (before, behind) == (
        (tokenizer.bos_id,),
        (tokenizer.eos_id,),
    )  # as sections have it that do not say
    return {
        **documents.made_from(recipe, recipe.corpus),
        "tokenizer": tokenizer.sha256,
        "vocab_size": str(tokenizer.vocab_size),
        "bos": str(tokenizer.bos_id),
        "eos": str(tokenizer.eos_id),
        "pad": str(tokenizer.pad_id),
        **({} if ours else {"document_ids": f"{[*before]} {[*behind]}"}),
    }


def _load_tokenizer(recipe: Recipe) -> Tokenizer:
    return load_tokenizer(recipe.folder("tokenizer"))


def warm(recipe: Recipe) -> None:
    """Nothing to compile."""


def work(recipe: Recipe, folder: str, split: Split) -> SplitWork:
    """Reads a shard of documents; writes the token shards of its groups. Raises
    `StorageError` if it changed."""
    part = recipe.tokens
    assert part is not None, "a tokens section without a tokens part"
    tokenizer = _same_tokenizer(recipe.folder("tokenizer"), split.options["tokenizer"])
    kind = id_type(tokenizer.vocab_size)
    columns = ["id", "text", "source", *([] if part.group_by == "source" else ["labels"]), "scores"]
    held = input_forms.inputs(recipe)
    writers: dict[tuple[str, str], TokenShardWriter] = {}
    counts: Counter[str] = Counter({"in": 0, "kept": 0, "held_out": 0})
    text_bytes = 0
    with ExitStack() as stack:
        for table in reader.same_tables(split.file.uri, split.file.size, split.file.version, columns):
            form = held[table["source"][0].as_py()]
            made = _encode_table(table, form, tokenizer, part)
            text_bytes += utf8_bytes(table["text"])
            counts.update({"in": table.num_rows} | made.counts)
            for place, rows in _places(table, part, recipe.seed):
                if place not in writers:
                    writer = TokenShardWriter(folder, *place, split.index, kind, part.scores, form)
                    writers[place] = stack.enter_context(writer)
                chosen = rows[made.documents]
                writers[place].write(made.table.filter(pa.array(chosen)))
                counts["held_out"] += len(set(made.documents[chosen].tolist())) if place[0] == HELD_OUT else 0
    shards = sorted(
        (shard for writer in writers.values() for shard in writer.shards), key=lambda shard: shard.path
    )
    return SplitWork(dict(counts) | _counts(shards), text_bytes, shards)


def _encode_table(documents: pa.Table, form: Form, tokenizer: Tokenizer, part: TokensPart) -> EncodedTable:
    """Encodes a table of documents of one form."""
    if form == "texts":
        every = np.arange(documents.num_rows)
        return EncodedTable(tokenize(documents, tokenizer, part.scores), every, Counter({"kept": len(every)}))
    assert part.conversations is not None, "checked before the section began"
    return encode_table(documents, form, tokenizer, part.conversations, part.scores)


@lru_cache(maxsize=1)
def _same_tokenizer(folder: str, sha256: str) -> Tokenizer:
    """The tokenizer of a folder, loaded once per worker. Raises `StorageError`
    if it is not the expected one."""
    loaded = load_tokenizer(folder)
    if loaded.sha256 != sha256:
        raise StorageError(
            "the tokenizer changed during encoding",
            where=folder,
            remedy="restore it, or delete the tokens section's folder and run the same command again",
        )
    return loaded


def _places(documents: pa.Table, part: TokensPart, seed: int) -> Iterator[tuple[tuple[str, str], np.ndarray]]:
    """For each non-empty (train or held_out, group): which documents go there, in order."""
    groups = _groups(documents, part.group_by)
    out = held_out(documents["id"].to_pylist(), part.held_out_share, seed)
    for group in sorted(pc.unique(groups).to_pylist()):
        inside = pc.equal(groups, group).to_numpy(zero_copy_only=False)
        for kind, rows in ((HELD_OUT, inside & out), (TRAIN, inside & ~out)):
            if rows.any():
                yield (kind, group), rows


def _groups(documents: pa.Table, group_by: str) -> pa.Array:
    if group_by == "source":
        return documents["source"].combine_chunks()
    labels = documents["labels"].combine_chunks().field(group_by)
    return pc.if_else(pc.equal(pc.fill_null(labels, ""), ""), UNLABELLED, labels)


def held_out(ids: list[str], share: float, seed: int) -> np.ndarray:
    """A boolean array, True for held-out documents. It depends on id and seed only.

    The hash is of a word and the id, so that this draw is independent of other draws by the id.
    """
    hashes = [xxhash.xxh3_64_intdigest(b"held out " + name.encode(), seed) for name in ids]
    return np.array(hashes, np.uint64).astype(np.float64) < share * 2.0**64


def _counts(shards: list[Shard]) -> dict[str, int]:
    """Counts the tokens of the shards, for training and held out, in total and by group."""
    counts: Counter[str] = Counter({"tokens": 0, "held_out_tokens": 0})
    for shard in shards:
        if shard.path.startswith(f"{HELD_OUT}/"):
            counts.update({"held_out_tokens": shard.tokens, f"held_out_tokens:{shard.group}": shard.tokens})
        else:
            counts.update({"tokens": shard.tokens, f"tokens:{shard.group}": shard.tokens})
    return dict(counts)


def finish(recipe: Recipe, folder: str, finished: manifest.Manifest) -> None:
    """Copies the tokenizer next to the shards, so that they are complete by themselves."""
    start, target = recipe.folder("tokenizer"), storage.join(folder, "tokenizer")
    for name in storage.list_names(start):
        if name != MANIFEST and not name.startswith(storage.TEMPORARY):
            storage.write_bytes(storage.join(target, name), storage.read_bytes(storage.join(start, name)))
