"""The report page: its numbers are the manifest's, hostile text stays text, and a real browser can show
it."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import struct
import subprocess
import zlib
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ctllm_ray.base.errors import NotFound
from ctllm_ray.corpus.report import histograms, render
from ctllm_ray.corpus.report.collect import EXAMPLES
from ctllm_ray.corpus.report.counters import Smallest, StreamCounter
from ctllm_ray.corpus.report.funnel import funnel
from ctllm_ray.shards import manifest, schema
from ctllm_ray.shards.manifest import Manifest, Shard

HOSTILE = (
    "</script></style><img src=http://evil.test/x onerror=alert(1)>'\"<b>粗\x00\u202e體\x1b[31m{{7*7}}&lt;"
)
CHARS, DIGITS, SCRIPT = "document.char_count", "document.digit_share", "script.traditional_share"
RULES = [
    {"use": CHARS, "score": CHARS, "name": CHARS, "min": 50, "max": 1000},
    {"use": DIGITS, "score": DIGITS, "name": DIGITS, "max": 0.3, "unless": ["table"]},
    {"use": SCRIPT, "score": SCRIPT, "name": SCRIPT},
    {"use": "language.label", "score": "language.label", "name": "language.label", "in": ["zh"]},
]
RECIPE = {"name": "test", "version": "v1", "stages": [{"use": "lines"}, {"use": "measure", "rules": RULES}]}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def document(i: int) -> dict[str, Any]:
    """One of a made-up corpus: long, short, full of digits, unreadable, cut to nothing, of two languages."""
    chars, digits, genre = (
        20 + 7 * i % 1200,
        (i % 10) / 16,
        "table" if i % 5 == 0 else "essay" + HOSTILE * (i % 97 == 1),
    )
    row: dict[str, Any] = {
        "id": f"in/part{HOSTILE if i == 8 else ''}#{i}",
        "text": (HOSTILE + "汉" * chars)[: max(chars, 90)],
        "url": None if i % 11 == 0 else f"https://user@Host{i % 40}.example:8080/{HOSTILE}",
        "title": HOSTILE,
        "source": "web" if i % 2 else HOSTILE,
        "labels": {"genre": genre, "language.label": "en" if i % 13 == 0 else "zh"},
        "scores": {CHARS: chars, DIGITS: digits, SCRIPT: [0.0, 1.0, float("nan"), 0.5][i % 4]},
        "cuts": [{"rule": "lines.boilerplate", "text": "上一篇" if i % 3 else HOSTILE}],
        "reject": None,
        "reject_value": None,
        "reject_bound": None,
    }
    if i % 50 == 7:
        return row | {
            "reject": "error.bad_json",
            "text": None,
            "raw": HOSTILE.encode() + b"\xff",
            "labels": {},
            "scores": {},
        }
    if i % 60 == 9:
        return row | {"reject": "lines.nothing_left", "text": "", "scores": {}}
    checks = [
        (CHARS, chars, 50, chars < 50),
        (CHARS, chars, 1000, chars > 1000),
        (DIGITS, digits, 0.3, digits > 0.3 and genre != "table"),
        ("language.label", None, None, i % 13 == 0),
    ]
    for name, value, bound, fails in checks:
        if fails:
            return row | {"reject": name, "reject_value": value, "reject_bound": bound}
    return row


def make_section(folder: Path, documents: list[dict[str, Any]], recipe: dict[str, Any] = RECIPE) -> Manifest:
    """A finished section of these documents, in two record batches a shard."""
    layout = schema.document([CHARS, DIGITS, SCRIPT], ["genre", "language.label"])
    shards = []
    for kind in ("kept", "rejected"):
        rows = [d for d in documents if (d["reject"] is None) == (kind == "kept")]
        path = folder / kind / "00000-000.arrow"
        path.parent.mkdir(parents=True)
        with pa.ipc.new_file(str(path), layout) as out:
            for part in (rows[: len(rows) // 2], rows[len(rows) // 2 :]):
                out.write_table(pa.Table.from_pylist(part, schema=layout))
        size = sum(len((d["text"] or "").encode()) for d in rows)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        shards.append(Shard(f"{kind}/00000-000.arrow", len(rows), path.stat().st_size, size, digest))
    rejects = Counter(f"reject:{d['reject']}" for d in documents if d["reject"])
    counts = {"in": len(documents), "kept": len(documents) - rejects.total(), **rejects}
    inputs = [{"input": "web", "name": HOSTILE, "bytes": 12345}]
    made = Manifest("clean", "test", "v1", "f" * 64, recipe, inputs, counts, shards, {"python": "3.11"})
    manifest.write_manifest(str(folder), made)
    return made


@pytest.fixture(scope="module")
def section(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("section")
    documents = [document(i) for i in range(600)]
    made = make_section(folder, documents)
    run = {
        "started": "2026-01-02T03:04:05+00:00",
        "ended": "2026-01-02T03:04:15+00:00",
        "wall_s": 10.0,
        "worker_s": 19.0,
    }
    run |= {
        "splits_done": 4,
        "splits_reused": 0,
        "documents": 600,
        "text_bytes": 30_000_000,
        "later_field": 1,
    }
    (folder / "RUNS.jsonl").write_text(json.dumps(run) + '\n{"started": "cut sho')
    return folder, made, documents


@pytest.fixture(scope="module")
def page(section: tuple[Path, Manifest, list[dict[str, Any]]]) -> Path:
    target = section[0] / "report.html"
    render.write_corpus_report(str(section[0]), str(target))
    return target


class Tags(HTMLParser):
    """The tags and attributes of a page, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str | None]] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, key, value) for key, value in attrs]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_every_count_of_the_manifest_stands_on_the_page(section: Any, page: Path) -> None:
    words = " ".join(Tags(page.read_text()).words)
    for count in section[1].counts.values():
        assert re.search(rf"(?<![\d,]){count:,}(?![\d,])", words)


def test_the_funnel_subtracts_from_all_documents_to_the_kept_ones(section: Any) -> None:
    groups = funnel(section[1])
    assert [g.family for g in groups] == ["error", "lines", "document", "language"]
    assert (
        section[1].counts["in"] - sum(g.dropped for g in groups)
        == groups[-1].left
        == section[1].counts["kept"]
    )
    assert [s.rule for s in groups[2].steps] == [CHARS, DIGITS]


def test_a_reject_that_the_recipe_does_not_name_is_still_in_the_funnel(section: Any) -> None:
    counts = {"in": 5, "kept": 2, "reject:strange.reason": 3}
    groups = funnel(Manifest(**vars(section[1]) | {"counts": counts}))
    assert groups[-1].family == "strange"
    assert groups[-1].left == 2


def test_failed_and_alone_are_what_counting_by_hand_gives(section: Any) -> None:
    folder, made, documents = section
    live = [d for d in documents if d["scores"]]
    short = [not 50 <= d["scores"][CHARS] <= 1000 for d in live]
    digits = [d["scores"][DIGITS] > 0.3 and d["labels"]["genre"] != "table" for d in live]
    foreign = [d["labels"]["language.label"] != "zh" for d in documents if d["labels"]]
    facts = {f.rule.name: f for f in render.collect_facts(str(folder)).rules}
    assert facts[CHARS].failed == sum(short)
    assert facts[DIGITS].failed == sum(digits)
    assert facts["language.label"].failed == sum(foreign)
    both = [
        (s, d, x["labels"]["language.label"] != "zh") for s, d, x in zip(short, digits, live, strict=True)
    ]
    assert facts[DIGITS].alone == sum(d and not s and not f for s, d, f in both)
    assert facts[CHARS].dropped == made.counts[f"reject:{CHARS}"]
    assert facts["language.label"].alone == facts["language.label"].dropped  # it acts last
    assert facts[SCRIPT].failed == 0


def test_a_histogram_holds_every_measured_document_once(section: Any) -> None:
    for fact in render.collect_facts(str(section[0])).rules:
        if fact.histogram:
            assert fact.histogram.documents == fact.measured
            assert sum(fact.histogram.charged) == fact.dropped


def test_no_bar_of_whole_numbers_mixes_what_passes_with_what_fails() -> None:
    values = np.arange(1, 2001, dtype=np.float32)
    chart = histograms.histogram(values, np.where(values < 50, 1, 0), {"min": 50})
    assert 49.5 in chart.edges
    assert not any(kept and charged for kept, charged in zip(chart.kept, chart.charged, strict=True))


@pytest.mark.parametrize(
    "values", [[0.0], [3.0] * 9, [0.0, 1.0], [-5.0, 1e30], [1e-9, 1.0], [7, 7, 9, 2**40]]
)
def test_any_values_make_a_histogram(values: list[float]) -> None:
    chart = histograms.histogram(
        np.array(values, np.float32), np.zeros(len(values), int), {"min": 0.5, "max": 1e6}
    )
    assert chart.documents == len(values)
    assert "<svg" in histograms.histogram_svg(chart, "x")
    assert "nan" not in histograms.histogram_svg(chart, "x")


def test_breakdowns_count_every_document(section: Any) -> None:
    found = {b.name: b for b in render.collect_facts(str(section[0])).breakdowns}
    assert set(found) == {"host", "source", "genre", "language.label", "script"}
    for breakdown in found.values():
        assert sum(s.documents for s in breakdown.slices) == 600
        assert sum(s.kept for s in breakdown.slices) == section[1].counts["kept"]
    assert "host7.example" in {s.value for s in found["host"].slices}
    assert {s.value for s in found["script"].slices} == {"simplified", "traditional", "mixed", None}


def test_examples_do_not_depend_on_how_documents_lie_in_shards(section: Any, tmp_path: Path) -> None:
    make_section(tmp_path, section[2][::-1])
    first, second = (
        render.collect_facts(str(section[0])).examples,
        render.collect_facts(str(tmp_path)).examples,
    )
    assert first == second
    assert {name: len(found) for name, found in first.items()} == {
        name: min(EXAMPLES, count) for name, count in section[1].rejects().items()
    }


def test_a_tally_past_its_limit_keeps_what_is_frequent_and_says_so() -> None:
    tally: StreamCounter[int] = StreamCounter(keys=100)
    for i in range(5000):
        tally.add([(i, 1), (-1, 3)])
    assert not tally.exact
    assert len(tally.counts) <= 102
    assert tally.counts[-1] == 15_000


def test_smallest_keeps_the_smallest_whatever_the_order() -> None:
    found: Smallest[int] = Smallest(3)
    for i in [5, 1, 9, 7, 3, 8]:
        found.add("rule", [((0, i), i)])
    assert found.items() == {"rule": (1, 3, 5)}


def test_hostile_text_stays_text(page: Path) -> None:
    html = page.read_text()
    parsed = Tags(html)
    assert parsed.tags["img"] == 0
    assert parsed.tags["script"] == 3  # the language switch, the words of the tips, the tips
    assert not [
        a for a in parsed.attributes if a[1].startswith("on") or (a[2] or "").startswith("javascript:")
    ]
    assert "alert(1)" in " ".join(parsed.words)
    assert "49" not in re.findall(r"\{\{7\*7\}\}|>49<", html)
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e]", html)
    assert ">202E</i>" in html


def test_the_page_asks_nothing_of_any_server(page: Path) -> None:
    loading = {"src", "href", "srcset", "action", "data", "poster", "xlink:href", "style"}
    targets = [value or "" for _, key, value in Tags(page.read_text()).attributes if key in loading]
    assert not [t for t in targets if re.search(r"//|url\(", t)]
    assert not re.search(r"@import|url\(\s*['\"]?(?!#)", page.read_text().split("</style>")[0])
    policy = [value for _, key, value in Tags(page.read_text()).attributes if key == "content"]
    assert (policy[0] or "").startswith("default-src 'none'; ")


def test_the_page_is_small_and_every_phrase_is_in_both_languages(page: Path) -> None:
    assert page.stat().st_size < 3_000_000
    tags = Tags(page.read_text()).attributes
    classes = Counter(value for _, key, value in tags if key == "class")
    assert classes["zh"] >= classes["en"] > 100


def test_genres_that_lose_a_fifth_are_marked(page: Path) -> None:
    assert 'class="alarm"' in page.read_text()


def test_a_section_without_runs_scores_or_rejects_has_a_report(tmp_path: Path) -> None:
    layout = schema.document([], [])
    (tmp_path / "kept").mkdir()
    with pa.ipc.new_file(str(tmp_path / "kept/0.arrow"), layout) as out:
        out.write_table(pa.Table.from_pylist([{"id": "a#0", "text": "好"}], schema=layout))
    shard = Shard("kept/0.arrow", 1, 1, 3, "")
    made = Manifest("clean", "bare", "v1", "0", {"stages": []}, [], {"in": 1, "kept": 1}, [shard], {})
    manifest.write_manifest(str(tmp_path), made)
    assert "100 %" in render.render_page(render.collect_facts(str(tmp_path)))


def test_an_empty_section_has_a_report(tmp_path: Path) -> None:
    made = Manifest("clean", "bare", "v1", "0", RECIPE, [], {"in": 0, "kept": 0}, [], {})
    manifest.write_manifest(str(tmp_path), made)
    assert "0 %" in render.render_page(render.collect_facts(str(tmp_path)))


def test_an_unfinished_section_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="not finished"):
        render.write_corpus_report(str(tmp_path), str(tmp_path / "report.html"))


def browse(page: Path, folder: Path, *options: str, query: str = "") -> subprocess.CompletedProcess[str]:
    """Opens the page in headless Chromium, away from any network."""
    if CHROMIUM is None:
        pytest.skip("no chromium here: apt-get install chromium")
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={folder}",
        "--enable-logging=stderr",
    ]
    flags += ["--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=4000", *options]
    address = page.as_uri() + query
    return subprocess.run(
        [CHROMIUM, *flags, address], capture_output=True, text=True, timeout=120, check=True
    )


def test_a_browser_runs_only_our_script_and_complains_of_nothing(page: Path, tmp_path: Path) -> None:
    done = browse(page, tmp_path, "--dump-dom", query="?lang=en")
    assert 'data-lang="en"' in done.stdout
    assert "<title>test v1 · 语料报告 · Corpus report</title>" in done.stdout
    assert Tags(done.stdout).tags["img"] == 0
    assert "CONSOLE" not in done.stderr


def pixels(png: bytes) -> Counter[bytes]:
    """How many bytes of each filtered row value: enough to tell a picture from a blank."""
    width, height = struct.unpack(">II", png[16:24])
    data, at = b"", 8
    while at < len(png):
        size, kind = struct.unpack(">I4s", png[at : at + 8])
        data += png[at + 8 : at + 8 + size] if kind == b"IDAT" else b""
        at += 12 + size
    raw = zlib.decompress(data)
    row = len(raw) // height
    assert width > 0
    return Counter(raw[i * row : (i + 1) * row] for i in range(height))


@pytest.mark.parametrize("scheme", ["0", "1"])
def test_a_browser_paints_the_page_in_dark_and_in_light(page: Path, tmp_path: Path, scheme: str) -> None:
    shot = tmp_path / "page.png"
    size = ["--window-size=1280,2400", f"--blink-settings=preferredColorScheme={scheme}"]
    browse(page, tmp_path / "profile", *size, "--hide-scrollbars", f"--screenshot={shot}")
    assert len(pixels(shot.read_bytes())) > 300


def test_a_phone_does_not_scroll_sideways(page: Path, tmp_path: Path) -> None:
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<iframe src="{page.as_uri()}" style="width:360px;height:900px;border:0"></iframe><script>onload=()=>'
        "{const d=document.querySelector('iframe').contentDocument.documentElement;"
        "d.querySelectorAll('details').forEach(e=>e.open=true);"
        "document.title=`width ${d.scrollWidth} of ${d.clientWidth}`}</script>"
    )
    done = browse(
        frame, tmp_path / "profile", "--hide-scrollbars", "--allow-file-access-from-files", "--dump-dom"
    )
    assert "<title>width 360 of 360</title>" in done.stdout
