"""All documents of a corpus across its sections: `clean` and every pass.

What a section kept is what the next one reads. So every document that was ever read stands in one place only:
among the rejected ones of the section that dropped it, or among the kept ones of the last section. `why`,
`report` and `replay` ask for all of them; the tokenizer and the tokens section for the kept ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from ctllm_ray.base import resolve, storage
from ctllm_ray.base.recipe import CLEAN, Recipe
from ctllm_ray.corpus.clean import document_schema
from ctllm_ray.shards import manifest, reader, schema
from ctllm_ray.shards.manifest import Manifest, Shard, check_counts, section_files


@dataclass(frozen=True)
class Part:
    """A finished section of documents."""

    folder: str
    finished: Manifest


def schema_of(recipe: Recipe, section: str) -> pa.Schema:
    """The DOCUMENT schema that a section writes: columns of the stages, then of the passes up to this one."""
    columns = document_schema(recipe)
    scores, labels = ([field.name for field in columns.field(name).type] for name in ("scores", "labels"))
    for use in recipe.corpus_sections[1 : recipe.corpus_sections.index(section) + 1]:
        scores += resolve.declared_names(resolve.PASSES, use, "SCORES")
        labels += resolve.declared_names(resolve.PASSES, use, "LABELS")
    return schema.document(scores, labels)


def made_from(recipe: Recipe, section: str) -> dict[str, str]:
    """The provenance of whatever reads the kept documents of a section: the hash of all its shards."""
    return {f"{section}_shards": manifest.read_manifest(recipe.folder(section)).digest("kept")}


def kept_shards(recipe: Recipe, section: str) -> list[tuple[Shard, str]]:
    """The kept shards of a section in order, each with the input of all its documents.

    A shard is of one split, and the plan of its section knows that split's input.
    """
    folder = recipe.folder(section)
    shards = manifest.read_manifest(folder).of_kind("kept")
    inputs = {split["index"]: split["input"] for split in section_files(folder).read_begun()["splits"]}
    return [(shard, inputs[int(shard.path.rpartition("/")[2].partition("-")[0])]) for shard in shards]


def parts(folder: str, finished: Manifest) -> list[Part]:
    """The sections of documents up to the finished one in a folder, in order. Raises `NotFound`."""
    beside = folder.rpartition("/")[0]
    names = [CLEAN, *(part["use"] for part in finished.recipe.get("passes", ()))][:-1]
    before = [storage.join(beside, name) for name in names if finished.section != CLEAN]
    return [*(Part(place, manifest.read_manifest(place)) for place in before), Part(folder, finished)]


def merge_sections(sections: Sequence[Part]) -> Manifest:
    """Merges the sections: the first one's input, all rejects, the last one's kept documents."""
    rejects: Counter[str] = Counter()
    for part in sections:
        rejects.update({f"reject:{rule}": n for rule, n in part.finished.rejects().items()})
    first, last = sections[0].finished, sections[-1].finished
    counts = {"in": first.counts["in"], "kept": last.counts["kept"], **rejects, **first.count_skipped()}
    check_counts(counts, sections[-1].folder)
    shards = [
        *last.of_kind("kept"),
        *(shard for part in sections for shard in part.finished.of_kind("rejected")),
    ]
    return replace(last, inputs=first.inputs, counts=counts, shards=shards)


def shards(sections: Sequence[Part], kind: str) -> Iterator[tuple[str, str]]:
    """(URI, name below the version's folder) of all `kept` or all `rejected` shards, in order."""
    for part in sections if kind == "rejected" else sections[-1:]:
        for path in part.finished.paths(kind):
            yield storage.join(part.folder, path), f"{part.finished.section}/{path}"


def tables(sections: Sequence[Part], kind: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The record batches of all `kept` or all `rejected` shards, in order."""
    for uri, _ in shards(sections, kind):
        yield from reader.shard_tables(uri, columns)


def hosts(urls: pa.Array) -> pa.Array:
    """The host of each URL in lower case; null if there is none."""
    matches = pc.extract_regex(urls, r"^[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#@]*@)?(?P<host>[^/?#:]+)")
    return pc.utf8_lower(pc.struct_field(matches, "host"))
