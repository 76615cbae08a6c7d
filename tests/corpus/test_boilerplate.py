"""Boilerplate goes from the pages of its host and nothing else does; every line stays in the text or in the
ledger."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ctllm_ray.base.errors import RecipeError
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.corpus import pipeline
from ctllm_ray.corpus.engine import section
from ctllm_ray.corpus.engine.section import Done
from ctllm_ray.corpus.engine.splits import Split
from ctllm_ray.corpus.explain import why
from ctllm_ray.corpus.report import collect
from ctllm_ray.shards import manifest
from tests.corpus.conftest import run_here
from tests.corpus.dedup_recipes import NEAR, conserved, hashes, over, rows, write_crawl

PASS: dict[str, Any] = {
    "use": "boilerplate",
    "min_chars": 2,
    "min_pages": 4,
    "min_share": 0.5,
    "own_line_cost": 2,
}
MENU = ["首页 | 新闻 | 论坛", "您的位置：首页 > 正文"]
FOOT = ["责任编辑：admin", "", "版权所有 大河网"]
Pages = list[dict[str, Any]]


def body(seed: object, lines: int = 4) -> list[str]:
    """Lines that no other page has."""
    draw = random.Random(str(seed))
    return ["".join(chr(draw.randrange(0x4E00, 0x9000)) for _ in range(30)) + "。" for _ in range(lines)]


def site(host: str, pages: int, head: Sequence[str] = MENU, foot: Sequence[str] = FOOT) -> Pages:
    """Pages of one host between one head and one foot."""
    return [
        {"url": f"http://{host}/{n}", "text": "\n".join([*head, *body((host, n)), *foot])}
        for n in range(pages)
    ]


def cleaned(tmp_path: Path, pages: Pages, **options: Any) -> Recipe:
    """The finished recipe over a crawl of these pages, dealt out to three files."""
    tmp_path.mkdir(exist_ok=True)
    crawl = write_crawl(tmp_path / "crawl", [pages[n::3] for n in range(3)])
    inputs = [{"use": "jsonl", "path": f"{crawl}/*.jsonl", "url": "url"}]
    data = {"inputs": inputs, "max_error_share": 0.1}
    recipe = over(crawl, tmp_path / "out", [PASS | options], data=data)
    pipeline.prepare(recipe, run_here)
    conserved(recipe)
    restored(recipe)
    return recipe


def restored(recipe: Recipe) -> None:
    """Text and cuts of each page hold its lines as they came, each as often."""
    before = {row["id"]: row["text"] for row in rows(recipe, "kept", "clean")}
    for row in (*rows(recipe, "kept"), *rows(recipe, "rejected")):
        lines = row["text"].split("\n") + [cut["text"] for cut in row["cuts"] or []]
        assert +Counter({line: n for line, n in Counter(lines).items() if line.strip()}) == Counter(
            line for line in before[row["id"]].split("\n") if line.strip()
        )


def texts_by_url(recipe: Recipe) -> dict[str, str]:
    return {row["url"]: row["text"] for row in rows(recipe, "kept")}


def test_menus_and_footers_of_a_host_are_cut_and_nothing_else(tmp_path: Path) -> None:
    recipe = cleaned(
        tmp_path, [*site("WWW.A.example:8080", 6), *site("b.example", 6, ["b站首页"], ["b站页脚"])]
    )
    for url, text in texts_by_url(recipe).items():
        host, _, number = url.removeprefix("http://").partition("/")
        assert text.split("\n") == body((host, int(number)))
    cuts = {(cut["rule"], cut["text"]) for row in rows(recipe, "kept") for cut in row["cuts"]}
    assert cuts == {("boilerplate.host", line) for line in [*MENU, *FOOT, "b站首页", "b站页脚"] if line}
    assert all(row["scores"]["boilerplate.cut_share"] > 0.05 for row in rows(recipe, "kept"))


def test_the_script_the_width_and_the_marks_of_a_line_do_not_matter_and_digits_do_by_choice(
    tmp_path: Path,
) -> None:
    heads = ["首页｜论坛 第1版", "首頁|論壇 第2版", "首页·论坛（第3版）", "首页 论坛 第４版"]
    pages = [page for n, head in enumerate(heads) for page in site("a.example", 4, [head], [])[n : n + 1]]
    assert all("版" in text for text in texts_by_url(cleaned(tmp_path / "keep", pages)).values())
    masked = cleaned(tmp_path / "mask", pages, digits="mask")
    assert not any("版" in text for text in texts_by_url(masked).values())


@pytest.mark.parametrize("pages", [1, 2, 3])
def test_a_host_of_fewer_pages_than_the_bound_loses_nothing(tmp_path: Path, pages: int) -> None:
    recipe = cleaned(tmp_path, site("a.example", pages))
    assert all(row["cuts"] is None for row in rows(recipe, "kept"))
    assert len(rows(recipe, "kept")) == pages


def test_a_line_that_too_small_a_share_of_the_host_holds_stays(tmp_path: Path) -> None:
    pages = site("a.example", 4) + site("a.example", 9, [], [])[4:]
    assert all(row["cuts"] is None for row in rows(cleaned(tmp_path, pages), "kept"))
    assert any(row["cuts"] for row in rows(cleaned(tmp_path / "lower", pages, min_share=0.4), "kept"))


def test_a_line_counts_once_for_a_page_however_often_it_stands_there(tmp_path: Path) -> None:
    pages = site("a.example", 3, ["嗯嗯嗯。"] * 5, []) + site("b.example", 4, ["嗯嗯嗯。"] * 5, [])
    found = texts_by_url(cleaned(tmp_path, pages))
    assert {url[7] for url, text in found.items() if "嗯" in text} == {"a"}


STATUTE = "（四）法律、法规规定的其他情形。"


@pytest.mark.parametrize(("cost", "left"), [(2, 1), (None, 0)])
def test_what_repeats_inside_pages_stays_where_position_matters(
    tmp_path: Path, cost: int | None, left: int
) -> None:
    pages = [
        {"url": f"http://law.example/{n}", "text": "\n".join([*MENU, *body(n), STATUTE, *body(-n - 1)])}
        for n in range(8)
    ]
    found = texts_by_url(cleaned(tmp_path, pages, own_line_cost=cost)).values()
    assert all(text.count(STATUTE) == left and MENU[0] not in text for text in found)


def test_lines_too_short_to_tell_and_lines_of_marks_alone_stay(tmp_path: Path) -> None:
    found = texts_by_url(cleaned(tmp_path, site("a.example", 6, ["赞", "-----", "首页导航"], [])))
    for url, text in found.items():
        assert text.split("\n") == ["赞", "-----", *body(("a.example", int(url[-1])))]


def test_lines_over_hosts_are_cut_everywhere_where_the_recipe_asks_for_it(tmp_path: Path) -> None:
    line = "本站所有内容均来自网络，如有侵权请联系删除"
    pages = [page for n in range(5) for page in site(f"h{n}.example", 1, [], [line])]
    pages += [{"text": "\n".join([*body("no url"), line])}]
    assert all(line in row["text"] for row in rows(cleaned(tmp_path / "off", pages), "kept"))
    recipe = cleaned(tmp_path / "on", pages, min_hosts=6)  # pages without a url have their source as host
    assert {cut["rule"] for row in rows(recipe, "kept") for cut in row["cuts"]} == {"boilerplate.hosts"}
    assert all(line not in row["text"] for row in rows(recipe, "kept"))
    assert all(line in row["text"] for row in rows(cleaned(tmp_path / "seven", pages, min_hosts=7), "kept"))


def test_a_page_of_which_nothing_is_left_is_rejected_with_its_lines_in_the_ledger(tmp_path: Path) -> None:
    pages = [*site("a.example", 6), {"url": "http://a.example/menu", "text": "\n".join(MENU)}]
    pages += [{"url": "http://a.example/line", "text": "版权所有 大河网"}]
    pages += [{"url": "http://a.example/short", "text": "\n".join([*MENU, "短", *FOOT])}]
    recipe = cleaned(tmp_path, pages, min_left_chars=2)
    gone = {row["url"].rpartition("/")[2]: row for row in rows(recipe, "rejected")}
    assert set(gone) == {"menu", "line", "short"}
    assert {row["reject"] for row in gone.values()} == {"boilerplate.nothing_left"}
    assert [(gone[name]["reject_value"], gone[name]["reject_bound"]) for name in ("menu", "short")] == [
        (0, 2),
        (1, 2),
    ]
    assert gone["line"]["text"] == ""
    assert [cut["text"] for cut in gone["line"]["cuts"]] == ["版权所有 大河网"]


def test_a_page_that_was_empty_or_short_before_is_not_this_pass_to_reject(tmp_path: Path) -> None:
    pages = [{"url": f"http://a.example/{n}", "text": text} for n, text in enumerate(["短", "！！", "字"])]
    assert len(rows(cleaned(tmp_path, pages, min_left_chars=100), "kept")) == 3


def test_of_identical_pages_none_is_left_unless_the_first_is_kept(tmp_path: Path) -> None:
    pages = [{"url": f"http://a.example/{n}", "text": "\n".join(body(1))} for n in range(6)]
    assert rows(cleaned(tmp_path / "all", pages), "kept") == []
    (left,) = rows(cleaned(tmp_path / "first", pages, keep_first=True), "kept")
    assert left["url"] == "http://a.example/0"
    assert left["text"].split("\n") == body(1)


def test_behind_near_an_article_under_many_addresses_keeps_its_text(tmp_path: Path) -> None:
    """Every line of it is repeated; near leaves one copy, and only what other pages hold as well is cut."""
    article = body("article", 20)
    pages = site("a.example", 8)
    pages += [
        {"url": f"http://a.example/?from={n}", "text": "\n".join([*MENU, *article, f"阅读{n}次", *FOOT])}
        for n in range(8)
    ]
    crawl = write_crawl(tmp_path / "crawl", [pages])
    data = {"inputs": [{"use": "jsonl", "path": f"{crawl}/*.jsonl", "url": "url"}], "max_error_share": 0.1}
    recipe = over(crawl, tmp_path / "out", [NEAR, PASS], data=data)
    pipeline.prepare(recipe, run_here)
    conserved(recipe)
    assert len(rows(recipe, "kept")) == 9
    assert [text.split("\n")[:-1] for text in texts_by_url(recipe).values() if "阅读" in text] == [article]


def test_nothing_is_cut_from_a_corpus_of_nothing(tmp_path: Path) -> None:
    assert rows(cleaned(tmp_path, []), "kept") == []


def test_partitions_order_and_units_worked_twice_change_no_byte(tmp_path: Path) -> None:
    pages = [page for n in range(7) for page in site(f"h{n % 5}.example", 3 + 2 * n)]

    def worked(root: str, partition_rows: int, twice: bool) -> dict[str, str]:
        def run(recipe: Recipe, folder: str, splits: Sequence[Split]) -> Iterator[Done]:
            for split in reversed(splits):
                if twice:
                    section.run_split(recipe, folder, split)
                yield section.run_split(recipe, folder, split)

        crawl = write_crawl(tmp_path / root / "crawl", [pages[n::3] for n in range(3)])
        data = {
            "inputs": [{"use": "jsonl", "path": f"{crawl}/*.jsonl", "url": "url"}],
            "max_error_share": 0.1,
        }
        passes = [PASS | {"partition_rows": partition_rows, "min_hosts": 4}]
        recipe = over(crawl, tmp_path / root / "out", passes, data=data)
        made = pipeline.prepare(recipe, run)
        assert made["boilerplate"].counts["kept"] == len(pages)
        assert any(row["cuts"] for row in rows(recipe, "kept"))
        return hashes(recipe, "boilerplate")

    for root in ("one", "many", "twice"):
        (tmp_path / root).mkdir()
    calm = worked("one", 4_000_000, False)
    assert worked("many", 7, False) == worked("twice", 30, True) == calm


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_what_is_cut_is_what_counting_by_hand_says(tmp_path: Path, seed: int) -> None:
    """Random pages of thirty lines that some hosts and pages share, against sets and loops."""
    draw = random.Random(seed)
    said = [body((seed, n), 1)[0] for n in range(30)]
    pages = [
        {"url": f"http://h{draw.randrange(6)}.example/{n}", "text": "\n".join(draw.choices(said, k=9))}
        for n in range(40)
    ]
    lines = {page["url"]: page["text"].split("\n") for page in pages}
    of_host: dict[str, list[str]] = {}
    for url in lines:
        of_host.setdefault(url.split("/")[2], []).append(url)

    def repeated(url: str, line: str) -> bool:
        holding = {host: sum(line in lines[u] for u in urls) for host, urls in of_host.items()}
        host = url.split("/")[2]
        often = holding[host] >= 4 and holding[host] >= 0.4 * len(of_host[host])
        return often or sum(n > 0 for n in holding.values()) == 6

    def taken(url: str) -> set[int]:
        """The lines of the best beginning, the shortest of the best, from both ends."""
        scores = [1 if repeated(url, line) else -2 for line in lines[url]]
        ends = [max(range(10), key=lambda n: (sum(part[:n]), -n)) for part in (scores, scores[::-1])]
        return {n for n, score in enumerate(scores) if score > 0 and (n < ends[0] or n >= 9 - ends[1])}

    recipe = cleaned(tmp_path, pages, min_share=0.4, min_hosts=6, partition_rows=50)
    for row in (*rows(recipe, "kept"), *rows(recipe, "rejected")):
        url, gone = row["url"], taken(row["url"])
        assert row["text"] == "\n".join(line for n, line in enumerate(lines[url]) if n not in gone)
        assert [cut["text"] for cut in row["cuts"] or []] == [lines[url][n] for n in sorted(gone)]
        assert (row["reject"] == "boilerplate.nothing_left") == (len(gone) == 9)
    found = Counter(cut["rule"] for row in rows(recipe, "kept") for cut in row["cuts"] or [])
    assert found.keys() == {"boilerplate.host", "boilerplate.hosts"}


def test_why_and_report_know_the_pass(tmp_path: Path) -> None:
    pages = [*site("a.example", 6), {"url": "http://a.example/menu", "text": "\n".join(MENU)}]
    recipe = cleaned(tmp_path, pages)
    folder = recipe.folder("boilerplate")
    finished = manifest.read_manifest(folder)
    (page,) = why.explain_page(folder, finished, recipe, "http://a.example/menu")
    assert page.row["reject"] == "boilerplate.nothing_left"
    steps = [step.rule for group in collect.collect_facts(folder).groups for step in group.steps]
    assert steps == ["boilerplate.nothing_left"]


def test_bounds_that_say_nothing_are_refused(tmp_path: Path) -> None:
    for wrong in (
        {"min_pages": 1},
        {"min_share": 2},
        {"own_line_cost": 0},
        {"min_hosts": 1},
        {"digits": "drop"},
    ):
        with pytest.raises(RecipeError):
            over(tmp_path, tmp_path, [PASS | wrong])
