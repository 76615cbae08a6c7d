"""What the bounds of the pass boilerplate cut: planted furniture, and lines of pages that are clean.

    PYTHONPATH=. python benchmarks/boilerplate.py ../shared/data fit        # the curve, on one half of the sources
    PYTHONPATH=. python benchmarks/boilerplate.py ../shared/data held_out   # the recipe's bounds on the other
    PYTHONPATH=. python benchmarks/boilerplate.py ../shared/data speed

Sites are made of real pages, SIZES of one source each (statutes with statutes, poems with poems: where lines
repeat by right). Half of the sites stay bare. The others get furniture: what stands before and after the text
of real pages of html_zh, one such page for a small site, three for the sections of a larger one. Around it
stands what differs from page to page: the page's own title, a line of date and readers, the titles of the
neighbours and of five other pages.

"Furniture cut" is the share of the lines that are the same on all pages of a section; "own lines cut" of the
pages' own lines. Own lines are whatever the source holds, so footers that a source has itself (a translator's
note, a licence) count as lost: the list of lines cut most, which follows the table, is there to be read.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
import zstandard
from resiliparse.extract.html2text import extract_plain_text

from ctllm_ray.corpus.boilerplate import line_counts
from ctllm_ray.text.dedup.fold import fold_text
from ctllm_ray.text.html import main_content
from ctllm_ray.text.lines.line_keys import LineKeys, at_edges, line_keys

SIZES = (3, 6, 12, 30, 100)  # pages of a site
PAGES_OF_SOURCE = 900
PAGE_CHARS = (100, 20_000)
MOST_LINES = 30  # of a head and of a foot
SECTIONED, SECTIONS = (
    30,
    (0.6, 0.3, 0.1),
)  # from so many pages on a site has sections with furniture of their own
OWN, FURNITURE, VARIES = range(3)


@dataclass(frozen=True)
class Bounds:
    """Those of jobs/recipes/zh_web.yaml."""

    min_pages: int = 8
    min_share: float = 0.1
    min_hosts: int | None = None
    own_line_cost: float | None = 3
    min_chars: int = 1


@dataclass(frozen=True)
class Crawl:
    """All lines of all sites."""

    texts: list[str]
    sites: np.ndarray  # of each page
    sources: list[str]  # of each page
    kinds: list[list[int]]  # of each line of each page


def half(name: str) -> str:
    """`fit` or `held_out`, by a hash of the name of a source or a template."""
    return ("fit", "held_out")[xxhash.xxh3_64_intdigest(name.encode()) % 2]


def sources(data: Path, part: str) -> Iterator[tuple[str, list[str]]]:
    """The pages of each source of one half, those long enough to be pages."""
    for file in sorted((data / "text").glob("*.jsonl.zst")):
        name = file.name.removesuffix(".jsonl.zst")
        if half(name) != part or name in ("code", "english"):
            continue
        with file.open("rb") as raw:
            lines = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(raw), "utf-8")
            pages = [json.loads(line)["text"] for line in lines]
        pages = sorted({page for page in pages if PAGE_CHARS[0] <= len(page) <= PAGE_CHARS[1]})
        random.Random(name).shuffle(pages)
        yield name, pages[:PAGES_OF_SOURCE]


def templates(data: Path, part: str) -> list[tuple[list[str], list[str]]]:
    """Heads and feet of real pages, one of each site: their lines before and after those of the text.

    The text is the labelled one, and what our extraction finds where none is labelled.
    """
    found: dict[str, tuple[list[str], list[str]]] = {}
    for page in pq.read_table(data / "html_zh/pages.parquet").to_pylist():
        raw = page["raw"].decode(page["actual_charset"] or "utf-8", "replace")
        text = {
            fold_text(line) for line in (page["gold_text"] or main_content.extract(raw).text).split("\n")
        } - {""}
        lines = [line.strip() for line in extract_plain_text(raw, main_content=False).split("\n")]
        lines = [line for line in lines if fold_text(line)]
        inside = [i for i, line in enumerate(lines) if fold_text(line) in text]
        if len(inside) > 2 and len(lines) - inside[-1] + inside[0] > 4:
            site = " ".join(sorted([*lines[: inside[0]], *lines[inside[-1] + 1 :]], key=len)[-1:])
            found.setdefault(site, (lines[: inside[0]][-MOST_LINES:], lines[inside[-1] + 1 :][:MOST_LINES]))
    return [template for site, template in found.items() if half(site) == part]


def furnished(
    pages: list[str], frames: list[tuple[list[str], list[str]]], draw: random.Random
) -> Iterator[list[tuple[str, int]]]:
    """(line, kind) of each page of a site with furniture."""
    sections = draw.sample(frames, 1 if len(pages) < SECTIONED else len(SECTIONS))
    top = draw.random() < 0.5  # half of the sites begin with the title
    titles = [next((line for line in page.split("\n") if line.strip()), "")[:40] for page in pages]
    for i, page in enumerate(pages):
        stamp = f"来源：网络　2021-{draw.randint(1, 12):02}-{draw.randint(1, 28):02}　阅读：{draw.randint(9, 9999)}"
        related = draw.sample(titles, min(5, len(titles)))
        near = [f"上一篇：{titles[i - 1]}", f"下一篇：{titles[(i + 1) % len(pages)]}"]
        [template] = draw.choices(sections, SECTIONS[: len(sections)])
        parts = [([titles[i]] * top, VARIES), (template[0], FURNITURE), ([titles[i], stamp], VARIES)]
        parts += [(page.split("\n"), OWN)]
        parts += [(near, VARIES), (["相关推荐"], FURNITURE), (related, VARIES), (template[1], FURNITURE)]
        yield [(line, kind) for lines, kind in parts for line in lines]


def crawl(data: Path, part: str) -> Crawl:
    """The sites of one half."""
    found = Crawl([], np.empty(0), [], [])
    sites: list[int] = []
    draw, frames, site = random.Random(part), templates(data, part), 0
    for name, pages in sources(data, part):
        at = 0
        while at < len(pages):
            size = SIZES[site % len(SIZES)]
            of_site, at, site = pages[at : at + size], at + size, site + 1
            bare = [[(line, OWN) for line in page.split("\n")] for page in of_site]
            for lines in furnished(of_site, frames, draw) if site // len(SIZES) % 2 else bare:
                found.texts.append("\n".join(line for line, _ in lines))
                found.kinds.append([kind for _, kind in lines])
                found.sources.append(name)
                sites.append(site)
    return replace(found, sites=np.array(sites))


def cut(pages: Crawl, lines: LineKeys, bounds: Bounds) -> np.ndarray:
    """True for each line that the bounds cut."""
    sites = pages.sites[lines.rows]
    table = np.stack([lines.keys, sites.astype(np.uint64), lines.rows.astype(np.uint64)], axis=1)
    once = np.unique(table[lines.chars >= bounds.min_chars], axis=0)
    pairs, pages_of = np.unique(once[:, :2], axis=0, return_counts=True)
    share = pages_of / np.bincount(pages.sites)[pairs[:, 1].astype(int)]
    often = (pages_of >= bounds.min_pages) & (share >= bounds.min_share)
    keys, hosts = np.unique(pairs[:, 0], return_counts=True)
    if bounds.min_hosts:
        often |= hosts[np.searchsorted(keys, pairs[:, 0])] >= bounds.min_hosts
    wanted = {tuple(pair) for pair in pairs[often].tolist()}
    repeated = np.array(
        [pair in wanted for pair in zip(table[:, 0].tolist(), table[:, 1].tolist(), strict=True)]
    )
    if bounds.own_line_cost is not None:
        long = lines.chars >= bounds.min_chars
        repeated[long] = at_edges(lines.rows[long], repeated[long], cost=bounds.own_line_cost)
    return repeated & (lines.chars >= bounds.min_chars)


def shares(
    pages: Crawl, lines: LineKeys, taken: np.ndarray, bounds: Bounds
) -> tuple[list[float], Counter[str], Counter[str]]:
    """Shares of furniture, of own lines and of pages that lose any; the latter by source; the lines cut
    most."""
    kinds = np.array(
        [pages.kinds[r][i] for r, i in zip(lines.rows.tolist(), lines.lines.tolist(), strict=True)]
    )
    large = np.bincount(pages.sites)[pages.sites[lines.rows]] >= bounds.min_pages
    own = taken & (kinds == OWN)
    found = (taken & (kinds == FURNITURE) & large).sum() / ((kinds == FURNITURE) & large).sum()
    wrong = own.sum() / (kinds == OWN).sum()
    at = np.flatnonzero(own)
    said = Counter(pages.texts[lines.rows[i]].split("\n")[lines.lines[i]].strip()[:60] for i in at)
    of = Counter(pages.sources[row] for row in np.unique(lines.rows[at]))
    return [float(found), float(wrong), len(np.unique(lines.rows[at])) / len(pages.texts)], of, said


def measure(data: Path, part: str) -> None:
    """The table of one half."""
    pages = crawl(data, part)
    lines = line_keys(pa.array(pages.texts), digits="keep")
    print(f"{len(pages.texts)} pages, {len(set(pages.sites))} sites, {len(set(pages.sources))} sources")
    print("\n| bounds | furniture cut | own lines cut | pages that lose own lines |\n|---|---:|---:|---:|")
    zh_web, tried = Bounds(), {"zh_web": Bounds()}
    for name, values in VARIED.items():
        if part == "fit":
            tried |= {f"{name}: {value}": replace(zh_web, **{name: value}) for value in values}
    for name, bounds in tried.items():
        row, of, said = shares(pages, lines, cut(pages, lines, bounds), bounds)
        print(f"| {name} | {row[0]:.1%} | {row[1]:.3%} | {row[2]:.2%} |", flush=True)
        if bounds == zh_web:
            shown = of, said
    totals = Counter(pages.sources)
    print(
        "\npages that lose own lines:", ", ".join(f"{s} {n}/{totals[s]}" for s, n in shown[0].most_common())
    )
    print("own lines cut most:", *[f"  {n} {line}" for line, n in shown[1].most_common(40)], sep="\n")


VARIED: dict[str, list[Any]] = {
    "own_line_cost": [0.5, 1, 2, 4, 8, None],
    "min_share": [0.0, 0.05, 0.2, 0.3, 0.5, 0.8],
    "min_pages": [3, 5, 10, 20],
    "min_chars": [2, 3, 4, 6],
    "min_hosts": [5, 10, 20, 50],
}


def speed(data: Path) -> None:
    """MB/s of the kernel and of a whole count of a shard in memory, on one core."""
    texts = pa.array(
        [page for part in ("fit", "held_out") for _, pages in sources(data, part) for page in pages]
    )
    urls = [f"http://www.h{i % 500}.example:80/{quote(str(i))}" for i in range(len(texts))]
    table = pa.table({"text": texts, "url": urls, "source": ["x"] * len(texts)})
    reading = line_counts.LineReading("keep", 2)
    reading(texts[:9])
    works: dict[str, Callable[[], object]] = {
        "keys of lines": lambda: reading(texts),
        "hosts": lambda: line_counts.host_keys(table),
        "keys and hosts, a page counting once": lambda: line_counts.once(
            reading, texts, line_counts.host_keys(table), 0
        ),
    }
    for name, work in works.items():
        best = min(_seconds(work) for _ in range(3))
        print(f"{name}: {texts.nbytes / 1e6 / best:.0f} MB/s of {texts.nbytes / 1e6:.0f} MB")


def _seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("what", choices=["fit", "held_out", "speed"])
    asked = parser.parse_args()
    speed(asked.data) if asked.what == "speed" else measure(asked.data, asked.what)
