"""Collects duplicate clusters for the report: sizes, pages by pairs of hosts, and the largest clusters.

A page that went names its survivor, so a cluster is known by the survivor's id, and counting the pages that
went counts every drop of the pass once. Survivors are found where documents end: among what the last section
kept, or what a later pass dropped, since the `kept/` of a section that a pass followed may be gone.

No text is looked at here: columns alone, once for each pass, and once more where hosts get their names; a
remote shard is fetched whole each time. A page of a cluster takes 32 bytes while it is counted; where more
than PART_PAGES went, clusters are counted in parts, by the hash of the survivor's id, and each part scans the
documents again. Two survivors of one 64-bit hash would be counted as one: of a hundred million, with a
probability of 0.0003.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctllm_ray.base import resolve
from ctllm_ray.corpus import documents
from ctllm_ray.corpus.documents import Part
from ctllm_ray.corpus.report import cluster_excerpts
from ctllm_ray.corpus.report.cluster_excerpts import ExcerptedCopy, Place, Top
from ctllm_ray.corpus.report.counters import StreamCounter
from ctllm_ray.corpus.report.facts import Copies, HostPair, SizeClass
from ctllm_ray.shards import reader, schema
from ctllm_ray.text.dedup.digests import digests

PART_PAGES = 2_000_000  # dropped pages to count at once
TOP = 10  # clusters to show
CANDIDATES = 4  # dropped pages per cluster to read; the first with another text is shown
HOST_PAIRS = 15
CHUNK_ROWS = 100_000  # host pairs to hold as Python objects, besides the counter

COLUMNS = ["id", "url", "source", "labels", "scores"]
ENTRY = np.dtype(
    [
        ("cluster", np.uint64),  # hash of the survivor's id
        ("host", np.uint64),  # hash of its name
        ("similarity", np.float32),
        ("file", np.int32),
        ("row", np.int64),
    ]
)
NOT_HERE = np.zeros(1, ENTRY)
NOT_HERE["file"] = -1  # the survivor is in an earlier version


def collect_duplicates(parts: Sequence[Part]) -> tuple[Copies, ...]:
    """The duplicates of each pass that finds some, in order; empty if there is no such pass."""
    uses = [part.finished.section for part in parts]
    return tuple(_of_pass(parts, number) for number, use in enumerate(uses) if number and _finds_copies(use))


def _finds_copies(use: str) -> bool:
    return f"{use}.survivor" in resolve.declared_names(resolve.PASSES, use, "LABELS")


def _of_pass(sections: Sequence[Part], number: int) -> Copies:
    finished, ended = sections[number].finished, ExcerptedCopy(sections, number)
    count = _Count()
    parts = ceil(finished.counts.get(f"reject:{finished.section}.duplicate", 0) / PART_PAGES)
    for part in range(parts):
        count.add(*_entries(ended, finished.section, part, parts))
    pairs = count.host_pairs()
    names = _names(ended, {host for hosts, _ in pairs for host in hosts})
    return Copies(
        use=finished.section,
        documents=finished.counts["in"],
        sizes=tuple(count.sizes()),
        most_pages=count.most_pages,
        same_host=count.same_host,
        other_host=count.other_host,
        earlier=count.earlier,
        pairs=tuple(HostPair(names[survivor], names[loser], pages) for (survivor, loser), pages in pairs),
        more_pairs=len(count.pairs.counts) - len(pairs),
        exact=count.pairs.exact,
        largest=tuple(cluster_excerpts.build_largest(ended, each) for each in count.top),
    )


class _Count:
    """Adds up the clusters of all parts."""

    def __init__(self) -> None:
        self._clusters, self._dropped = np.zeros((2, 64), np.int64)  # by size class
        self.most_pages = self.same_host = self.other_host = self.earlier = 0
        self.pairs: StreamCounter[tuple[int, int]] = StreamCounter()
        self.top: list[Top] = []

    def add(self, went: np.ndarray, stayed: np.ndarray) -> None:
        """Adds the dropped pages of some clusters (ENTRY), and their survivors."""
        if not len(went):
            return
        went = went[np.lexsort((went["row"], went["file"], went["similarity"], went["cluster"]))]
        clusters, starts, losers = np.unique(went["cluster"], return_index=True, return_counts=True)
        stays = _of_clusters(stayed, clusters)
        classes = np.frexp(losers)[1]  # 2 pages: 1; 3 and 4: 2; 5 to 8: 3
        self._clusters += np.bincount(classes, minlength=64)
        self._dropped += np.bincount(classes, weights=losers, minlength=64).astype(np.int64)
        self.most_pages = max(self.most_pages, int(losers.max()) + 1)
        self._add_hosts(went["host"], np.repeat(stays, losers))
        self._add_top(went, stays, starts, losers)

    def _add_hosts(self, loser: np.ndarray, stays: np.ndarray) -> None:
        here = stays["file"] >= 0
        same = here & (loser == stays["host"])
        other = here & ~same
        self.earlier += int((~here).sum())
        self.same_host += int(same.sum())
        self.other_host += int(other.sum())
        table = pa.table({"survivor": stays["host"][other], "loser": loser[other]})
        counted = table.group_by(["survivor", "loser"], use_threads=False).aggregate([([], "count_all")])
        for batch in counted.to_batches(max_chunksize=CHUNK_ROWS):
            self.pairs.add(((row["survivor"], row["loser"]), row["count_all"]) for row in batch.to_pylist())

    def _add_top(self, went: np.ndarray, stays: np.ndarray, starts: np.ndarray, losers: np.ndarray) -> None:
        """Keeps the largest clusters; of equal size those with the first survivors."""
        order = np.lexsort((stays["row"], stays["file"], -losers))[:TOP]
        for at in order.tolist():
            shown = went[starts[at] : starts[at] + min(losers[at], CANDIDATES)]
            alike = [None if np.isnan(each) else float(each) for each in shown["similarity"]]
            [survivor] = _places(stays[at : at + 1])
            self.top.append(Top(int(losers[at]) + 1, survivor, tuple(_places(shown)), tuple(alike)))
        self.top = sorted(self.top, key=lambda top: (-top.pages, top.stays))[:TOP]

    def sizes(self) -> Iterator[SizeClass]:
        """Size classes from pairs to the largest, without gaps."""
        last = int(np.flatnonzero(self._clusters).max(initial=0))
        for size in range(1, last + 1):
            yield SizeClass(2 ** (size - 1) + 1, 2**size, int(self._clusters[size]), int(self._dropped[size]))

    def host_pairs(self) -> list[tuple[tuple[int, int], int]]:
        """The pairs of hosts (hashes) with the most pages, in a reproducible order."""
        return sorted(self.pairs.counts.items(), key=lambda pair: (-pair[1], pair[0]))[:HOST_PAIRS]


def _of_clusters(stayed: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """The survivor (ENTRY) of each cluster; NOT_HERE if it is in an earlier version."""
    stayed = np.concatenate([stayed[np.argsort(stayed["cluster"])], NOT_HERE])
    at = np.searchsorted(stayed["cluster"][:-1], clusters)
    return stayed[np.where(stayed["cluster"][at] == clusters, at, -1)]


def _places(entries: np.ndarray) -> list[Place]:
    return list(zip(entries["file"].tolist(), entries["row"].tolist(), strict=True))


def _entries(ended: ExcerptedCopy, use: str, part: int, parts: int) -> tuple[np.ndarray, np.ndarray]:
    """The pages of a part's clusters: dropped ones and survivors (ENTRY each)."""
    went, stayed = [NOT_HERE[:0]], [NOT_HERE[:0]]
    for file, uri in enumerate(ended.uris):
        row = 0
        for table in reader.shard_tables(uri, COLUMNS):
            survivor = schema.field(table, "labels", f"{use}.survivor")
            has_copies = pc.greater(schema.field(table, "scores", f"{use}.cluster_size"), 1)
            goes = pc.is_valid(survivor)
            stays = pc.and_(pc.invert(goes), pc.fill_null(has_copies, False))
            for kind, names, chosen in (
                (went, survivor, goes),
                (stayed, table["id"].combine_chunks(), stays),
            ):
                entries = _take_entries(table, use, names, chosen, file, row)
                kind.append(entries[entries["cluster"] % np.uint64(parts) == part])
            row += table.num_rows
    return np.concatenate(went), np.concatenate(stayed)


def _take_entries(
    table: pa.Table, use: str, names: pa.Array, chosen: pa.Array, file: int, row: int
) -> np.ndarray:
    """The chosen documents of a table as ENTRY; `names` are the ids of their survivors."""
    rows = np.flatnonzero(chosen.to_numpy(zero_copy_only=False))
    entries = np.empty(len(rows), ENTRY)
    if not len(rows):
        return entries
    entries["cluster"] = digests(names.filter(chosen))[:, 0]
    entries["host"] = digests(_hosts(table).filter(chosen))[:, 0]
    similarity = schema.field(table, "scores", f"{use}.similarity").filter(chosen)
    entries["similarity"] = similarity.to_numpy(zero_copy_only=False)
    entries["file"], entries["row"] = file, row + rows
    return entries


def _hosts(table: pa.Table) -> pa.Array:
    """The host of each document; its source if it has no URL."""
    return pc.coalesce(documents.hosts(table["url"].combine_chunks()), table["source"].combine_chunks(), "")


def _names(ended: ExcerptedCopy, wanted: set[int]) -> dict[int, str]:
    """The names of hosts by their hashes. Stops reading once all are known: frequent hosts appear early."""
    names: dict[int, str] = {}
    for uri in ended.uris:
        for table in reader.shard_tables(uri, ["url", "source"]):
            if len(names) == len(wanted):
                return names
            hosts = pc.unique(_hosts(table))
            hashes = digests(hosts)[:, 0].tolist()
            names |= {key: name for key, name in zip(hashes, hosts.to_pylist(), strict=True) if key in wanted}
    return names
