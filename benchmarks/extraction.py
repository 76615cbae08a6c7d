"""Main text from HTML: precision, recall and F1 on labelled Chinese pages, and MB/s beside the bare library
call.

    python -m benchmarks.extraction [--data ../shared/data] [--every 3]

Two sets. `real`: the pages of html_zh that have a gold text. That gold was made by a program which took dated
lists of related links for body, so `real*` scores the same pages without those gold lines. `rendered`:
web_zh_raw's texts in six site templates, where the gold is exact. Precision and recall are over 4-grams of
letters, averaged over pages.

Speed is, per batch of pages, the fastest of several runs of each contestant in turn, so that other work on
the machine hits all alike: resiliparse's own main-content extraction in a bare loop, then ours, then our
stage, which decodes bytes and finds out their charset too.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import pyarrow as pa
import pyarrow.parquet as pq
import trafilatura
import zstandard
from resiliparse.extract.html2text import extract_plain_text

from ctllm_ray.corpus.stages.extract import extract as stage
from ctllm_ray.shards import schema
from ctllm_ray.text.html import blocks, main_content

GRAM = 4
ROUNDS = 5
BATCH = 32  # pages timed at once; the sources yield tables of 4 MB, some 40 real pages
_RELATED_LINK = re.compile(r"^.*(?:20\d\d/\d\d/\d\d|评论\d+条)$\n?", re.MULTILINE)
_NO_LETTERS = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class Labelled:
    """A page with the text that a person would take from it."""

    html: str
    gold: str


def real(data: Path) -> list[Labelled]:
    """The real pages that have a gold text."""
    rows = pq.read_table(
        data / "html_zh" / "pages.parquet", columns=["raw", "actual_charset", "gold_text"]
    ).to_pylist()
    return [
        Labelled(r["raw"].decode(r["actual_charset"], "replace"), r["gold_text"])
        for r in rows
        if r["gold_text"]
    ]


def rendered(data: Path, every: int = 1) -> list[Labelled]:
    """Each `every`-th of the texts that web_zh_raw shows in a site's template."""
    truth = pq.read_table(
        data / "web_zh_raw" / "truth.parquet", columns=["doc_id", "rendered_template", "gold_text"]
    )
    gold = {r["doc_id"]: r["gold_text"] for r in truth.filter(truth["rendered_template"]).to_pylist()}
    pages = []
    for part in sorted((data / "web_zh_raw").glob("part-*.jsonl.zst")):
        with part.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as stream:
            for line in io.TextIOWrapper(stream, encoding="utf-8"):
                record = json.loads(line)
                if record["doc_id"] in gold:
                    pages.append(Labelled(record["html"], gold[record["doc_id"]]))
    return pages[::every]


def grams(text: str) -> Counter[str]:
    """How often each run of GRAM letters occurs, punctuation and spaces left out."""
    letters = _NO_LETTERS.sub("", text)
    return Counter(letters[i : i + GRAM] for i in range(max(len(letters) - GRAM + 1, min(len(letters), 1))))


def score(gold: str, found: str) -> tuple[float, float, float]:
    """Precision, recall and F1, each 0 to 1."""
    wanted, got = grams(gold), grams(found)
    common = (wanted & got).total()
    precision, recall = common / max(got.total(), 1), common / max(wanted.total(), 1)
    return precision, recall, 2 * precision * recall / (precision + recall) if common else 0.0


def scores(pages: Iterable[Labelled], extractor: Callable[[str], str]) -> tuple[float, ...]:
    """Mean precision, recall and F1 over pages."""
    return tuple(map(mean, zip(*(score(page.gold, extractor(page.html)) for page in pages), strict=True)))


def bare_resiliparse(page: str) -> str:
    """The library call that speed is compared with."""
    return extract_plain_text(page, main_content=True)


def without_rules(page: str) -> str:
    """The stretches alone: what the Chinese rules start from."""
    return "\n".join(
        blocks.body(extract_plain_text(page, skip_elements=main_content.SKIPPED, **main_content.REDUCED))[0]
    )


EXTRACTORS: dict[str, Callable[[str], str]] = {
    "resiliparse, bare": bare_resiliparse,
    "resiliparse + our rules": lambda page: main_content.extract(page, engine="resiliparse").text,
    "trafilatura, bare": lambda page: trafilatura.extract(page, include_comments=False, fast=True) or "",
    "trafilatura + our rules": lambda page: main_content.extract(page, engine="trafilatura").text,
    "stretches, no rules": without_rules,
    "stretches (default)": lambda page: main_content.extract(page).text,
}


def raw_table(pages: list[bytes]) -> pa.Table:
    """Pages as the stage receives them."""
    n = len(pages)
    given = {"id": [str(i) for i in range(n)], "raw": pages, "content_type": ["text/html"] * n}
    columns = [
        pa.array(given[f.name], f.type) if f.name in given else pa.nulls(n, f.type) for f in schema.RAW
    ]
    return schema.working(pa.table(columns, schema=schema.RAW), "bench")


def fastest(contestants: list[Callable[[], object]]) -> list[float]:
    """Seconds of processor time of each, the least of ROUNDS runs in turn."""
    best = [float("inf")] * len(contestants)
    for _ in range(ROUNDS):
        for i, contestant in enumerate(contestants):
            start = time.process_time()
            contestant()
            best[i] = min(best[i], time.process_time() - start)
    return best


def speeds(pages: list[tuple[bytes, str]]) -> list[float]:
    """MB/s of HTML on one core: resiliparse and ours on decoded pages, resiliparse and our stage on bytes.

    The bare loop over bytes is told that a page is in UTF-8 or GB18030; the stage has to find out.
    """
    total = [0.0] * 4
    for start in range(0, len(pages), BATCH):
        batch = pages[start : start + BATCH]
        total = [a + b for a, b in zip(total, fastest(_contestants(batch)), strict=True)]
    megabytes = sum(len(raw) for raw, _ in pages) / 1e6
    return [megabytes / seconds for seconds in total]


def _contestants(batch: list[tuple[bytes, str]]) -> list[Callable[[], object]]:
    texts = [text for _, text in batch]
    table = raw_table([raw for raw, _ in batch])
    known = [(raw, "utf-8" if raw == text.encode() else "gb18030") for raw, text in batch]
    return [
        lambda: [bare_resiliparse(text) for text in texts],
        lambda: [main_content.extract(text) for text in texts],
        lambda: [bare_resiliparse(raw.decode(name, "replace")) for raw, name in known],
        lambda: stage(table),
    ]


def real_bytes(data: Path, every: int) -> list[tuple[bytes, str]]:
    """Real HTML pages as bytes and as text, each `every`-th, with or without gold."""
    rows = pq.read_table(
        data / "html_zh" / "pages.parquet", columns=["raw", "actual_charset", "content_type"]
    )
    pages = [r for r in rows.to_pylist() if r["content_type"] == "text/html"][::every]
    return [(r["raw"], r["raw"].decode(r["actual_charset"], "replace")) for r in pages]


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[1] / ".." / "shared" / "data")
    parser.add_argument(
        "--every", type=int, default=3, help="of the rendered and of the timed pages take each n-th"
    )
    options = parser.parse_args()
    if not (options.data / "html_zh" / "pages.parquet").exists():
        print(f"no labelled pages at {options.data}: nothing to measure (give --data)")
        return
    labelled = real(options.data)
    templates = rendered(options.data, options.every)
    sets = {
        "real": labelled,
        "real*": [Labelled(page.html, _RELATED_LINK.sub("", page.gold)) for page in labelled],
        "rendered": templates,
    }
    print(f"{'':26}" + "".join(f"{f'{name} ({len(pages)})':^25}" for name, pages in sets.items()))
    print(f"{'':26}" + "   P       R       F1    " * len(sets))
    for name, extractor in EXTRACTORS.items():
        cells = [
            f"{p:.4f}  {r:.4f}  {f:.4f}   "
            for p, r, f in (scores(pages, extractor) for pages in sets.values())
        ]
        print(f"{name:26}" + "".join(cells), flush=True)
    timed = {
        "real pages": real_bytes(options.data, options.every),
        "rendered (2 kB each)": [(page.html.encode(), page.html) for page in templates[:: options.every]],
    }
    for name, pages in timed.items():
        bare, ours, bare_bytes, staged = speeds(pages)
        print(
            f"{name}: bare resiliparse {bare:.1f} MB/s, extract {ours:.1f} ({ours / bare:.2f} of it); ",
            end="",
        )
        print(f"from bytes: bare {bare_bytes:.1f} MB/s, stage {staged:.1f} ({staged / bare_bytes:.2f} of it)")


if __name__ == "__main__":
    main()
