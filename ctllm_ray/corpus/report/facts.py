"""What a report says: plain frozen values, apart from how they are gathered and how they are shown."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields

from ctllm_ray.base import storage
from ctllm_ray.base.recipe_rules import Rule
from ctllm_ray.corpus.report.funnel import FunnelGroup
from ctllm_ray.corpus.report.histograms import Histogram
from ctllm_ray.shards.manifest import RUNS, Manifest
from ctllm_ray.text.dedup.differences import Excerpt


@dataclass(frozen=True)
class SectionRun:
    """One line of RUNS.jsonl."""

    started: str = ""
    ended: str = ""
    wall_s: float = 0.0
    worker_s: float = 0.0  # wall time of the splits, added up over the processes that worked them
    splits_done: int = 0
    splits_reused: int = 0
    documents: int = 0
    text_bytes: int = 0


@dataclass(frozen=True)
class Example:
    """A dropped document: the `head` and `tail` of its text. `head` is null where neither text nor bytes were
    kept."""

    id: str
    url: str | None
    title: str | None
    source: str | None
    genre: str | None
    value: float | None
    bound: float | None
    head: str | None
    left_out_chars: int  # between head and tail
    tail: str


@dataclass(frozen=True)
class RuleFacts:
    """What a rule did: `dropped` were charged to it, `failed` break it whatever the order, `alone` break only
    it."""

    rule: Rule
    measured: int
    dropped: int
    failed: int
    alone: int
    histogram: Histogram | None


@dataclass(frozen=True)
class Slice:
    """The documents of one host, source, genre or label."""

    value: str | None
    documents: int
    kept: int
    reasons: tuple[tuple[str, int], ...]  # what dropped the others, most first

    @property
    def dropped(self) -> int:
        """Documents that were rejected."""
        return self.documents - self.kept

    @property
    def keep_rate(self) -> float:
        """Share that was kept."""
        return self.kept / self.documents

    def lost_share(self, families: Collection[str]) -> float:
        """Share that was dropped by rules of other families (the parts of names before the first dot) than
        these."""
        return sum(n for rule, n in self.reasons if rule.partition(".")[0] not in families) / self.documents


@dataclass(frozen=True)
class Breakdown:
    """All documents by one property, most documents first."""

    name: str
    slices: tuple[Slice, ...]
    exact: bool


@dataclass(frozen=True)
class CutFacts:
    """What a line rule cut out of documents: its most frequent lines with their counts."""

    rule: str
    lines: int
    chars: int
    examples: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class BenchmarkFacts:
    """What a decontaminated corpus held of an evaluation set."""

    name: str
    items: int
    cannot_be_found: int
    found: int  # items that a page held enough of to count
    touched: int  # items that pages held less of
    cut_pages: int
    dropped_pages: int

    @property
    def pages(self) -> int:
        """Pages that hold items of it."""
        return self.cut_pages + self.dropped_pages


@dataclass(frozen=True)
class SizeClass:
    """Clusters of `least` to `most` pages: one page of each stayed, `dropped` went."""

    least: int
    most: int
    clusters: int
    dropped: int

    @property
    def pages(self) -> int:
        """All pages of these clusters."""
        return self.clusters + self.dropped


@dataclass(frozen=True)
class HostPair:
    """Pages of one host that went for pages of another."""

    survivor: str
    loser: str
    pages: int


@dataclass(frozen=True)
class Copy:
    """A page of a cluster. `host` is null where it is of an earlier version, `excerpt` where no text of it is
    left."""

    id: str
    url: str | None
    host: str | None
    chars: int
    excerpt: Excerpt | None


@dataclass(frozen=True)
class Largest:
    """One of the largest clusters: how many pages, the one that stayed, one that went, and how alike these
    two are."""

    pages: int
    similarity: float | None  # null where the pass knows only equality
    stays: Copy
    goes: Copy


@dataclass(frozen=True)
class Copies:
    """What a pass that finds copies found. `same_host`, `other_host` and `earlier` add up to `dropped`.

    Pages that went for a page of an earlier version count as `earlier`, since its host is not known here.
    """

    use: str
    documents: int  # that the pass read
    sizes: tuple[SizeClass, ...]
    most_pages: int  # of one cluster
    same_host: int
    other_host: int
    earlier: int
    pairs: tuple[HostPair, ...]  # of two hosts, most pages first
    more_pairs: int
    exact: bool
    largest: tuple[Largest, ...]

    @property
    def clusters(self) -> int:
        """Clusters of more than one page."""
        return sum(each.clusters for each in self.sizes)

    @property
    def dropped(self) -> int:
        """Pages that went."""
        return sum(each.dropped for each in self.sizes)


@dataclass(frozen=True)
class Report:
    """Everything the page shows."""

    manifest: Manifest
    runs: tuple[SectionRun, ...]
    groups: tuple[FunnelGroup, ...]
    kept_chars: int
    kept_bytes: int
    rules: tuple[RuleFacts, ...]
    sampled: int
    breakdowns: tuple[Breakdown, ...]
    examples: dict[str, tuple[Example, ...]]
    cuts: tuple[CutFacts, ...]
    cuts_exact: bool
    benchmarks: tuple[BenchmarkFacts, ...] = ()
    copies: tuple[Copies, ...] = ()


def read_runs(folder: str) -> tuple[SectionRun, ...]:
    """The runs that made a section, in order; a line that a kill cut short is left out."""
    path = storage.join(folder, RUNS)
    if not storage.exists(path):
        return ()
    known, runs = {field.name for field in fields(SectionRun)}, []
    for line in storage.read_bytes(path).splitlines():
        try:
            plain = json.loads(line)
        except ValueError:
            continue
        runs.append(SectionRun(**{key: value for key, value in plain.items() if key in known}))
    return tuple(runs)


def total(runs: Sequence[SectionRun]) -> SectionRun:
    """The runs of a section as one: resumed work adds up."""
    if not runs:
        return SectionRun()
    return SectionRun(
        started=runs[0].started,
        ended=runs[-1].ended,
        wall_s=sum(run.wall_s for run in runs),
        worker_s=sum(run.worker_s for run in runs),
        splits_done=sum(run.splits_done for run in runs),
        splits_reused=0,
        documents=sum(run.documents for run in runs),
        text_bytes=sum(run.text_bytes for run in runs),
    )
