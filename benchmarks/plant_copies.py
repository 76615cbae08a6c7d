"""Makes a crawl with known copies of real texts that another one does not hold, for `dedup_accuracy.py
planted`.

    PYTHONPATH=. python benchmarks/plant_copies.py ../shared/data/text --not-in ../shared/data/web_zh_raw --to planted
    PYTHONPATH=. python benchmarks/dedup_accuracy.py planted planted

Bounds that were chosen on one crawl say little about themselves there; here is another. Up to `--of-a-kind`
texts of each kind, long ones cut to whole lines of 600 to 3,500 characters; every third Chinese one of 120 to
8,000 characters gets one or two copies by one of the operations below. Written as web_zh_raw is: pages, a
truth table, and the pairs that nobody planted with a Jaccard similarity of 0.5 and more (5-character shingles
without white space).
"""

from __future__ import annotations

import argparse
import io
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import opencc
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from benchmarks.dedup_accuracy import HAN, SENTENCE
from benchmarks.dedup_methods import Near
from ctllm_ray.text.dedup.text_similarity import jaccard

Page = dict[str, Any]
ADVERTS = (
    "更多精彩内容请关注微信公众号",
    "点击下方链接领取优惠券",
    "扫码下载客户端，新用户立减",
    "本文来自网友投稿",
)
LISTED = Near(
    False, 5, 42, 3, 10**9, 40, 0.35, 0.5, 0.5
)  # what nobody planted: any pair that meets, from 0.5 on


def _sentences(text: str) -> list[str]:
    return [sentence for sentence in SENTENCE.findall(text) if sentence]


class Operations:
    """What is done to a text to make a copy of it, by name; the names are those of web_zh_raw."""

    def __init__(self, rng: random.Random, characters: str) -> None:
        self._rng, self._characters = rng, characters
        to_traditional = opencc.OpenCC("s2t")
        self.by_name: dict[str, Callable[[str], str]] = {
            **{f"char_sub_{n}": lambda text, n=n: self._changed(text, n / 100) for n in (1, 3, 5, 10)},  # type: ignore[misc]
            "char_del_3": lambda text: self._changed(text, 0.03, deleted=True),
            "sent_drop": self._dropped,
            "sent_shuffle": self._shuffled,
            "boiler_head_tail": self._framed,
            "truncate": lambda text: text[: int(len(text) * rng.uniform(0.55, 0.9))],
            "numbers": lambda text: re.sub(r"\d", lambda _: str(rng.randrange(10)), text),
            "ad_insert": self._advertised,
            "whitespace_width": self._widened,
            "script_convert": to_traditional.convert,
        }

    def _changed(self, text: str, share: float, deleted: bool = False) -> str:
        places = [found.start() for found in HAN.finditer(text)]
        chosen = set(self._rng.sample(places, round(len(places) * share)))
        other = (lambda: "") if deleted else (lambda: self._rng.choice(self._characters))
        return "".join(other() if i in chosen else c for i, c in enumerate(text))

    def _dropped(self, text: str) -> str:
        said = _sentences(text)
        share = self._rng.uniform(0.05, 0.3)
        gone = set(self._rng.sample(range(len(said)), min(max(1, round(len(said) * share)), len(said) - 1)))
        return "".join(sentence for i, sentence in enumerate(said) if i not in gone)

    def _shuffled(self, text: str) -> str:
        said = _sentences(text)
        for _ in range(max(1, len(said) // 10)):
            i, j = self._rng.randrange(len(said)), self._rng.randrange(len(said))
            said[i], said[j] = said[j], said[i]
        return "".join(said)

    def _framed(self, text: str) -> str:
        head = f"首页 > 资讯 > 正文\n发布时间：20{self._rng.randint(10, 23)}-0{self._rng.randint(1, 9)} 来源：网络\n"
        return f"{head}{text}\n上一篇 下一篇\n版权所有 京ICP备{self._rng.randrange(10**7)}号"

    def _advertised(self, text: str) -> str:
        said = _sentences(text)
        for _ in range(self._rng.randint(1, 3)):
            advert = f"{self._rng.choice(ADVERTS)}{self._rng.randrange(10**5)}。"
            said.insert(self._rng.randrange(len(said) + 1), advert)
        return "".join(said)

    def _widened(self, text: str) -> str:
        spaced = re.sub("([，。])", lambda found: found[1] + self._rng.choice(["", " ", "\u3000"]), text)
        wide = (chr(ord(c) + 0xFEE0) if "!" <= c <= "~" and self._rng.random() < 0.8 else c for c in spaced)
        return "".join(wide)


def originals(folder: Path, known: set[str], of_a_kind: int, rng: random.Random) -> Iterator[Page]:
    """Texts that are neither code nor English nor empty nor known, in random order."""
    found = [record for path in sorted(folder.glob("*.jsonl.zst")) for record in _records(path)]
    found = [record for record in found if record["text"].strip() and record["lang"] in ("zh", "zh-Hant")]
    rng.shuffle(found)
    counts: Counter[str] = Counter()
    for record in found:
        counted = counts[record["kind"]]
        if record["id"] not in known and counted < of_a_kind:
            counts[record["kind"]] += 1
            yield {
                "raw_content": _cut(record["text"], rng),
                "kind": "traditional" if record["lang"] == "zh-Hant" else "clean",
                "dup_of": None,
                "dup_op": None,
                "subkind": record["kind"],
                "source_id": record["id"],
            }


def _records(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as packed:
        for line in io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(packed), "utf-8"):
            yield json.loads(line)


def _cut(text: str, rng: random.Random) -> str:
    """The text, or whole lines of a long one."""
    if len(text) <= 3500:
        return text.strip()
    lines, size, taken = text.split("\n"), rng.randint(600, 3500), ""
    for line in lines[rng.randrange(max(1, len(lines) - 3)) :]:
        if taken and len(taken) + len(line) > size:
            break
        taken += line + "\n"
    return taken[:8000].strip()


def planted(pages: list[Page], rng: random.Random) -> Iterator[Page]:
    """Copies of a third of those pages that are fit for it."""
    characters = "".join(HAN.findall("".join(page["raw_content"] for page in rng.sample(pages, 500))))
    operations = Operations(rng, characters).by_name
    fit = [
        page
        for page in pages
        if 120 <= len(page["raw_content"]) <= 8000 and not page["dup_of"] and _chinese(page)
    ]
    for page in rng.sample(fit, len(fit) // 3):
        for _ in range(rng.choice((1, 1, 1, 2))):
            operation = rng.choice(list(operations))
            text = operations[operation](page["raw_content"])
            yield page | {
                "raw_content": text,
                "kind": "near_dup_of",
                "dup_of": page["doc_id"],
                "dup_op": operation,
            }


def _chinese(page: Page) -> bool:
    return len(HAN.findall(page["raw_content"])) > 0.3 * len(page["raw_content"])


def _bare(page: Page) -> str:
    return re.sub(r"\s+", "", page["raw_content"])


def _pair_up(pages: list[Page]) -> None:
    """Marks what is equal without white space to an earlier page."""
    first: dict[str, str] = {}
    for page in pages:
        if (same := first.setdefault(_bare(page), page["doc_id"])) != page["doc_id"]:
            page |= {"kind": "exact_dup_of", "dup_of": same, "dup_op": "natural"}


def _natural(pages: list[Page]) -> pa.Table:
    """The pairs of pages that are alike without being copies by the table."""
    lone = [page for page in pages if not page["dup_of"]]
    texts = pa.array([_bare(page) for page in lone])
    left, right = LISTED(texts)
    ids = pa.array([page["doc_id"] for page in lone])
    alike = jaccard(texts, left, right, shingle_chars=5)
    return pa.table(
        {"doc_a": ids.take(pa.array(left)), "doc_b": ids.take(pa.array(right)), "jaccard5": alike}
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("texts", type=Path, help="folder of .jsonl.zst files: id, text, lang, kind")
    parser.add_argument(
        "--not-in", type=Path, required=True, help="a crawl: texts that it holds are left out"
    )
    parser.add_argument("--to", type=Path, required=True, help="the folder to make")
    parser.add_argument("--of-a-kind", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=5)
    given = parser.parse_args()
    rng = random.Random(given.seed)
    known = set(pq.read_table(given.not_in / "truth.parquet", columns=["source_id"])["source_id"].to_pylist())
    pages = list(originals(given.texts, known, given.of_a_kind, rng))
    for number, page in enumerate(pages):
        page["doc_id"] = f"o{number:06d}"
    _pair_up(pages)
    copies = list(planted(pages, rng))
    for number, page in enumerate(copies):
        page["doc_id"] = f"c{number:06d}"
    given.to.mkdir(parents=True)
    pq.write_table(_natural(pages), given.to / "natural_near_dups.parquet")
    pages += copies
    rng.shuffle(pages)
    lines = [
        json.dumps({"doc_id": page["doc_id"], "raw_content": page.pop("raw_content")}) + "\n"
        for page in pages
    ]
    (given.to / "part-000.jsonl.zst").write_bytes(zstandard.compress("".join(lines).encode()))
    pq.write_table(pa.Table.from_pylist(pages), given.to / "truth.parquet")
    print(f"{len(pages)} pages, {len(copies)} planted copies, in {given.to}")


if __name__ == "__main__":
    main()
