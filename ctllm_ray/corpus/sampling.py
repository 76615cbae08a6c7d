"""Draws a seeded sample of clean documents of a given size: those with the lowest id hashes.

Which documents are drawn depends on the seed, the ids and the size only, never on how many workers wrote the
shards or in which order they are read here. Nothing but the sample is held in memory: a document that hashes
lower pushes out the highest. Of a large corpus only as many shards are read, in a seeded order, as hold
PLENTY times what is wanted.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import xxhash

from ctllm_ray.base import storage
from ctllm_ray.shards import reader
from ctllm_ray.shards.manifest import Shard

#: Documents that hash into this last part are never drawn: tokenizers trained on a sample are measured on
#: them.
UNSEEN_SHARE = 0.05
PLENTY = 4  # the shards to read hold this many times the wanted bytes
LEAST_SHARDS = 8  # shards to read at least, if there are so many: one shard is often one site or one book
#: Maximum share of one document in the sample, or this many times its fair share: a few books must not be a
#: whole source.
DOCUMENT_SHARE = 0.01
FAIR_PARTS = 4


@dataclass(frozen=True)
class SampledDocument:
    """A drawn document; its text may be cut at the end."""

    id: str
    genre: str  # empty if the recipe has no genres
    text: str
    is_cut: bool


@dataclass(frozen=True)
class CorpusSample:
    """The sample of one source."""

    documents: list[SampledDocument]  # in order of their hashes
    unseen: list[SampledDocument]
    bytes: int  # UTF-8 bytes of the documents
    cut_documents: int  # documents of which only a part was used
    shards_read: int


def draw(folder: str, shards: Sequence[Shard], seed: int, size_bytes: int, unseen_bytes: int) -> CorpusSample:
    """A sample of at most `size_bytes`, and other documents of at most
    `unseen_bytes` that no sample contains."""
    wanted = max(PLENTY * size_bytes, PLENTY * unseen_bytes / UNSEEN_SHARE)
    chosen = _choose_shards(shards, seed, wanted)
    most_share = min(1.0, max(DOCUMENT_SHARE, FAIR_PARTS / max(1, sum(shard.rows for shard in chosen))))
    taken, unseen = (_Lowest(size, int(size * most_share)) for size in (size_bytes, unseen_bytes))
    for shard in chosen:
        for table in reader.shard_tables(storage.join(folder, shard.path), ["id", "text", "labels"]):
            for unit, document in _candidates(table, seed, taken, unseen):
                if unit < 1 - UNSEEN_SHARE:
                    taken.add(unit, document)
                else:
                    unseen.add(unit, document)
    documents = taken.documents()
    size = sum(len(document.text.encode()) for document in documents)
    return CorpusSample(
        documents, unseen.documents(), size, sum(document.is_cut for document in documents), len(chosen)
    )


def unit(seed: int, name: str) -> float:
    """A number in [0, 1) that depends on a name and a seed."""
    return xxhash.xxh3_64_intdigest(f"sample:{seed}:{name}".encode()) / 2**64


def _choose_shards(shards: Sequence[Shard], seed: int, wanted_bytes: float) -> list[Shard]:
    chosen: list[Shard] = []
    for shard in sorted(shards, key=lambda shard: unit(seed, shard.path)):
        if len(chosen) >= LEAST_SHARDS and sum(s.text_bytes for s in chosen) >= wanted_bytes:
            break
        chosen.append(shard)
    return chosen


def _candidates(
    table: pa.Table, seed: int, taken: _Lowest, unseen: _Lowest
) -> Iterator[tuple[float, SampledDocument]]:
    """The documents of a table that may be drawn. Only their texts become Python strings."""
    labels = table["labels"].combine_chunks()
    names = [field.name for field in labels.type]
    genres = labels.field("genre").to_pylist() if "genre" in names else [None] * table.num_rows
    for i, name in enumerate(table["id"].to_pylist()):
        at = unit(seed, name)
        if at < (unseen if at >= 1 - UNSEEN_SHARE else taken).bound:
            yield at, SampledDocument(name, genres[i] or "", table["text"][i].as_py(), False)


class _Lowest:
    """The documents with the lowest hashes up to a total size; the last one is cut to fit."""

    def __init__(self, size_bytes: int, most_bytes: int) -> None:
        self._size_bytes, self._most_bytes = size_bytes, most_bytes  # of all, of one
        self._heap: list[tuple[float, str, SampledDocument]] = []
        self._bytes = 0
        self._next: SampledDocument | None = None  # the lowest of those that no longer fit
        self.bound = 1.0 if size_bytes else 0.0  # its hash: higher hashes are not needed

    def add(self, at: float, document: SampledDocument) -> None:
        """Adds a document with a hash below the limit, and drops those that no longer fit."""
        cut = _truncate(document, self._most_bytes)
        heapq.heappush(self._heap, (-at, document.id, cut))
        self._bytes += len(cut.text.encode())
        while self._bytes > self._size_bytes:
            highest, _, self._next = heapq.heappop(self._heap)
            self._bytes -= len(self._next.text.encode())
            self.bound = -highest

    def documents(self) -> list[SampledDocument]:
        """The documents in order of their hashes."""
        results = [document for _, _, document in sorted(self._heap, key=lambda entry: (-entry[0], entry[1]))]
        room = self._size_bytes - self._bytes
        return [*results, _truncate(self._next, room)] if self._next and room else results


def _truncate(document: SampledDocument, most_bytes: int) -> SampledDocument:
    """The document with at most so many bytes of text, cut between characters."""
    whole = document.text.encode()
    if len(whole) <= most_bytes:
        return document
    return replace(document, text=whole[:most_bytes].decode(errors="ignore"), is_cut=True)
