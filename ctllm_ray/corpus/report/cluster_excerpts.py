"""The largest duplicate clusters with texts: the survivor
next to a dropped page, from where they first differ.

Texts are those that the pass read, from `kept/` of the section before, if it still exists. Otherwise the
final text of a page is shown, which later passes may have cut, or which `data.rejected_text_share` may have
dropped. A shard keeps the number of the shard it was made from, so no search is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ctllm_ray.base import storage
from ctllm_ray.corpus import documents
from ctllm_ray.corpus.documents import Part
from ctllm_ray.corpus.report.facts import Copy, Largest
from ctllm_ray.shards import reader
from ctllm_ray.text.dedup.differences import Excerpt, side_by_side

Place = tuple[int, int]  # number of a file of `ExcerptedCopy` and a row in it; file -1: in an earlier version


@dataclass(frozen=True)
class Top:
    """One of the largest clusters: the place of its survivor, and of some
    dropped pages, least similar first."""

    pages: int
    stays: Place
    goes: tuple[Place, ...]
    similarities: tuple[float | None, ...]


@dataclass(frozen=True)
class ExcerptedCopy:
    """The documents that a pass read, at their final places: dropped by this or a later pass, or kept."""

    parts: Sequence[Part]
    number: int

    @cached_property
    def _files(self) -> list[tuple[int, str]]:
        """(section, path in its folder) of each file."""
        last = len(self.parts) - 1
        sections = [*((at, "rejected") for at in range(self.number, last + 1)), (last, "kept")]
        return [(at, path) for at, kind in sections for path in self.parts[at].finished.paths(kind)]

    @cached_property
    def uris(self) -> list[str]:
        """The files."""
        return [storage.join(self.parts[at].folder, path) for at, path in self._files]

    def row(self, place: Place) -> dict[str, Any]:
        """The document at a place."""
        file, row = place
        for number, ids in enumerate(reader.shard_tables(self.uris[file], ["id"])):
            if row < ids.num_rows:
                return reader.shard_table(self.uris[file], number).slice(row, 1).to_pylist()[0]
            row -= ids.num_rows
        raise IndexError(f"{self.uris[file]} has no row {place[1]}")

    def text(self, place: Place, row: dict[str, Any]) -> str | None:
        """The text of a document as the pass read it, else its final text; null if nothing is left."""
        at, path = self._files[place[0]]
        for section in range(at, self.number - 1, -1):
            path = self.parts[section - 1].finished.paths("kept")[
                int(path.rpartition("/")[2].partition("-")[0])
            ]
        uri = storage.join(self.parts[self.number - 1].folder, path)
        return next(_texts(uri, row["id"]), row["text"]) if storage.exists(uri) else row["text"]


def _texts(uri: str, name: str) -> Iterator[str]:
    """The text of the document with this id in a shard."""
    for number, ids in enumerate(reader.shard_tables(uri, ["id"])):
        at = pc.index(ids["id"], pa.scalar(name)).as_py()
        if at >= 0:
            yield reader.shard_table(uri, number)["text"][at].as_py()


def build_largest(ended: ExcerptedCopy, top: Top) -> Largest:
    """The survivor next to the first dropped page with another text; if there is
    none, the first dropped page."""
    stays = ended.row(top.stays) if top.stays[0] >= 0 else None
    kept = ended.text(top.stays, stays) if stays else None
    rows: list[dict[str, Any]] = []
    lost: list[str | None] = []
    for place in top.goes:
        rows.append(ended.row(place))
        lost.append(ended.text(place, rows[-1]))
        if differs := lost[-1] not in (None, kept):
            break
    at = len(lost) - 1 if differs else 0
    dropped, similarity = lost[at], top.similarities[at]
    sides: tuple[Excerpt | None, Excerpt | None] = (None, None)
    if kept is not None and dropped is not None:
        sides = side_by_side(kept, dropped)
    elif one := kept or dropped:
        [excerpt, _] = side_by_side(one, one)
        sides = (excerpt, None) if kept else (None, excerpt)
    use = ended.parts[ended.number].finished.section
    survivor = stays or {"id": rows[at]["labels"][f"{use}.survivor"], "url": None, "source": None}
    return Largest(top.pages, similarity, _copy(survivor, kept, sides[0]), _copy(rows[at], dropped, sides[1]))


def _copy(row: dict[str, Any], text: str | None, excerpt: Excerpt | None) -> Copy:
    [host] = documents.hosts(pa.array([row["url"]], pa.string())).to_pylist()
    return Copy(row["id"], row["url"], host or row["source"], len(text or ""), excerpt)
