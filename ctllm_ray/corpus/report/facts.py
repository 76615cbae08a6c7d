"""The facts of a report as frozen values, separate from collecting and rendering."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields

from ctllm_ray.base import storage
from ctllm_ray.base.recipe_rules import Rule
from ctllm_ray.corpus.decontamination.seen_items import BenchmarkFacts
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
    worker_s: float = 0.0  # wall time of splits, summed over worker processes
    splits_done: int = 0
    splits_reused: int = 0
    documents: int = 0
    text_bytes: int = 0


@dataclass(frozen=True)
class Example:
    """A dropped document with `head` and `tail` of its text. `head` is null if no text or bytes were kept."""

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
    """The effect of a rule: `dropped` counts its drops, `failed` all
    documents that break it, `alone` those that break only it."""

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
    reasons: tuple[tuple[str, int], ...]  # drop reasons of the others, most frequent first

    @property
    def dropped(self) -> int:
        """Documents that were rejected."""
        return self.documents - self.kept

    @property
    def keep_rate(self) -> float:
        """The share that was kept."""
        return self.kept / self.documents

    def lost_share(self, families: Collection[str]) -> float:
        """The share dropped by rules outside these families (a family is the part of a
        name before the first dot)."""
        return sum(n for rule, n in self.reasons if rule.partition(".")[0] not in families) / self.documents


@dataclass(frozen=True)
class Breakdown:
    """All documents by one property, most documents first."""

    name: str
    slices: tuple[Slice, ...]
    exact: bool


@dataclass(frozen=True)
class CutFacts:
    """The lines that a line rule removed most often, with counts."""

    rule: str
    lines: int
    chars: int
    examples: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class SizeClass:
    """Clusters of `least` to `most` pages: one page of each survived, `dropped` were removed."""

    least: int
    most: int
    clusters: int
    dropped: int

    @property
    def pages(self) -> int:
        """All pages in these clusters."""
        return self.clusters + self.dropped


@dataclass(frozen=True)
class HostPair:
    """Pages of one host that were dropped in favour of pages of another."""

    survivor: str
    loser: str
    pages: int


@dataclass(frozen=True)
class Copy:
    """A page of a cluster. `host` is null if it is in an earlier version, `excerpt` if no text is left."""

    id: str
    url: str | None
    host: str | None
    chars: int
    excerpt: Excerpt | None


@dataclass(frozen=True)
class Largest:
    """One of the largest clusters: its size, the survivor, one dropped page, and their similarity."""

    pages: int
    similarity: float | None  # null if the pass knows only equality
    stays: Copy
    goes: Copy


@dataclass(frozen=True)
class Copies:
    """The result of a pass that removes duplicates. `same_host`, `other_host` and `earlier` sum to `dropped`.

    Pages that went for a page of an earlier version count as `earlier`, since its host is not known here.
    """

    use: str
    documents: int  # read by the pass
    sizes: tuple[SizeClass, ...]
    most_pages: int  # in one cluster
    same_host: int
    other_host: int
    earlier: int
    pairs: tuple[HostPair, ...]  # of two hosts, most pages first
    more_pairs: int
    exact: bool
    largest: tuple[Largest, ...]

    @property
    def clusters(self) -> int:
        """The number of clusters with more than one page."""
        return sum(each.clusters for each in self.sizes)

    @property
    def dropped(self) -> int:
        """The number of dropped pages."""
        return sum(each.dropped for each in self.sizes)


@dataclass(frozen=True)
class Report:
    """All facts of the page."""

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
    """The runs of a section, in order. A line that a kill cut short is left out."""
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
    """The runs of a section merged into one: resumed work adds up."""
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
