"""The index of all items: built once, and memory-mapped by the workers that search.

It is one file: a row with a list for each array of `text/contamination.Index`, so that whoever opens it has
the arrays without a copy, and all workers of a machine share its pages. Making it takes some 50 bytes for
each character of the items, in one process; it holds about 33 bytes an n-gram.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctllm_ray.base.errors import InputError
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.corpus.decontamination.evaluation_sets import ITEMS, SCHEMA, EvaluationSetPhase
from ctllm_ray.corpus.engine.section import SplitWork
from ctllm_ray.corpus.engine.splits import Split
from ctllm_ray.shards.manifest import Manifest, Shard
from ctllm_ray.shards.schema import utf8_bytes
from ctllm_ray.shards.tables import TableWriter, read_partition
from ctllm_ray.text.contamination import NgramIndex, hits, index
from ctllm_ray.text.dedup.fold import fold
from ctllm_ray.text.kernels.codepoints import lengths

INDEX, NAMES = "index", "names"
_NUMBERS = {"ngram_chars": pa.int64(), "bits": pa.int64()}
_ARRAYS = {
    "hashes": pa.uint64(), "starts": pa.int64(), "items": pa.int32(), "grams": pa.int64(),
    "filter": pa.uint8(),
    "first": pa.int64(),
}  # fmt: skip
_STORED = pa.schema([*_NUMBERS.items(), *((name, pa.large_list(kind)) for name, kind in _ARRAYS.items())])
#: An item by number: its address, and its number of distinguishing n-grams (0: it cannot be found).
_NAMED = pa.schema([("set", pa.string()), ("item", pa.string()), ("ngrams", pa.int32())])


@dataclass(frozen=True)
class IndexItems(EvaluationSetPhase):
    """Builds the index of the items' n-grams, and the table of items by number."""

    ngram_chars: int
    max_items: int

    PACKAGES: ClassVar[tuple[str, ...]] = ("numba", "opencc")
    UNIT: ClassVar[str] = "items"

    def list_splits(self, recipe: Recipe) -> list[Split]:
        """One unit."""
        return self.list_parts(recipe, ITEMS, ITEMS, 1)

    def work(self, recipe: Recipe, folder: str, split: Split) -> SplitWork:
        """Reads all items. Raises `InputError` if no item of a set can be found."""
        made, place = self.read_manifest(recipe, ITEMS), recipe.folder(f"{self.use}/{ITEMS}")
        items = read_partition(place, made.of_kind(ITEMS), 0, SCHEMA).combine_chunks()
        texts = items["text"].combine_chunks()
        built = index(texts, ngram_chars=self.ngram_chars, max_items=self.max_items)
        self._check(items, built.grams)
        names = pa.table([items["set"], items["item"], pa.array(built.grams, pa.int32())], schema=_NAMED)
        with TableWriter(folder, f"{NAMES}/00000.arrow", _NAMED) as writer:
            writer.write(names)
        lost = int((built.grams == 0).sum())
        counts = {"in": len(items), "kept": len(items), "cannot_be_found": lost, "ngrams": len(built.hashes)}
        return SplitWork(counts, utf8_bytes(texts), [store(folder, built), writer.shard])

    def _check(self, items: pa.Table, grams: np.ndarray) -> None:
        for part in self.sets:
            mine = pc.equal(items["set"], part.name).to_numpy()
            if grams[mine].any():
                continue
            longest = int(lengths(fold(items["text"].combine_chunks().filter(pa.array(mine)))).max())
            what, remedy = (
                f"each of its n-grams occurs in more than {self.max_items} items",
                f"raise passes.{self.use}.max_items",
            )
            if longest < self.ngram_chars:
                what = (
                    f"its longest item has {longest} letters and digits, but an n-gram has {self.ngram_chars}"
                )
                remedy = f"lower passes.{self.use}.ngram_chars, add fields, or remove the set"
            raise InputError(
                f"no item of the evaluation set {part.name!r} can be found: {what}",
                where=part.path,
                remedy=remedy,
            )


def store(folder: str, built: NgramIndex) -> Shard:
    """Writes the file of an index."""
    numbers = [pa.array([getattr(built, name)], kind) for name, kind in _NUMBERS.items()]
    lists = [_as_list_array(getattr(built, name), kind) for name, kind in _ARRAYS.items()]
    with TableWriter(folder, f"{INDEX}/00000.arrow", _STORED) as writer:
        writer.write(pa.table([*numbers, *lists], schema=_STORED))
    return writer.shard


def _as_list_array(values: np.ndarray, kind: pa.DataType) -> pa.Array:
    return pa.LargeListArray.from_arrays(pa.array([0, len(values)], pa.int64()), pa.array(values, kind))


def open_index(folder: str, made: Manifest) -> NgramIndex:
    """Opens the mapped index in the folder of its finished phase. Raises `StorageError`."""
    row = read_partition(folder, made.of_kind(INDEX), 0, _STORED)
    return NgramIndex(
        **{name: row[name][0].as_py() for name in _NUMBERS},
        **{name: row[name].chunk(0).flatten().to_numpy() for name in _ARRAYS},
    )


def names(folder: str, made: Manifest) -> pa.Table:
    """The items by their numbers: set, item, ngrams."""
    return read_partition(folder, made.of_kind(NAMES), 0, _NAMED).combine_chunks()


def warm() -> None:
    """Compiles the search for read-only arrays, such as those of a mapped file."""
    built = index(pa.array(["天地玄黄宇宙洪荒"]), ngram_chars=4, max_items=1)
    for values in built:
        if isinstance(values, np.ndarray):
            values.flags.writeable = False
    hits(pa.array(["天地玄黄"]), built)
