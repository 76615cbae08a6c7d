"""Precision, recall and F1 of near-duplicate removal on Chinese pages whose twins are known.

    PYTHONPATH=. python benchmarks/dedup_accuracy.py twins   ../shared/data/web_zh_raw
    PYTHONPATH=. python benchmarks/dedup_accuracy.py planted ../shared/data/web_zh_raw
    PYTHONPATH=. python benchmarks/dedup_accuracy.py passes  ../shared/data/web_zh_raw
    PYTHONPATH=. python benchmarks/dedup_accuracy.py curve   ../shared/data/web_zh_raw

`twins` makes twins of real pages, one kind at a time, and asks each method for the pairs: a pair of a page
and its own twin is right, any other is wrong. The kind `template` has no twins: other pages inside one frame
with other numbers. `planted` is the truth table of a raw crawl: F1 over the pairs of documents of planted
families (original, copies, edits), and which pages are lost that the table calls clean and no copy of
anything. `passes` asks the same of zh_web.yaml on two workers of Ray, from a file to shards, of the pages
that come through its stages to its passes. `curve` is `planted` for other bands and bounds.

But for `passes` everything runs in memory in one process; the kernels are those that the passes call.
Synthetic noise (lorem ipsum, one notice a hundred times) is left out: it repeats itself, and the table does
not pair it.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import opencc
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import zstandard

from benchmarks.dedup_methods import MAP_CC, METHODS, ZH_WEB, Find, Near, best_first
from ctllm_ray.base import recipe as recipes
from ctllm_ray.corpus import documents, pipeline
from ctllm_ray.shards import manifest
from ctllm_ray.text.dedup import survivors
from ctllm_ray.text.dedup.bands import Pairs
from ctllm_ray.text.dedup.components import components
from ctllm_ray.text.dedup.digests import digests, first_rows
from ctllm_ray.text.dedup.fold import fold
from ctllm_ray.text.dedup.text_similarity import jaccard, own
from ctllm_ray.text.html.main_content import extract

# ---- twins of real pages

TO_SIMPLIFIED, TO_TRADITIONAL = opencc.OpenCC("t2s"), opencc.OpenCC("s2tw")
HAN = re.compile(r"[一-鿿]")
SENTENCE = re.compile(r"[^。！？\n]*[。！？\n]?")
HEAD = "首页 > 新闻 > 正文\n来源：本站 作者：佚名 发布时间：2021-03-0{} 点击：{}次 字号：大 中 小 打印本页 关闭窗口\n"
FOOT = (
    "\n责任编辑：admin 免责声明：本站内容仅供参考。Copyright © 2008-202{} 版权所有 京ICP备{}号\n上一篇 下一篇"
)


def _swapped(text: str) -> str:
    simplified = TO_SIMPLIFIED.convert(text)
    return simplified if simplified != text else TO_TRADITIONAL.convert(text)


def _framed(text: str, rng: random.Random) -> str:
    return (
        HEAD.format(rng.randrange(10), rng.randrange(10**4))
        + text
        + FOOT.format(rng.randrange(3), rng.randrange(10**7))
    )


def _changed(share: float) -> Callable[[str, random.Random, list[str]], str]:
    """The page with a share of its sentences replaced by sentences of other pages."""

    def change(text: str, rng: random.Random, pool: list[str]) -> str:
        said = [s for s in SENTENCE.findall(text) if s]
        for i in rng.sample(range(len(said)), max(1, round(share * len(said)))):
            said[i] = rng.choice(pool)
        return "".join(said)

    return change


def _shuffled(text: str, rng: random.Random, _: list[str]) -> str:
    parts = [s for s in re.split(r"(?<=[。！？\n])", text) if s]
    size = max(1, len(parts) // 6)
    blocks = ["".join(parts[i : i + size]) for i in range(0, len(parts), size)]
    rng.shuffle(blocks)
    return "\n".join(blocks)


KINDS: dict[str, Callable[[str, random.Random, list[str]], str]] = {
    "script swap": lambda text, *_: _swapped(text),
    "width": lambda text, *_: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text),
    "re-punctuated": lambda text, rng, _: re.sub(
        r"[，。、；：！？\s]", lambda m: rng.choice(["，", " ", "。", "……", "\n"]), text
    ),
    "header, footer": lambda text, rng, _: _framed(text, rng),
    "paragraphs shuffled": _shuffled,
    "sentences 5 %": _changed(0.05),
    "sentences 10 %": _changed(0.10),
    "sentences 20 %": _changed(0.20),
    "sentences 40 %": _changed(0.40),
    "characters 10 %": lambda text, rng, pool: HAN.sub(
        lambda m: rng.choice(HAN.findall(rng.choice(pool)) or [m[0]]) if rng.random() < 0.1 else m[0], text
    ),
    "cut to 70 %": lambda text, *_: text[: int(0.7 * len(text))],
    "other numbers": lambda text, rng, _: re.sub(r"\d", lambda m: str(rng.randrange(10)), text),
}


def twins(folder: Path, count: int) -> None:
    """Prints a table for each kind of twin: precision, recall and F1 of each method."""
    pages, _ = _pages(folder)
    rng = random.Random(7)
    clean = [p["text"] for p in pages if p["kind"] in {"clean", "traditional"} and p["lone"]]
    originals = rng.sample(
        [t for t in clean if 300 <= len(t) <= 3000 and len(SENTENCE.findall(t)) > 8], count
    )
    pool = [s for text in rng.sample(clean, 3000) for s in SENTENCE.findall(text) if 10 <= len(s) <= 60]
    short = [t for t in clean if 60 <= len(t) <= 160]
    print("| kind | " + " | ".join(METHODS) + " |\n|---|" + "---:|" * len(METHODS))
    for kind, make in KINDS.items():
        made = [make(text, rng, pool) for text in originals]
        print(
            f"| {kind} | "
            + " | ".join(_twin_score(find, originals, made) for find in METHODS.values())
            + " |",
            flush=True,
        )
    framed = [_framed(text, rng) for text in rng.sample(short, min(count, len(short)))]
    wrong = [len(set(find(pa.array(framed)).right.tolist())) for find in METHODS.values()]
    print("| template: pages wrongly lost | " + " | ".join(f"{w} of {len(framed)}" for w in wrong) + " |")


def _twin_score(find: Find, originals: list[str], made: list[str]) -> str:
    pairs = find(pa.array(originals + made))
    right = int((pairs.right - pairs.left == len(originals)).sum())
    precision, recall = right / max(len(pairs.left), 1), right / len(originals)
    return f"{precision:.3f} / {recall:.3f} / {2 * right / (len(pairs.left) + len(originals)):.3f}"


# ---- the planted truth of a raw crawl


def _pages(folder: Path) -> tuple[list[dict], dict[tuple[int, int], float]]:
    """Rows of the truth table with `text`, `family` and `lone`; and the Jaccard of families nobody planted,
    by pair."""
    texts = dict(_texts(folder))
    pages = [
        page
        for page in pq.read_table(folder / "truth.parquet").to_pylist()
        if page["subkind"] != "synthetic_noise"
    ]
    row = {page["doc_id"]: i for i, page in enumerate(pages)}
    copies = [(row[p["dup_of"]], i) for i, p in enumerate(pages) if p["dup_of"] in row]
    members, roots = components(*np.array(copies).T)
    family = np.arange(len(pages))
    family[members] = roots
    natural: dict[tuple[int, int], float] = defaultdict(float)
    for pair in pq.read_table(folder / "natural_near_dups.parquet").to_pylist():
        if pair["doc_a"] in row and pair["doc_b"] in row:
            a, b = sorted(int(family[row[pair[name]]]) for name in ("doc_a", "doc_b"))
            natural[a, b] = max(natural[a, b], pair["jaccard5"])
    near = {f for pair in natural for f in pair}
    sizes = np.bincount(family, minlength=len(pages))
    for i, page in enumerate(pages):
        root = int(family[i])
        page |= {"text": texts[page["doc_id"]], "family": root, "lone": sizes[root] == 1 and root not in near}
    return pages, natural


def _texts(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.glob("part-*.jsonl.zst")):
        with path.open("rb") as packed:
            for line in io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(packed), "utf-8"):
                record = json.loads(line)
                raw = record.get("raw_content")
                yield record["doc_id"], extract(record["html"]).text if raw is None else raw


class Planted:
    """The crawl, its families, and how well a method finds them."""

    def __init__(self, folder: Path) -> None:
        self.pages, self.natural = _pages(folder)
        self.texts = pa.array([page["text"] for page in self.pages])
        self.family = np.array([page["family"] for page in self.pages])
        self.folded = fold(self.texts)
        chars = pc.utf8_length(self.folded)
        ids = pa.array([page["doc_id"] for page in self.pages])
        values = {"complete": survivors.complete(self.texts), "clutter": survivors.clutter(self.texts)}
        table = pa.table(values | {"chars": chars, "id": ids})
        order = tuple(p for p in survivors.ORDER if p[0] in table.column_names)
        self.ranks = survivors.ranks(table, order)
        bare = first_rows(digests(pc.replace_substring_regex(self.texts, r"\s+", "")))
        best = survivors.of_components(bare, self.ranks)
        goes = np.flatnonzero(best != np.arange(len(best)))
        self.copies = Pairs(best[goes], goes)

    def survivors(self, find: Find, chains: bool = False) -> np.ndarray:
        """The survivor of each page by a method, and exact copies; of other methods and `chains`, of a
        component."""
        near = best_first(find, self.texts, self.ranks)
        left, right = (np.concatenate(both) for both in zip(self.copies, near, strict=True))
        if isinstance(find, Near) and not chains:
            return survivors.of_neighbours(left, right, self.ranks, partial(find.are_copies, self.texts))
        label = np.arange(len(self.pages))
        members, roots = components(left, right)
        label[members] = roots
        return survivors.of_components(label, self.ranks)

    def score(self, stays: np.ndarray) -> str:
        """F1, precision and recall over pairs of planted families, and the clean pages lost to another
        family."""
        planted = np.bincount(self.family, minlength=len(stays))[self.family] > 1
        found, want = _pairs_in(stays[planted]), _pairs_in(self.family[planted])
        right = _pairs_in(stays[planted] * len(stays) + self.family[planted])
        lost = self.lost(stays)
        return f"{2 * right / (found + want):.4f} | {right / found:.4f} | {right / want:.4f} | " + " | ".join(
            str(lost[name]) for name in LOST
        )

    def lost(self, stays: np.ndarray) -> Counter[str]:
        """Families of clean pages of which nothing stays, by how like the page is for which they went."""
        rows = np.arange(len(stays))
        gone = {int(f) for f in self.family} - {int(f) for f in self.family[stays == rows]}
        first = [i for i in rows if self.family[i] in gone and self.family[i] != self.family[stays[i]]]
        clean = [i for i in first if self.pages[i]["kind"] in {"clean", "traditional"}]
        left, right = stays[clean], np.array(clean, np.int64)
        alike = jaccard(self.folded, left, right, shingle_chars=5)
        share, _ = own(self.folded, left, right, shingle_chars=3)
        names = {}
        for a, b, j, s in zip(left, right, alike, share, strict=True):
            one, other = sorted((int(self.family[a]), int(self.family[b])))
            listed = self.natural.get((one, other), 0.0)
            names[int(self.family[b])] = LOST[_place(listed, j, s)]
        self.others = [
            (int(a), int(b))
            for a, b in zip(left, right, strict=True)
            if names[int(self.family[b])] == LOST[-1]
        ]
        return Counter(names.values())


LOST = ("listed >= 0.8", "listed >= 0.5", "folded Jaccard >= 0.8", "nothing of its own", "else")
HEADING = "| method | F1 | precision | recall | lost: " + " | lost: ".join(LOST) + " |\n|---|" + "---:|" * 8


def _place(listed: float, alike: float, alone: float) -> int:
    """Which of LOST a lost page belongs to."""
    tests = (listed >= 0.8, listed > 0, alike >= 0.8, alone <= 0.01)
    return next((i for i, true in enumerate(tests) if true), len(tests))


def _pairs_in(labels: np.ndarray) -> int:
    """Pairs of rows with the same label."""
    _, counts = np.unique(labels, return_counts=True)
    return int((counts * (counts - 1) // 2).sum())


def planted(folder: Path, show: int) -> None:
    """Prints how each method does on the planted families."""
    crawl = Planted(folder)
    print(f"{len(crawl.pages)} pages, {_pairs_in(crawl.family)} pairs in planted families\n\n{HEADING}")
    none = Pairs(np.array([], np.int64), np.array([], np.int64))
    print(f"| exact copies only | {crawl.score(crawl.survivors(lambda _: none))} |")
    for name, find in METHODS.items():
        print(f"| {name} | {crawl.score(crawl.survivors(find, chains=find is MAP_CC))} |", flush=True)
    crawl.lost(crawl.survivors(ZH_WEB))
    for a, b in crawl.others[:show]:
        print(f"\nlost: {crawl.texts[b].as_py()[:300]!r}\n stays: {crawl.texts[a].as_py()[:300]!r}")


def passes(folder: Path) -> None:
    """Prints how the recipe does on the planted families, among the pages that come through its stages."""
    crawl = Planted(folder)
    with tempfile.TemporaryDirectory() as made:
        lines = [json.dumps({"url": str(i), "text": text}) for i, text in enumerate(crawl.texts.to_pylist())]
        (Path(made) / "pages.jsonl").write_text("\n".join(lines), encoding="utf-8")
        recipe = _recipe(made)
        pipeline.prepare(recipe)
        stays = _survivors_of(recipe, len(lines))
    cleaned = stays < 0
    alone = np.arange(len(stays))
    crawl.family = np.where(
        cleaned, len(stays) + alone, crawl.family
    )  # a page that went before is nobody's twin
    stays = np.where(cleaned, alone, stays)
    print(f"{(~cleaned).sum()} pages, {_pairs_in(crawl.family)} pairs in planted families\n\n{HEADING}")
    print(f"| zh_web.yaml on Ray | {crawl.score(stays)} |")


def _recipe(folder: str) -> recipes.Recipe:
    """The stages of zh_web.yaml and its passes that find copies, over the pages."""
    inputs = f'data.inputs=[{{use: jsonl, path: "{folder}/pages.jsonl"}}]'
    overrides = [inputs, "data.split_mb=8", f"root={folder}/out", "resources.workers=2"]
    zh_web = recipes.load_recipe("jobs/recipes/zh_web.yaml", overrides)
    found = tuple(part for part in zh_web.passes if part.use in ("exact", "near"))
    return zh_web.model_copy(update={"passes": found})


def _survivors_of(recipe: recipes.Recipe, count: int) -> np.ndarray:
    """The page that each of so many pages went for, or the page itself, by URLs; -1 where it did not come so
    far."""
    folder = recipe.folder(recipe.corpus)
    found = documents.parts(folder, manifest.read_manifest(folder))
    tables = [table for kind in ("kept", "rejected") for table in documents.tables(found, kind)]
    rows = {
        row["id"]: row
        for table in tables
        for row in table.select(["id", "url", "labels", "reject"]).to_pylist()
    }
    stays = np.full(count, -1)
    for row in rows.values():
        last = row
        while survivor := last["labels"].get("near.survivor") or last["labels"].get("exact.survivor"):
            last = rows[survivor]
        stays[int(row["url"])] = -1 if last["reject"] else int(last["url"])
    return stays


def curve(folder: Path) -> None:
    """Prints what other bands and other bounds would do."""
    crawl = Planted(folder)
    print(HEADING)
    print(f"| zh_web | {crawl.score(crawl.survivors(ZH_WEB))} |", flush=True)
    for name, changes in [
        *(
            (f"{b} bands of {r}", {"bands": b, "rows": r})
            for b, r in ((42, 3), (25, 5), (21, 6), (16, 8), (14, 9))
        ),
        *((f"{n}-character shingles", {"shingle_chars": n}) for n in (3, 4, 7, 9)),
        *(
            (
                f"Jaccard >= {j}",
                {"min_jaccard": j, "slips_jaccard": max(j - 0.15, 0.35), "min_agreement": j - 0.15},
            )
            for j in (0.4, 0.45, 0.55, 0.6, 0.7, 0.8)
        ),
        *((f"sure from Jaccard {j}", {"sure_jaccard": j}) for j in (0.65, 0.7, 0.75, 0.85, 1.01)),
        *((f"own share <= {s}", {"max_own_share": s}) for s in (0.02, 0.04, 0.06, 0.1, 0.12)),
        *((f"own stretch <= {n}", {"max_own_run": n}) for n in (4, 8, 12, 10**6)),
        ("no slips", {"max_edit_share": 0.0}),
        *(
            (f"slips from Jaccard {j}", {"slips_jaccard": j, "min_agreement": j})
            for j in (0.25, 0.3, 0.4, 0.5)
        ),
        *((f"edits <= {s}", {"max_edit_share": s}) for s in (0.06, 0.09, 0.15, 0.2)),
        *((f"edits in stretches of <= {n}", {"max_edit_run": n}) for n in (2, 3, 6, 10)),
        *((f"folded texts of >= {n}", {"min_chars": n}) for n in (20, 40, 80, 100)),
        *((f"reach {n}", {"reach": n}) for n in (1, 2, 4, 30)),
    ]:
        find = replace(ZH_WEB, **changes)  # type: ignore[arg-type]
        print(f"| {name} | {crawl.score(crawl.survivors(find))} |", flush=True)
    print(f"| whole components | {crawl.score(crawl.survivors(ZH_WEB, chains=True))} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["twins", "planted", "passes", "curve"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=500, help="pages that get twins")
    parser.add_argument("--show", type=int, default=0, help="lost pages to print")
    given = parser.parse_args()
    if given.what == "twins":
        twins(given.folder, given.count)
    elif given.what == "planted":
        planted(given.folder, given.show)
    elif given.what == "passes":
        passes(given.folder)
    else:
        curve(given.folder)


if __name__ == "__main__":
    main()
