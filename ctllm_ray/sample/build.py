"""Builds the sample from its texts: `python -m
ctllm_ray.sample.build [FOLDER]`, deterministic, in two seconds.

Every clean text is used once: as a text record, as an HTML page, or as the carrier of a defect. Some
text records are copied, each by one edit; some stand a second time as HTML. Every random choice is
seeded by the key of the text it is about, so the same texts make the same bytes anywhere (given the
pinned OpenCC and zstandard).
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import zstandard

from ctllm_ray.sample import FOLDER
from ctllm_ray.sample.writers import copies, damage, exam, rubbish, stock, talks, web
from ctllm_ray.sample.writers.page import SamplePage, clean_page, copied_page, damaged_page, unwanted_page
from ctllm_ray.sample.writers.stock import Text
from ctllm_ray.sample.writers.talks import Talk

#: Pages of each kind of rubbish, and copies by each edit.
RUBBISH_PAGES, COPIES = 3, 7
#: One clean text in so many carries a defect; one in so many is an HTML page; the rest are text records.
CARRIER_EVERY, WEB_EVERY = 5, 3
#: Genres with too few or too short texts to carry defects.
_SPARED = {"english", "japanese", "mixed", "poetry"}
#: Minimum characters of copied text records: dropping a sentence must leave something.
COPIED_MIN_CHARS = 250
#: Copies that are HTML pages of a text record; and spam that is HTML.
WEB_COPIES, WEB_SPAM = 6, 6


def build(folder: Path) -> None:
    """Writes the built files into a folder."""
    records, sites = layout()
    lines = [_line(_record(f"sample-{i:04d}", page)) for i, page in enumerate(records)]
    truth = [page.truth("pages.jsonl.zst", "utf-8") for page in records]
    truth += [
        page.truth("pages.warc.gz", e.codec) for page, e in zip(sites, web.encodings(sites), strict=True)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pages.jsonl.zst").write_bytes(_compress(lines))
    (folder / "pages.warc.gz").write_bytes(web.archive(sites))
    (folder / "truth.jsonl").write_text("".join(map(_line, truth)), encoding="utf-8")
    for name, rows in (_talks() | {"exam.jsonl.zst": list(exam.rows())}).items():
        (folder / name).write_bytes(_compress([_line(row) for row in rows]))


def _talks() -> dict[str, list[dict[str, Any]]]:
    """The conversation files, each in another source format, and the pairs of all of them."""
    chinese, english, drawn = talks.read_talks("chinese"), talks.read_talks("english"), talks.drawn_chinese()
    english += talks.drawn_english()
    return {
        "talks.jsonl.zst": [{"messages": talk.messages} for talk in chinese],
        "talks_en.jsonl.zst": [_sharegpt(talk) for talk in english],
        "instructions.jsonl.zst": [
            {"instruction": talk.turns[0][1], "input": "", "output": talk.turns[1][1]}
            for talk in _shuffled_talks(drawn)
        ],
        "pairs.jsonl.zst": [
            _pair(talk) for talk in _shuffled_talks([*chinese, *english, *drawn]) if talk.worse
        ],
    }


def _sharegpt(talk: Talk) -> dict[str, Any]:
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    return {"conversations": [{"from": names[role], "value": content} for role, content in talk.turns]}


def _pair(talk: Talk) -> dict[str, Any]:
    chosen = talk.messages[-1]["content"]
    return {"prompt": talk.messages[:-1], "chosen": chosen, "rejected": talk.worse, "defect": talk.defect}


def _shuffled_talks(talks: list[Talk]) -> list[Talk]:
    return sorted(talks, key=lambda talk: random.Random(str(talk.turns)).random())


def _compress(lines: list[str]) -> bytes:
    return zstandard.ZstdCompressor(level=19).compress("".join(lines).encode())


def layout() -> tuple[list[SamplePage], list[SamplePage]]:
    """The text records and the HTML pages, each shuffled by url."""
    texts = stock.clean_texts()
    carriers = [t for t in texts if t.number % CARRIER_EVERY == 0 and t.kind not in _SPARED]
    published = [t for t in texts if t not in carriers]
    sites = [clean_page(t) for t in published if t.number % WEB_EVERY == 1]
    recorded = [t for t in published if t.number % WEB_EVERY != 1]
    spam = [unwanted_page(i, t.title, t.body, t.kind) for i, t in enumerate(stock.unwanted_texts())]
    records = [clean_page(t) for t in recorded]
    records += [*_copies(recorded), *_damage_texts(carriers), *spam[WEB_SPAM:], *_rubbish()]
    return sorted(records, key=_mix_key), sorted(
        [*sites, *spam[:WEB_SPAM], *_republish(recorded)], key=_mix_key
    )


def _copies(texts: list[Text]) -> Iterator[SamplePage]:
    """Copies of the longer text records, the edits in turn."""
    longer = [t for t in texts if len(t.body) >= COPIED_MIN_CHARS and t.kind not in _SPARED]
    chosen = sorted(longer, key=_shuffle_key)[: COPIES * len(copies.EDITS)]
    for i, text in enumerate(chosen):
        name, edit = list(copies.EDITS.items())[i % len(copies.EDITS)]
        yield copied_page(clean_page(text), text, name, edit(text.body, random.Random(f"{name} {text.key}")))


def _republish(texts: list[Text]) -> Iterator[SamplePage]:
    """Text records that are also HTML pages on another host."""
    for text in sorted(texts, key=_shuffle_key)[-WEB_COPIES:]:
        yield copied_page(clean_page(text), text, "as_html", text.body)


def _damage_texts(texts: list[Text]) -> Iterator[SamplePage]:
    """Every carrier with one defect, in turn; Big5 mojibake goes to Traditional texts only."""
    others = cycle(name for name in damage.DEFECTS if name != "mojibake_big5_as_gbk")
    for text in sorted(texts, key=_shuffle_key):
        name = "mojibake_big5_as_gbk" if text.kind == "traditional" else next(others)
        yield damaged_page(text, name, damage.DEFECTS[name](text.body, random.Random(text.key)))


def _rubbish() -> Iterator[SamplePage]:
    for i in range(RUBBISH_PAGES):
        for j, (name, make) in enumerate(rubbish.KINDS.items()):
            title, text = make(random.Random(f"{name} {i}"))
            yield unwanted_page(100 + 10 * j + i, title, text, name)


def _shuffle_key(text: Text) -> float:
    return random.Random(text.key).random()


def _mix_key(page: SamplePage) -> float:
    return random.Random(page.url).random()


def _record(name: str, page: SamplePage) -> dict[str, str | None]:
    return {"id": name, "url": page.url, "date": page.date, "title": page.title, "text": page.text}


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    build(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
