"""What the report says of copies: every drop is counted once, and texts are those that the pass read."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ctllm_ray.base.recipe import Recipe
from ctllm_ray.corpus import documents, pipeline
from ctllm_ray.corpus.report import duplicate_clusters, render
from ctllm_ray.corpus.report.facts import Copies, Largest
from ctllm_ray.shards import manifest
from ctllm_ray.text.dedup.differences import LEAD_CHARS
from tests.corpus.conftest import run_here
from tests.corpus.dedup_recipes import EXACT, NEAR, over, rows, write_crawl
from tests.corpus.test_near import body, edited
from tests.corpus.test_near_snapshots import one_by_one
from tests.corpus.test_report import Tags

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>"


def pages(part: int) -> list[dict[str, Any]]:
    """Forty versions of eleven texts, some equal, on five hosts and on none."""
    found = []
    for i in range(40):
        url = {"url": f"http://Host{i % 5}.example:80/{part}/{i}"} if i % 6 else {}
        found.append({"text": edited(body(i % 11), i % 3, part * 7 + i % 13)} | url)
    return found


def made(root: Path, crawl: Path, *passes: dict[str, Any], **overrides: object) -> Recipe:
    recipe = over(crawl, root, passes, **overrides)
    pipeline.prepare(recipe, run_here)
    return recipe


def found_in(recipe: Recipe) -> tuple[Copies, ...]:
    folder = recipe.folder(recipe.corpus)
    return duplicate_clusters.collect_duplicates(documents.parts(folder, manifest.read_manifest(folder)))


@pytest.fixture
def both(tmp_path: Path) -> Recipe:
    """A corpus without its exact copies, then without its near ones."""
    crawl = write_crawl(tmp_path / "crawl", [pages(part) for part in range(3)])
    return made(tmp_path / "out", crawl, EXACT, NEAR)


def host(row: dict[str, Any]) -> str:
    return row["url"].split("/")[2].split(":")[0].lower() if row["url"] else row["source"]


def test_sizes_and_hosts_are_what_counting_by_hand_gives_and_add_up_to_the_drops(both: Recipe) -> None:
    assert [told.use for told in found_in(both)] == ["exact", "near"]
    for told in found_in(both):
        lost, kept = (
            rows(both, "rejected", told.use),
            {row["id"]: row for row in rows(both, "kept", told.use)},
        )
        clusters = Counter(row["labels"][f"{told.use}.survivor"] for row in lost)
        assert (
            told.dropped
            == len(lost)
            == manifest.read_manifest(both.folder(told.use)).counts[f"reject:{told.use}.duplicate"]
        )
        assert told.dropped == told.same_host + told.other_host > told.same_host > 0
        assert (told.clusters, told.most_pages) == (len(clusters), max(clusters.values()) + 1)
        for size in told.sizes:
            inside = [n for n in clusters.values() if size.least <= n + 1 <= size.most]
            assert (size.clusters, size.dropped, size.pages) == (
                len(inside),
                sum(inside),
                sum(inside) + len(inside),
            )
        hosts = Counter((host(kept[row["labels"][f"{told.use}.survivor"]]), host(row)) for row in lost)
        between = {pair: n for pair, n in hosts.items() if pair[0] != pair[1]}
        shown = {(pair.survivor, pair.loser): pair.pages for pair in told.pairs}
        assert told.other_host == sum(between.values())
        assert shown.items() <= between.items()
        assert min(shown.values()) >= max([0, *(n for pair, n in between.items() if pair not in shown)])
        assert len(shown) + told.more_pairs == len(between)
        assert any("crawl" in pair for pair in shown)  # a source, where there is no url


def test_size_classes_double() -> None:
    count = duplicate_clusters._Count()
    went = duplicate_clusters.NOT_HERE.repeat(1 + 3 + 4 + 15)
    went["cluster"], went["row"] = [1] + [2] * 3 + [3] * 4 + [4] * 15, range(len(went))
    count.add(went, duplicate_clusters.NOT_HERE[:0])
    told = [(size.least, size.most, size.clusters, size.dropped) for size in count.sizes()]
    assert told == [(2, 2, 1, 1), (3, 4, 1, 3), (5, 8, 1, 4), (9, 16, 1, 15)]
    assert (count.earlier, count.same_host, count.other_host) == (23, 0, 0)


def test_counting_in_parts_tells_the_same(both: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = found_in(both)
    monkeypatch.setattr(duplicate_clusters, "PART_PAGES", 5)
    assert found_in(both) == whole


def test_the_largest_clusters_stand_first_and_the_copy_is_the_least_alike(both: Recipe) -> None:
    [_, near] = found_in(both)
    lost = rows(both, "rejected", "near")
    order = [row["id"] for row in rows(both, "kept", "near")]
    clusters = Counter(row["labels"]["near.survivor"] for row in lost)
    first = sorted(clusters, key=lambda name: (-clusters[name], order.index(name)))
    assert [each.stays.id for each in near.largest] == first[: duplicate_clusters.TOP]
    for each in near.largest:
        alike = {row["id"]: row["scores"]["near.similarity"] for row in lost}
        members = [row["id"] for row in lost if row["labels"]["near.survivor"] == each.stays.id]
        assert each.pages == len(members) + 1
        assert each.similarity == alike[each.goes.id] == min(alike[name] for name in members)


def texts(each: Largest) -> tuple[str, str]:
    assert each.stays.excerpt
    assert each.goes.excerpt
    stays, goes = (
        "".join(text for text, _ in side.pieces) for side in (each.stays.excerpt, each.goes.excerpt)
    )
    return stays, goes


def test_of_equal_documents_one_is_shown_whose_text_is_another(tmp_path: Path) -> None:
    crawl = write_crawl(
        tmp_path / "crawl", [["天地玄黄，宇宙洪荒。", "天地玄黄，宇宙洪荒。", "天地玄黃，宇宙洪荒。"]]
    )
    [exact] = found_in(made(tmp_path / "out", crawl, EXACT))
    [each] = exact.largest
    assert texts(each) == ("天地玄黄，宇宙洪荒。", "天地玄黃，宇宙洪荒。")
    assert each.goes.excerpt
    assert [text for text, differs in each.goes.excerpt.pieces if differs] == ["黃"]
    assert (each.similarity, each.goes.host) == (None, "crawl")


def test_texts_are_those_that_the_pass_read_whatever_became_of_them(tmp_path: Path) -> None:
    """The survivor of the first pass is dropped by the second, and no dropped page keeps its text."""
    long = body(1, 400)
    crawl = write_crawl(tmp_path / "crawl", [[long, long + "。", edited(long, 3, 5) + "字。"], ["另一页。"]])
    inputs = [{"use": "jsonl", "path": f"{crawl}/*.jsonl"}]
    data = {"inputs": inputs, "max_error_share": 0.1, "rejected_text_share": 0.0}
    recipe = made(tmp_path / "out", crawl, EXACT, NEAR, data=data)
    assert {row["text"] for kind in ("exact", "near") for row in rows(recipe, "rejected", kind)} == {None}
    exact, near = found_in(recipe)
    assert exact.largest[0].stays.id == near.largest[0].goes.id
    assert texts(exact.largest[0]) == (long[-LEAD_CHARS:] + "。", long[-LEAD_CHARS:])

    for section in ("clean", "exact"):  # as the how-to pages allow
        shutil.rmtree(Path(recipe.folder(section)) / "kept")
    gone = found_in(recipe)
    assert [replace(told, largest=()) for told in gone] == [
        replace(told, largest=()) for told in (exact, near)
    ]
    [lost] = gone[0].largest
    assert (lost.stays.excerpt, lost.goes.excerpt, lost.stays.host) == (None, None, "crawl")
    [half] = gone[1].largest
    assert half.stays.excerpt
    assert half.goes.excerpt is None
    page = render.render_page(render.collect_facts(recipe.folder("near")))
    assert page.count("(no shard has its text any more)") == 3


def test_pages_that_went_for_an_earlier_version_are_counted_apart(tmp_path: Path) -> None:
    last = one_by_one(tmp_path, bodies=90)[-1]  # of which some are in one crawl alone
    [near] = found_in(last)
    lost = rows(last, "rejected")
    earlier = [row for row in lost if row["labels"]["near.survivor"].startswith("copies/")]
    assert 0 < near.earlier == len(earlier) < len(lost) == near.dropped == near.earlier + near.same_host
    assert (near.largest[0].stays.host, near.largest[0].goes.host) == (None, "crawl2")
    assert near.largest[0].stays.id.startswith("copies/")
    assert "(in an earlier version)" in render.render_page(render.collect_facts(last.folder("near")))


def test_hostile_pages_stay_text_and_differences_are_marked(tmp_path: Path) -> None:
    shared, alone = body(3) + HOSTILE, "<script>alert(3)</script>"
    records = [
        {"text": shared + alone, "url": f"http://a.example/{HOSTILE}"},
        {"text": shared, "url": f"http://{HOSTILE}"},
    ]
    recipe = made(tmp_path / "out", write_crawl(tmp_path / "crawl", [records]), NEAR)
    html = render.render_page(render.collect_facts(recipe.folder("near")))
    parsed = Tags(html)
    assert parsed.tags["img"] == 0
    assert parsed.tags["script"] == 3
    assert parsed.tags["mark"] == 1
    assert "<mark>&lt;script&gt;alert(3)&lt;/script&gt;</mark>" in html
    assert 'id="copies"' in html


def test_a_pass_that_found_nothing_says_so_and_a_corpus_without_passes_has_no_such_part(
    tmp_path: Path,
) -> None:
    crawl = write_crawl(tmp_path / "crawl", [["一页。", "另一页。"]])
    recipe = made(tmp_path / "out", crawl, EXACT)
    [exact] = found_in(recipe)
    assert (exact.dropped, exact.sizes, exact.largest, exact.most_pages) == (0, (), (), 0)
    assert "This pass found no duplicates." in render.render_page(
        render.collect_facts(recipe.folder("exact"))
    )
    assert 'id="copies"' not in render.render_page(render.collect_facts(recipe.folder("clean")))


MEANING = {"short_chars": 200, "max_changed_share": 0.02}
TOLD = (
    "秋天的傍晚，我沿着河边慢慢地走，看见几位老人坐在树下下棋，旁边围着不少看热闹的人。"
    "后来天色暗了，大家各自回家，河边只剩下风吹芦苇的声音，第二天他们又聚在祠堂前说话。"
)


def test_pages_that_say_something_else_stay_in_exact_and_in_near(tmp_path: Path) -> None:
    pairs = [
        ("小李走了12+5米。", "小李走了12-5米。"),
        ("青菜每斤3.5元。", "青菜每斤35元。"),
        ("气温是-8度。", "气温是8度。"),
        ("条件是 a > b 吗？", "条件是 a < b 吗？"),
        ("先学C语言。", "先学C++语言。"),
        ("产品符合标准。", "产品不符合标准。"),
        ("他有3个苹果。", "他有13个苹果。"),
    ]
    told = [f"{TOLD}{said}{number}号" for number, pair in enumerate(pairs) for said in pair]
    pages = [f"{'春夏秋冬甲乙丙'[n // 2] * 40}{text}" for n, text in enumerate(told)]  # pairs are far apart
    verify = NEAR["verify"] | {"same_meaning": MEANING}
    crawl = write_crawl(tmp_path / "crawl", [pages])
    recipe = over(crawl, tmp_path / "out", [EXACT, NEAR | {"verify": verify}])
    made = pipeline.prepare_corpus(recipe, run_here)
    assert made["near"].counts["kept"] == len(pages)
    without = over(crawl, tmp_path / "without", [EXACT, NEAR])
    assert pipeline.prepare_corpus(without, run_here)["near"].counts["kept"] == len(pairs)


def test_the_clean_copy_stays(tmp_path: Path) -> None:
    pages = [
        TOLD,
        TOLD + "更多精彩内容请关注我们的微信公众号，加群领取福利。",
        f"首页 > 新闻 > 正文\n{TOLD}\n上一篇 下一篇 版权所有",
        TOLD[:-9],
        TOLD.replace("河边只剩", "河边\ufffd剩"),
    ]
    recipe = over(write_crawl(tmp_path / "crawl", [pages]), tmp_path / "out", [NEAR])
    pipeline.prepare_corpus(recipe, run_here)
    assert [row["text"] for row in rows(recipe, "kept")] == [TOLD]
