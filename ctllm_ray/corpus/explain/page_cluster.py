"""The duplicate cluster of a page: the survivor and the dropped copies, as the passes recorded them.

Nothing is indexed for this: the rejected shards of the pass are scanned for labels that name the survivor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow.compute as pc

from ctllm_ray.base import resolve, storage
from ctllm_ray.corpus.documents import Part
from ctllm_ray.shards import reader, schema

MEMBERS = 20  # dropped copies to show per cluster


@dataclass(frozen=True)
class Member:
    """A dropped page and its similarity to the survivor; null if the pass knows only equality."""

    id: str
    url: str | None
    similarity: float | None


@dataclass(frozen=True)
class Cluster:
    """A duplicate cluster: its size, and the first of the dropped pages."""

    use: str
    survivor: str
    size: int
    members: tuple[Member, ...]


def of_page(parts: Sequence[Part], row: Mapping[str, Any]) -> Iterator[Cluster]:
    """The clusters with more than one page that contain a page (a DOCUMENT row), at most one per pass."""
    for part in parts:
        use = part.finished.section
        size = row["scores"].get(f"{use}.cluster_size") or 1
        if size > 1:
            survivor = row["labels"].get(f"{use}.survivor") or row["id"]
            yield Cluster(use, survivor, int(size), tuple(islice(_members(part, survivor), MEMBERS)))


def _members(part: Part, survivor: str) -> Iterator[Member]:
    """The pages dropped in favour of a survivor, in corpus order."""
    use = part.finished.section
    known = f"{use}.similarity" in resolve.declared_names(resolve.PASSES, use, "SCORES")
    for path in part.finished.paths("rejected"):
        uri = storage.join(part.folder, path)
        for table in reader.shard_tables(uri, ["id", "url", "labels", "scores"]):
            named = schema.field(table, "labels", f"{use}.survivor")
            for row in table.filter(pc.equal(named, survivor)).to_pylist():
                yield Member(row["id"], row["url"], row["scores"][f"{use}.similarity"] if known else None)
