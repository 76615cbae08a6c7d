"""Near duplicates, phase 1: computes band keys of documents, and stores what a comparison needs.

One unit is one shard. To the shuffle go `bands` keys a document, 16 bytes each, cut by ranges of the key: a
key is of one band (text/dedup/bands.py), so bands need no partitions of their own, and how many there are
changes nothing. To the rows go what decides between copies, the signature (4 bytes a permutation) and, where
texts are compared, the folded text. That is the cost in disk: about 1.1 kB a document and its folded text,
until the pass is finished.

A document with fewer than `min_chars` characters after folding has no keys. It is never compared, passes, and
counts as `short` in the manifest of this phase.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctllm_ray.base.errors import RecipeError
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.corpus.dedup import ranking
from ctllm_ray.corpus.dedup.snapshot_index import KEYS, TEXTS, CorpusIndex, Snapshot, open_snapshot
from ctllm_ray.corpus.engine.phase import Phase, total_rows
from ctllm_ray.corpus.engine.section import SplitWork
from ctllm_ray.corpus.engine.splits import Split
from ctllm_ray.shards import manifest
from ctllm_ray.shards.manifest import Shard
from ctllm_ray.shards.schema import utf8_bytes
from ctllm_ray.shards.tables import RowFile, TableWriter, key_ranges, write_partitions
from ctllm_ray.text.dedup.bands import band_keys
from ctllm_ray.text.dedup.fold import fold
from ctllm_ray.text.dedup.minhash import signatures
from ctllm_ray.text.dedup.signs import fold_with_signs, strip_signs
from ctllm_ray.text.kernels.codepoints import lengths

SCHEMA = pa.schema([("key", pa.uint64()), ("number", pa.int64())])  # per key, the best document first


@dataclass(frozen=True)
class SignatureOptions:
    """How to read documents: what two of them must share to be compared."""

    of: Literal["raw", "folded"]
    shingle_chars: int
    permutations: int
    bands: int
    rows: int
    min_chars: int


@dataclass(frozen=True)
class SignaturePhase(Phase):
    """Writes keys in partitions, and rows by number."""

    options: SignatureOptions
    prefer: tuple[str, ...]
    with_text: bool
    with_signs: bool  # the texts for comparison hold the signs that carry meaning
    partition_rows: int
    against: tuple[str, ...] = ()

    PACKAGES: ClassVar[tuple[str, ...]] = ("numba", "opencc")
    READS_WHAT_IS_SAID: ClassVar[bool] = True

    def check(self, recipe: Recipe) -> None:
        """Raises `RecipeError` if the signature is too short for the bands, or a score does not exist.

        And `InputError` for an older index that does not fit, where there is work left that needs it.
        """
        needed = self.options.bands * self.options.rows
        if needed > self.options.permutations:
            reason = f"{self.options.bands} bands of {self.options.rows} rows need {needed} permutations"
            raise RecipeError(
                reason,
                where=f"passes.{self.use}.permutations",
                remedy=f"set permutations to at least {needed}",
            )
        ranking.check(recipe, self.use, self.before(recipe), self.prefer)
        if not manifest.is_finished(recipe.folder(self.use)):
            self.older(recipe)

    def warm(self, recipe: Recipe) -> None:
        """Compiles the kernels."""
        self._keys(signatures(self._prepare_texts(pa.array(["天地玄黄"])), **self._shingles).values)
        self._prepare_both(pa.array(["天"]))

    def sources(self, recipe: Recipe) -> dict[str, str]:
        """The documents that the pass reads, and the indexes of older documents."""
        older = {f"against:{one.name}": one.digest for one in self.older(recipe)}
        return super().sources(recipe) | older

    def older(self, recipe: Recipe) -> list[Snapshot]:
        """The indexes that the recipe names. Raises `InputError` if one does not fit or does not exist."""
        [part] = [part for part in recipe.passes if part.use == self.use]
        return [open_snapshot(recipe.locate(path), part.model_extra or {}) for path in self.against]

    def index(self, recipe: Recipe) -> CorpusIndex:
        """All documents to compare: indexed ones, then those of this pass."""
        return CorpusIndex([*self.older(recipe), Snapshot(recipe.folder(self.use))])

    def parts(self, recipe: Recipe) -> int:
        """The number of partitions that keeps each within `partition_rows`, up to chance."""
        return math.ceil(total_rows(self.kept_shards(recipe)) * self.options.bands / self.partition_rows)

    def schema(self) -> pa.Schema:
        """The columns for comparing documents."""
        signature = pa.field("signature", pa.binary(4 * self.options.permutations))
        text = [pa.field("text_bytes", pa.int32()), pa.field("text", pa.string())] if self.with_text else []
        return pa.schema([signature, *text])

    def work(self, recipe: Recipe, folder: str, split: Split) -> SplitWork:
        """Reads a shard; writes its keys, and two files: for ranking and for comparison."""
        keys, numbers = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
        text_bytes, number = 0, self.first_number(recipe, split)
        first, file = number, f"{split.index:05d}.arrow"
        deciding = TableWriter(folder, f"{ranking.ROWS}/{file}", pa.schema(ranking.columns(self.prefer)))
        decides = [deciding.schema.empty_table()]
        compared = TableWriter(folder, f"{TEXTS}/{file}", self.schema())
        with deciding, compared:
            for table in self.readable(recipe, split):
                text_bytes += utf8_bytes(table["text"])
                texts, compared_texts = self._prepare_both(table["text"].combine_chunks())
                values = signatures(texts, **self._shingles).values
                long = np.flatnonzero(lengths(texts) >= self.options.min_chars)
                keys.append(self._keys(values[long]).ravel())
                numbers.append(np.repeat(number + long, self.options.bands))
                decides.append(
                    pa.table(ranking.compute_ranking_columns(table, self.prefer), schema=deciding.schema)
                )
                deciding.write(decides[-1])
                compared.write(self._verification_rows(compared_texts, values))
                number += table.num_rows
        table = pa.table([np.concatenate(keys), np.concatenate(numbers)], schema=SCHEMA)
        ranks = ranking.ranks_of(pa.concat_tables(decides), np.zeros(number - first, np.int64))
        best_first = np.lexsort((ranks[table["number"].to_numpy() - first], table["key"].to_numpy()))
        shard = self._write_keys(folder, split.index, table.take(pa.array(best_first)), self.parts(recipe))
        counts = {
            "in": number - first,
            "kept": number - first,
            "short": number - first - len(table) // self.options.bands,
        }
        return SplitWork(counts, text_bytes, [shard, deciding.shard, compared.shard])

    def _prepare_both(self, texts: pa.Array) -> tuple[pa.Array, pa.Array]:
        """The texts for signatures, and those for comparison."""
        if self.with_signs:
            signed = fold_with_signs(texts)
            return strip_signs(signed), signed
        prepared = self._prepare_texts(texts)
        return prepared, prepared

    def _prepare_texts(self, texts: pa.Array) -> pa.Array:
        return texts if self.options.of == "raw" else fold(texts)

    @property
    def _shingles(self) -> dict[str, int]:
        return {"shingle_chars": self.options.shingle_chars, "permutations": self.options.permutations}

    def _keys(self, values: np.ndarray) -> np.ndarray:
        return band_keys(values, bands=self.options.bands, rows=self.options.rows)

    def _verification_rows(self, texts: pa.Array, values: np.ndarray) -> pa.Table:
        kind = pa.binary(values.itemsize * values.shape[1])
        signature = pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)])
        text = [pc.binary_length(texts), texts] if self.with_text else []
        return pa.table([signature, *text], schema=self.schema())

    def _write_keys(self, folder: str, index: int, table: pa.Table, parts: int) -> Shard:
        stops = [*np.searchsorted(table["key"].to_numpy(), key_ranges(parts)).tolist(), len(table)]
        return write_partitions(folder, f"{KEYS}/{index:05d}.arrow", table, stops)


def signatures_of(texts: RowFile, numbers: Sequence[int] | np.ndarray) -> np.ndarray:
    """uint32[documents, permutations]: the signatures of documents (numbers, ascending)."""
    column = texts.take(np.asarray(numbers), ["signature"])["signature"].combine_chunks()
    return np.frombuffer(column.buffers()[1], np.uint32).reshape(len(column), -1)
