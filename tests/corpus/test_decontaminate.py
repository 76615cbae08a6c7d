"""Evaluation items are found in pages however they were copied, and taken out of them; nothing else is."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import opencc
import pytest

from ctllm_ray.base import storage
from ctllm_ray.base.errors import InputError, RecipeError, VersionConflict
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.benchmark_files import table
from ctllm_ray.corpus import pipeline, terminal
from ctllm_ray.corpus.decontamination import seen_items
from ctllm_ray.corpus.decontamination.evaluation_sets import text_of
from ctllm_ray.corpus.decontamination.item_removal import (
    Stretch,
    cut_stretches,
    describe_items,
    merge_stretches,
)
from ctllm_ray.corpus.decontamination.seen_items import BenchmarkFacts
from ctllm_ray.corpus.engine.section import Done
from ctllm_ray.corpus.engine.splits import Split
from ctllm_ray.corpus.explain import why
from ctllm_ray.corpus.report import collect, render
from ctllm_ray.shards import manifest
from ctllm_ray.text.dedup.fold import fold_text
from tests.base.test_storage_s3 import endpoint  # noqa: F401  # a fixture
from tests.corpus.conftest import run_here
from tests.corpus.dedup_recipes import (
    EXACT,
    conserved,
    hashes,
    over,
    rows,
    shaken_to_the_end,
    texts,
    write_crawl,
)

CELL = {
    "question": "下列关于细胞膜结构的说法，正确的是哪一项？", "A": "由磷脂双分子层和蛋白质组成",
    "B": "只含有蛋白质而没有脂质", "C": "没有选择透过性", "D": "在光学显微镜下可以看清", "answer": "A",
}  # fmt: skip
CIRCLE = {
    "question": "已知圆的半径是 3.5 厘米，那么它的面积大约是多少平方厘米？",
    "A": "38.5",
    "B": "22",
    "C": "11",
    "D": "7",
}
SHORT = {"question": "几？", "A": "一", "B": "二", "C": "", "D": ""}
FIELDS = ["question", "A", "B", "C", "D"]
ASKED = text_of(CELL, FIELDS)
BEFORE, BEHIND = (
    "今天的生物课讲了细胞的构造，孩子们听得很认真。",
    "作业本发下去以后，大家安静地写了半个小时。",
)
CLEAN = "小镇的清晨很安静，卖豆浆的老人推着车走过石桥，桥下的水慢慢地流。"


def write_set(path: Path, items: Sequence[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items), encoding="utf-8")
    return str(path)


def decontaminated(crawl: Path, root: Path, sets: Sequence[dict[str, Any]], **options: Any) -> Recipe:
    plain = {"use": "decontaminate", "sets": list(sets), "ngram_chars": 8, "max_items": 4, "min_overlap": 0.5}
    return over(crawl, root, [plain | {"action": "cut"} | options])


@pytest.fixture
def exam(tmp_path: Path) -> dict[str, Any]:
    """A set of three items, the last of which is too short to be found."""
    return {
        "name": "exam",
        "path": write_set(tmp_path / "exam.jsonl", [CELL, CIRCLE, SHORT]),
        "fields": FIELDS,
    }


def made(tmp_path: Path, exam: dict[str, Any], pages: Sequence[Any], **options: Any) -> Recipe:
    """The recipe over one file of these pages, worked."""
    tmp_path.mkdir(exist_ok=True)
    recipe = decontaminated(write_crawl(tmp_path / "crawl", [pages]), tmp_path / "out", [exam], **options)
    pipeline.prepare(recipe, run_here)
    return recipe


@pytest.mark.parametrize("name", ["mgsm_zh.tsv", "c3-d-test.json"])
def test_items_of_files_of_lists_are_found(tmp_path: Path, name: str) -> None:
    asked = "小明有十二个苹果，分给三个同学，每个同学得到几个？"
    content = (
        f"{asked}\t4\n" if name.endswith(".tsv") else json.dumps([[[asked], [{"question": "几个？"}], "1"]])
    )
    (tmp_path / name).write_text(content, encoding="utf-8")
    sets = {"name": "lists", "path": str(tmp_path / name), "fields": "all"}
    recipe = made(tmp_path / "run", sets, [f"{BEFORE}\n{asked}\n{BEHIND}", CLEAN])
    page, clean = texts(recipe)
    assert asked.rstrip("？") not in page
    assert page.startswith(BEFORE)
    assert page.endswith(BEHIND)
    assert clean == CLEAN


@pytest.mark.parametrize(
    "copy",
    [
        ASKED,
        opencc.OpenCC("s2t").convert(ASKED),
        ASKED.replace("，", " , ").replace(". ", "、").replace("？", "?\n\n"),
        ASKED.replace("A.", "Ａ．").replace("\n", "　"),
    ],
    ids=["plain", "Traditional", "re-punctuated", "full width"],
)
def test_a_copy_is_cut_and_the_rest_of_the_page_stays(
    copy: str, tmp_path: Path, exam: dict[str, Any]
) -> None:
    recipe = made(tmp_path, exam, [f"{BEFORE}\n{copy}\n{BEHIND}", CLEAN])
    cut, clean = rows(recipe, "kept")
    assert fold_text(cut["text"]) == fold_text(BEFORE + BEHIND)
    assert (clean["text"], clean["cuts"], clean["labels"]["decontaminate.hits"]) == (CLEAN, None, None)
    (stretch,) = cut["cuts"]
    assert stretch["rule"] == "decontaminate.exam"
    assert fold_text(stretch["text"]) == fold_text(ASKED)
    start = len(BEFORE) + 1
    told = f"exam exam.jsonl#0 1.000 {start}-{start + len(stretch['text'])}"
    assert cut["labels"] == {"decontaminate.set": "exam", "decontaminate.hits": told}
    assert cut["scores"] == {"decontaminate.overlap": 1.0, "decontaminate.items": 1.0}
    conserved(recipe)


def test_pages_that_hold_items_are_dropped_where_the_recipe_says_so(
    tmp_path: Path, exam: dict[str, Any]
) -> None:
    recipe = made(tmp_path, exam, [f"{BEFORE}{ASKED}", CLEAN, CIRCLE["question"]], action="drop")
    assert texts(recipe) == [CLEAN]
    first, second = rows(recipe, "rejected")
    assert (first["reject"], first["reject_value"], first["reject_bound"]) == ("decontaminate.exam", 1.0, 0.5)
    assert first["text"] == f"{BEFORE}{ASKED}"
    assert second["labels"]["decontaminate.hits"].startswith("exam exam.jsonl#1 ")
    conserved(recipe)


def test_the_overlap_is_the_share_of_the_items_ngrams_and_decides_by_its_bound(
    tmp_path: Path, exam: dict[str, Any]
) -> None:
    item, half = fold_text(ASKED), ASKED[: len(ASKED) // 2]
    grams = {item[i : i + 8] for i in range(len(item) - 7)}
    share = sum(gram in fold_text(half) for gram in grams) / len(grams)
    assert 0.3 < share < 0.5
    for bound, left in ((share - 0.01, fold_text(BEFORE)), (share + 0.01, fold_text(BEFORE + half))):
        recipe = made(tmp_path / str(bound), exam, [f"{BEFORE}{half}"], min_overlap=bound)
        (page,) = rows(recipe, "kept")
        assert fold_text(page["text"]) == left
        overlap = seen_items.read_seen_items(recipe.folder("decontaminate"))["overlap"].to_pylist()
        assert overlap == pytest.approx([share, 0, 0])


def test_what_many_items_have_in_common_is_no_evidence(tmp_path: Path) -> None:
    stem = "下列关于古代历史的说法中不正确的一项是"
    items = [{"question": f"{stem}{CLEAN[i : i + 12]}{i}"} for i in range(6)]
    common = {"name": "history", "path": write_set(tmp_path / "history.jsonl", items), "fields": "all"}
    pages = [f"{BEFORE}{stem}", f"{BEFORE}{items[3]['question']}"]
    recipe = made(tmp_path, common, pages, max_items=2, min_overlap=0.6)
    assert texts(recipe)[0] == pages[0]
    assert (
        texts(recipe)[1] == f"{BEFORE}{stem[:12]}"
    )  # as little is it cut, but for n-grams that run into what is not


def test_a_page_that_is_left_with_nothing_goes(tmp_path: Path, exam: dict[str, Any]) -> None:
    pages = [f"《{ASKED}》。", f"{ASKED}\n{BEHIND}"]
    assert len(texts(made(tmp_path / "one", exam, pages))) == 1
    recipe = made(tmp_path / "all", exam, pages, min_left_chars=len(fold_text(BEHIND)) + 1)
    assert texts(recipe) == []
    assert [row["text"] for row in rows(recipe, "rejected")] == pages  # dropped as they were
    assert {row["reject"] for row in rows(recipe, "rejected")} == {"decontaminate.exam"}
    assert manifest.read_manifest(recipe.folder("decontaminate")).counts["dropped:exam"] == 2


def test_stretches_that_touch_are_one_cut_and_lines_are_not_fused() -> None:
    first, second, third = (
        Stretch(2, 5, 0.6, "a", "a#1"),
        Stretch(4, 7, 0.9, "b", "b#2"),
        Stretch(9, 10, 0.5, "a", "a#1"),
    )
    places = merge_stretches([third, second, first])
    assert places == [Stretch(2, 7, 0.9, "b", "b#2"), third]
    assert cut_stretches("零一二三四五六七八九十", places) == "零一\n七八\n十"
    assert cut_stretches("零\n二三四五六\n八九", places) == "零\n\n八"
    assert describe_items([first, third, second]) == "a a#1 0.600 2-5,9-10; b b#2 0.900 4-7"


def test_an_items_text_is_the_strings_of_its_fields_with_letters_before_options() -> None:
    row = {
        "_id": "f#0",
        "id": "x1",
        "context": ["一", "二"],
        "n": 3,
        "asked": [{"q": "三", "of": ["四"]}],
        "A": "五",
    }
    assert text_of(row, ["asked", "context", "A"]) == "三\n四\n一\n二\nA. 五"
    assert text_of(row, "all") == "x1\n一\n二\n三\n四\nA. 五"


def test_sets_share_a_page_and_counts_add_up(tmp_path: Path, exam: dict[str, Any]) -> None:
    sums = {
        "name": "sums",
        "path": write_set(tmp_path / "sums.jsonl", [{"q": CIRCLE["question"]}]),
        "fields": ["q"],
    }
    pages = [f"{BEFORE}{ASKED}{BEHIND}{CIRCLE['question']}", CIRCLE["question"], CLEAN]
    recipe = decontaminated(write_crawl(tmp_path / "crawl", [pages]), tmp_path / "out", [exam, sums])
    finished = pipeline.prepare(recipe, run_here)["decontaminate"]
    assert finished.counts == {
        "in": 3, "kept": 2, "reject:decontaminate.sums": 1,
        "cut:exam": 1, "cut:sums": 1, "dropped:exam": 1, "dropped:sums": 1,
    }  # fmt: skip
    assert collect.collect_facts(recipe.folder("decontaminate")).benchmarks == (
        BenchmarkFacts("exam", 3, cannot_be_found=1, found=2, touched=0, cut_pages=1, dropped_pages=1),
        BenchmarkFacts("sums", 1, cannot_be_found=0, found=1, touched=0, cut_pages=1, dropped_pages=1),
    )
    pages_seen = seen_items.read_seen_items(recipe.folder("decontaminate")).to_pylist()
    assert [row["page"] for row in pages_seen] == [
        "crawl/0.jsonl#0",
        "crawl/0.jsonl#0",
        None,
        "crawl/0.jsonl#0",
    ]
    conserved(recipe)


def test_why_and_the_report_tell_items_overlaps_and_places(
    tmp_path: Path, exam: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = made(
        tmp_path, exam, [f"{BEFORE}{ASKED}", f"{CLEAN}{CIRCLE['question'][:12]}", CIRCLE["question"]]
    )
    folder = recipe.folder("decontaminate")
    terminal.print_pages(why.explain_page(folder, manifest.read_manifest(folder), recipe, "crawl/0.jsonl#0"))
    told = " ".join(capsys.readouterr().out.split())
    assert f"holds exam exam.jsonl#0 1.000 {len(BEFORE)}-{len(BEFORE + ASKED)}" in told
    assert f"cut by decontaminate.exam: {CELL['question']}" in told
    facts = collect.collect_facts(folder)
    assert [step.rule for group in facts.groups for step in group.steps] == ["decontaminate.exam"]
    assert [breakdown.name for breakdown in facts.breakdowns if "hits" in breakdown.name] == []
    page = render.render_page(facts)
    assert "评测集：语料里见过哪些题" in page
    assert "Evaluation sets" in page
    plain = over(tmp_path / "crawl", tmp_path / "plain", [])
    pipeline.prepare(plain, run_here)
    assert "评测集" not in render.render_page(collect.collect_facts(plain.folder("clean")))


def test_planted_items_of_real_sets_are_found_and_real_pages_are_left_alone(
    tmp_path: Path, shared_data: Path
) -> None:
    """Eighty questions of CMMLU and C3, every fourth Traditional and re-punctuated, in pages of a real
    crawl."""
    draw, to_traditional = random.Random(1), opencc.OpenCC("s2t").convert
    sets = [
        {"name": "cmmlu", "path": f"{shared_data}/eval/cmmlu.jsonl.zst", "fields": FIELDS},
        {"name": "c3", "path": f"{shared_data}/eval/c3*.jsonl.zst", "fields": ["context", "questions"]},
    ]
    items = {
        f"{part['name']} {row['_id']}": text_of(row, part["fields"])
        for part in sets for row in draw.sample(table(part["path"]).rows, 40)
    }  # fmt: skip
    items = {name: text for name, text in items.items() if len(fold_text(text)) >= 20}
    crawl = table(f"{shared_data}/web_zh_raw/part-000.jsonl.zst").rows
    real = [text for row in crawl if len(text := row.get("text") or row.get("raw_content") or "") > 300][:400]
    pages = list(real)
    for number, text in enumerate(items.values()):
        copy = to_traditional(text).replace("，", " ; ").replace("\n", " ") if number % 4 == 0 else text
        pages[number] = f"{pages[number][:150]}\n{copy}\n{pages[number][150:]}"
    recipe = decontaminated(
        write_crawl(tmp_path / "crawl", [pages[:100], pages[100:]]),
        tmp_path / "out",
        sets,
        ngram_chars=10,
        max_items=8,
    )
    finished = pipeline.prepare(recipe, run_here)["decontaminate"]
    kept = rows(recipe, "kept")
    told = [row["labels"]["decontaminate.hits"] or "" for row in kept]
    found = [name in labels for name, labels in zip(items, told, strict=False)]
    assert sum(found) >= 0.95 * len(items)  # the rest have an option or a stem that many items share
    for row, was, hit in zip(kept[: len(items)], real, found, strict=False):
        if hit:
            assert fold_text(row["text"]).startswith(fold_text(was[:150]))
            assert fold_text(row["text"]).endswith(fold_text(was[150:]))
    assert not any(told[len(items) :])
    assert [row["text"] for row in kept[len(items) :]] == real[len(items) :]
    assert finished.counts["in"] == len(pages)


CRAWL = [
    [f"{CLEAN}{part}{i}" + (f"{ASKED}{BEHIND}" if i % 5 == part else "") for i in range(12)]
    for part in range(4)
]


def test_units_worked_twice_and_in_any_order_write_the_same(tmp_path: Path, exam: dict[str, Any]) -> None:
    """Each unit is worked twice, the last first, and the driver dies after each."""
    crawl = write_crawl(tmp_path / "crawl", CRAWL)
    calm, shaken = (decontaminated(crawl, tmp_path / root, [exam]) for root in ("calm", "shaken"))
    pipeline.prepare(calm, run_here)
    worked = shaken_to_the_end(shaken, slice(-1, None))
    assert len(worked) == len(set(worked)) == 4 + 1 + 1 + 4 + 4  # clean, items, index, hits, marking
    assert hashes(shaken, "decontaminate") == hashes(calm, "decontaminate")
    folders = [Path(recipe.folder("decontaminate")) for recipe in (calm, shaken)]
    assert len({(folder / seen_items.FILE).read_bytes() for folder in folders}) == 1
    assert {path.name for path in folders[0].rglob("*.arrow")} == {
        path.name for path in (folders[0] / "kept").iterdir()
    }
    plain = [replace(manifest.read_manifest(str(folder)), provenance={}) for folder in folders]
    assert plain[0] == plain[1]


@pytest.mark.usefixtures("endpoint")
def test_in_a_bucket_the_same_bytes_are_written(tmp_path: Path, exam: dict[str, Any]) -> None:
    crawl = write_crawl(tmp_path / "crawl", CRAWL)
    calm = decontaminated(crawl, tmp_path / "calm", [exam])
    pipeline.prepare(calm, run_here)
    there = calm.model_copy(update={"root": f"s3://bucket/{tmp_path.name}"})
    pipeline.prepare(there, run_here)
    folders = [recipe.folder("decontaminate") for recipe in (calm, there)]
    tables = [storage.read_bytes(storage.join(folder, seen_items.FILE)) for folder in folders]
    assert tables[0] == tables[1]
    assert manifest.read_manifest(folders[0]).shards == manifest.read_manifest(folders[1]).shards


def test_a_set_that_changed_is_refused_by_name(tmp_path: Path, exam: dict[str, Any]) -> None:
    crawl = write_crawl(tmp_path / "crawl", CRAWL)
    recipe = decontaminated(crawl, tmp_path / "out", [exam])

    def dying(recipe: Recipe, folder: str, splits: Sequence[Split]) -> Iterator[Done]:
        if splits[0].section == "decontaminate/hits":
            raise KeyboardInterrupt
        yield from run_here(recipe, folder, splits)

    with pytest.raises(KeyboardInterrupt):
        pipeline.prepare(recipe, dying)
    before = Path(exam["path"]).read_bytes(), os.stat(exam["path"])
    write_set(Path(exam["path"]), [CIRCLE])
    with pytest.raises(VersionConflict, match=r"set:exam/exam\.jsonl"):
        pipeline.prepare(recipe, run_here)
    Path(exam["path"]).write_bytes(before[0])
    finished = pipeline.prepare(recipe, run_here)["decontaminate"]
    write_set(Path(exam["path"]), [CIRCLE])
    with pytest.raises(VersionConflict, match=r"set:exam/exam\.jsonl"):
        pipeline.prepare(recipe, run_here)
    Path(exam["path"]).write_bytes(before[0])
    assert pipeline.prepare(recipe, run_here)["decontaminate"] == finished


@pytest.mark.parametrize(
    ("items", "options", "said"),
    [
        ([], {}, "no items.*'exam'"),
        ([{"q": "天地玄黄宇宙洪荒"}], {}, "no item has the field 'question'.*the items have the fields q"),
        ([SHORT], {"ngram_chars": 40}, "an n-gram has 40.*lower passes.decontaminate.ngram_chars"),
        ([CIRCLE] * 6, {}, "in more than 4 items.*raise passes.decontaminate.max_items"),
    ],
    ids=["empty", "no field", "too short", "all the same"],
)
def test_a_set_that_cannot_be_used_is_an_error_that_names_it(
    items: list[dict[str, Any]], options: dict[str, Any], said: str, tmp_path: Path
) -> None:
    path = write_set(tmp_path / "exam.jsonl", items)
    with pytest.raises(InputError, match=f"(?s){said}") as error:
        made(tmp_path, {"name": "exam", "path": path, "fields": FIELDS}, [CLEAN], **options)
    assert path in error.value.where
    assert error.value.remedy


def test_a_missing_file_and_names_that_do_not_tell_sets_apart_are_errors(
    tmp_path: Path, exam: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match=r"(?s)no file matches.*nowhere\.jsonl"):
        made(tmp_path / "a", exam | {"path": str(tmp_path / "nowhere.jsonl")}, [CLEAN])
    crawl = write_crawl(tmp_path / "crawl", [[CLEAN]])
    for sets, said in (
        ([exam, exam], "two evaluation sets are named 'exam'"),
        ([], "has no evaluation sets"),
    ):
        with pytest.raises(RecipeError, match=said):
            pipeline.prepare(decontaminated(crawl, tmp_path / "out", sets), run_here)
    for folder in ("dev", "test"):
        (tmp_path / folder).mkdir()
        write_set(tmp_path / folder / "law.jsonl", [CELL])
    with pytest.raises(InputError, match=r"two files of the evaluation set 'exam' are named 'law\.jsonl'"):
        made(tmp_path / "b", exam | {"path": str(tmp_path / "*" / "law.jsonl")}, [CLEAN])
    with pytest.raises(RecipeError, match="fields"):
        decontaminated(crawl, tmp_path / "out", [{"name": "exam", "path": exam["path"]}])


def test_no_pages_and_a_pass_before_are_fine(tmp_path: Path, exam: dict[str, Any]) -> None:
    page = f"{BEFORE}{ASKED}"
    crawl = write_crawl(tmp_path / "crawl", [[page, page, CLEAN], [page]])
    own = {"use": "decontaminate", "sets": [exam], "ngram_chars": 8, "max_items": 4, "min_overlap": 0.5}
    recipe = over(crawl, tmp_path / "out", [EXACT, own | {"action": "cut"}])
    assert pipeline.prepare(recipe, run_here)["decontaminate"].counts == {"in": 2, "kept": 2, "cut:exam": 1}
    conserved(recipe)
    (crawl / "0.jsonl").write_text("", encoding="utf-8")
    (crawl / "1.jsonl").write_text("", encoding="utf-8")
    empty = decontaminated(crawl, tmp_path / "empty", [exam])
    assert pipeline.prepare(empty, run_here)["decontaminate"].counts == {"in": 0, "kept": 0}
    assert seen_items.read_seen_items(empty.folder("decontaminate"))["overlap"].to_pylist() == [0, 0, 0]
