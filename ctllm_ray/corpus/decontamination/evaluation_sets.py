"""Evaluation sets of a recipe, and the phase that reads their items. A unit is a file.

So a file that is missing, empty or of other fields is an error that names it, before any page is read. Files
are known by size and modification time while the pass is begun, and by SHA-256 in the manifests of all its
phases: a set that changed is refused by name, also where the pass is finished.

An item's text is its strings, one a line. A field whose name is one capital letter is an option and stands
behind its letter, as exams print it: `A. 肋胸膜`; otherwise no n-gram that runs from one option to the next
would be in any page.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from ctllm_ray import benchmark_files, sample
from ctllm_ray.base import storage
from ctllm_ray.base.errors import InputError, RecipeError
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.base.recipe_training import NAME, Frozen
from ctllm_ray.base.storage import File
from ctllm_ray.benchmark_files import ID, Row
from ctllm_ray.corpus.engine.phase import Phase
from ctllm_ray.corpus.engine.section import SplitWork
from ctllm_ray.corpus.engine.splits import Split, SplitLimits
from ctllm_ray.shards.tables import TableWriter

ITEMS = "items"
SCHEMA = pa.schema([("set", pa.string()), ("item", pa.string()), ("text", pa.string())])


class EvaluationSet(Frozen):
    """Files of one benchmark in a format of benchmark_files.py, and the fields that form an item's text."""

    name: Annotated[str, Field(pattern=NAME)]
    path: str  # a file, a glob, or `sample:`
    # fields whose strings form the text; all: every string of an item
    fields: Literal["all"] | tuple[str, ...]


@dataclass(frozen=True)
class EvaluationSetPhase(Phase):
    """A phase that depends on the evaluation sets."""

    sets: tuple[EvaluationSet, ...]

    def sources(self, recipe: Recipe) -> dict[str, str]:
        """The hash of the documents, and SHA-256 of every file of the sets."""
        set_files = [(part.name, file) for part in self.sets for file in files(recipe, part)]
        hashes = {source(name, file): storage.size_and_sha256(file.uri)[1] for name, file in set_files}
        return super().sources(recipe) | hashes


@dataclass(frozen=True)
class ReadItems(EvaluationSetPhase):
    """Lists the items of all sets: the address and the text of each."""

    UNIT: ClassVar[str] = "items"

    def check(self, recipe: Recipe) -> None:
        """Raises `RecipeError` if no set is named, or two sets have the same name."""
        where, names = f"passes.{self.use}.sets", [part.name for part in self.sets]
        if not names:
            raise RecipeError(
                "the pass decontaminate has no evaluation sets",
                where=where,
                remedy="add a set, or remove the pass",
            )
        for name, count in Counter(names).items():
            if count > 1:
                raise RecipeError(
                    f"two evaluation sets are named {name!r}",
                    where=where,
                    remedy="give each set its own name",
                )

    def list_splits(self, recipe: Recipe) -> list[Split]:
        """One unit for each file."""
        set_files = [(number, file) for number, part in enumerate(self.sets) for file in files(recipe, part)]
        return [
            Split(
                index,
                self.sets[number].name,
                "",
                {"set": number},
                file,
                0,
                None,
                SplitLimits(0, 0),
                self.name,
            )
            for index, (number, file) in enumerate(set_files)
        ]

    def work(self, recipe: Recipe, folder: str, split: Split) -> SplitWork:
        """Reads a file; writes its items. Raises `InputError` if it has none, or lacks a named field."""
        part = self.sets[split.options["set"]]
        rows = benchmark_files.of_file(split.file.uri)
        _check(rows, part, split.file.uri)
        texts = [text_of(row, part.fields) for row in rows]
        table = pa.table([[part.name] * len(rows), [row[ID] for row in rows], texts], schema=SCHEMA)
        with TableWriter(folder, f"{ITEMS}/{split.index:05d}.arrow", SCHEMA) as writer:
            writer.write(table)
        text_bytes = sum(len(text.encode()) for text in texts)
        return SplitWork({"in": len(rows), "kept": len(rows)}, text_bytes, [writer.shard])


def files(recipe: Recipe, part: EvaluationSet) -> list[File]:
    """The files of a set. Raises `InputError` if there are none, or two would give equal ids."""
    result = storage.list_files(sample.locate(recipe.locate(part.path)))
    for name, count in Counter(_base(file) for file in result).items():
        if count > 1:
            remedy = "ids consist of file name and row: make one set per folder"
            raise InputError(
                f"two files of the evaluation set {part.name!r} are named {name!r}",
                where=part.path,
                remedy=remedy,
            )
    return result


def source(name: str, file: File) -> str:
    """The key of a file's hash in the manifest's provenance."""
    return f"set:{name}/{_base(file)}"


def _base(file: File) -> str:
    return file.uri.rpartition("/")[2]


def _check(rows: Sequence[Row], part: EvaluationSet, uri: str) -> None:
    """Raises `InputError` for a file without items, or without a field that the recipe names."""
    where = f"{uri}, of the set {part.name!r}"
    if not rows:
        raise InputError("the evaluation file has no items", where=where, remedy="give another file")
    fields = {key for row in rows for key, value in row.items() if value is not None} - {ID}
    for field in () if part.fields == "all" else part.fields:
        if field not in fields:
            remedy = f"the items have the fields {', '.join(sorted(fields))}"
            raise InputError(f"no item has the field {field!r}", where=where, remedy=remedy)


def text_of(row: Row, fields: Literal["all"] | Sequence[str]) -> str:
    """The strings of an item in order of its fields, or of the named fields."""
    wanted = [key for key in row if key != ID] if fields == "all" else fields
    return "\n".join(_option(key, text) for key in wanted for text in _strings(row.get(key)))


def _option(key: str, text: str) -> str:
    return f"{key}. {text}" if len(key) == 1 and key.isascii() and key.isupper() else text


def _strings(value: Any) -> Iterator[str]:
    """All strings in a value, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from (text for inner in value.values() for text in _strings(inner))
    elif isinstance(value, Sequence):
        yield from (text for inner in value for text in _strings(inner))
