"""Passes: steps over the whole corpus, between the clean section and tokens. A pass is a list of phases.

So resume, retries, attempts, markers and manifests inside a pass come from the one mechanism that there is: a
phase lists units (`Split`), a unit reads what earlier phases wrote and writes files, and a killed driver
loses the units that were under way. The phases `near/keys`, `near/pairs` stand in folders below the pass's;
the last phase is named like the pass, reads the documents of the section before and writes those that stay
and those that go: the next section knows no difference to `clean`.

Phases that read text work on one shard each. Only keys are compared across documents, through files
(`shards/tables.py`). A document is known by its number: the rows of all earlier kept shards plus its row. Ids
are strings; they are looked up at the end, for the few documents that need them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctllm_ray.base import resolve, storage
from ctllm_ray.base.errors import StorageError
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.corpus import clean, documents
from ctllm_ray.corpus.engine import splits
from ctllm_ray.corpus.engine.section import ATTEMPTS, MARKERS, SplitWork
from ctllm_ray.corpus.engine.splits import Split
from ctllm_ray.corpus.readers import input_forms
from ctllm_ray.shards import manifest, reader, schema
from ctllm_ray.shards.manifest import MANIFEST, RUNS, Manifest, Shard
from ctllm_ray.shards.writer import ShardWriter

#: Takes a WORKING table of live documents and the number of its first one; marks those to drop.
Judge = Callable[[pa.Table, int], pa.Table]


@dataclass(frozen=True)
class Phase:
    """A phase: one section inside a pass. `name` is `near/keys`, or `near` for the last
    one, which writes documents."""

    name: str

    PACKAGES: ClassVar[tuple[str, ...]] = ()
    UNIT: ClassVar[str] = "documents"
    READS_WHAT_IS_SAID: ClassVar[bool] = False  # reads the contents of conversations, by `readable`

    @property
    def use(self) -> str:
        """The pass of the phase."""
        return self.name.partition("/")[0]

    def before(self, recipe: Recipe) -> str:
        """The section whose kept documents the pass reads."""
        sections = recipe.corpus_sections
        return sections[sections.index(self.use) - 1]

    def kept_shards(self, recipe: Recipe) -> list[Shard]:
        """The shards of those documents, in numbering order."""
        return manifest.read_manifest(recipe.folder(self.before(recipe))).of_kind("kept")

    def read_manifest(self, recipe: Recipe, phase: str) -> Manifest:
        """The manifest of an earlier phase of the pass."""
        return manifest.read_manifest(recipe.folder(f"{self.use}/{phase}"))

    def list_splits(self, recipe: Recipe) -> list[Split]:
        """One unit per kept shard of the section before. Phases that work on parts
        of a shuffle override this."""
        before = self.before(recipe)
        folder = recipe.folder(before)
        return [
            splits.of_shard(index, self.name, folder, shard, input=source)
            for index, (shard, source) in enumerate(documents.kept_shards(recipe, before))
        ]

    def list_parts(self, recipe: Recipe, phase: str, kind: str, parts: int) -> list[Split]:
        """One unit for each part of the files of a kind that an earlier phase wrote."""
        made, folder = self.read_manifest(recipe, phase), recipe.folder(f"{self.use}/{phase}")
        return [splits.of_part(part, self.name, folder, made, kind, parts) for part in range(parts)]

    def sources(self, recipe: Recipe) -> dict[str, str]:
        """The hash of the documents that the pass reads; for conversations, how it reads turns."""
        how = input_forms.READ_AS if self.READS_WHAT_IS_SAID and input_forms.has_turns(recipe) else {}
        return documents.made_from(recipe, self.before(recipe)) | how

    def check(self, recipe: Recipe) -> None:
        """No check by default."""

    def warm(self, recipe: Recipe) -> None:
        """No compilation by default."""

    def work(self, recipe: Recipe, folder: str, split: Split) -> SplitWork:
        """Runs one unit."""
        raise NotImplementedError

    def finish(self, recipe: Recipe, folder: str, finished: Manifest) -> None:
        """Nothing by default."""

    def first_number(self, recipe: Recipe, split: Split) -> int:
        """The number of the first document of a unit that is a shard."""
        return sum(shard.rows for shard in self.kept_shards(recipe)[: split.index])

    def tables(self, recipe: Recipe, split: Split) -> Iterator[pa.Table]:
        """The documents of a unit that is a shard. Raises `StorageError` if it
        changed or has other columns."""
        wanted = documents.schema_of(recipe, self.before(recipe))
        for table in reader.same_tables(split.file.uri, split.file.size, split.file.version, wanted.names):
            if table.schema != wanted:
                raise StorageError(
                    f"the shard's columns differ from the recipe: {_difference(table.schema, wanted)}",
                    where=split.file.uri,
                    remedy="delete the folder of that section and run `ctllm prepare` again",
                )
            yield table

    def readable(self, recipe: Recipe, split: Split) -> Iterator[pa.Table]:
        """Like `tables`, with conversations as plain contents instead of JSON. For
        comparison only, not for writing."""
        form = input_forms.inputs(recipe)[split.input]
        return (input_forms.readable(table, form) for table in self.tables(recipe, split))

    def judge_shard(self, recipe: Recipe, folder: str, split: Split, judge: Judge) -> SplitWork:
        """The work of a last phase: judges the documents of a shard; writes kept and rejected shards."""
        document = documents.schema_of(recipe, self.use)
        number, text_bytes, counts = self.first_number(recipe, split), 0, {"in": 0, "kept": 0}
        with (
            ShardWriter(folder, "kept", split.index, document) as kept,
            ShardWriter(folder, "rejected", split.index, document) as rejected,
        ):
            for table in self.tables(recipe, split):
                text_bytes += schema.utf8_bytes(table["text"])
                packed = schema.pack(judge(schema.unpack(table), number), document)
                number += table.num_rows
                for key, count in clean.counts_of(packed).items():
                    counts[key] = counts.get(key, 0) + count
                passed = pc.is_null(packed["reject"])
                kept.write(packed.filter(passed))
                rejected.write(clean.sample_rejects(packed.filter(pc.invert(passed)), recipe))
        return SplitWork(counts, text_bytes, [*kept.shards, *rejected.shards])


def _difference(schema: pa.Schema, wanted: pa.Schema) -> str:
    """The differences of two schemas in words."""
    for name in wanted.names:
        a, b = schema.field(name).type, wanted.field(name).type
        if a != b and pa.types.is_struct(b):
            names = [{field.name for field in kind} for kind in (a, b)]
            more, fewer = sorted(names[0] - names[1]), sorted(names[1] - names[0])
            return f"{name} has {', '.join(more) or 'nothing'} more and {', '.join(fewer) or 'nothing'} less"
        if a != b:
            return f"{name} is {a}, not {b}"
    return "their order"


class Pass:
    """What the function of a pass returns: its phases in order. The last one is named like the pass."""

    lasting: tuple[str, ...] = ()  # phases whose files are kept when the pass is finished

    def __init__(self, *phases: Phase) -> None:
        self._phases = {phase.name: phase for phase in phases}

    def order(self, recipe: Recipe) -> Iterator[str]:
        """The names of the phases. The next one is requested
        when one is finished, and may depend on its result."""
        yield from self._phases

    def phase(self, name: str) -> Phase:
        """The phase of that name."""
        return self._phases[name]

    def check(self, recipe: Recipe) -> None:
        """Raises `RecipeError` if a phase needs columns that documents do not have at that point."""
        for phase in self._phases.values():
            phase.check(recipe)


def load_pass(use: str, recipe: Recipe) -> Pass:
    """One of the recipe's passes, with its options."""
    [options] = [part.model_extra or {} for part in recipe.passes if part.use == use]
    made: Pass = resolve.resolve(resolve.PASSES, use)(**options)
    return made


def sweep(folder: str, lasting: Sequence[str]) -> None:
    """Deletes temporary files of a finished pass's phases; their counts and times stay."""
    own = {MARKERS, ATTEMPTS, "kept", "rejected", *(name.rpartition("/")[2] for name in lasting)}
    for path in storage.list_tree(folder):
        if (
            "/" in path
            and path.partition("/")[0] not in own
            and path.rpartition("/")[2] not in (MANIFEST, RUNS)
        ):
            storage.remove(storage.join(folder, path))


def total_rows(shards: Sequence[Shard]) -> int:
    """The number of rows in all shards."""
    return sum(shard.rows for shard in shards)


def ends(shards: Sequence[Shard]) -> np.ndarray:
    """int64: the number after the last document of each shard."""
    return np.cumsum([shard.rows for shard in shards], dtype=np.int64)
