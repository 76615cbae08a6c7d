"""Conversations in stages and passes: what is said is seen and not JSON, and nothing of a turn is changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ctllm_ray.base import recipe as recipes
from ctllm_ray.base.errors import RecipeError
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.corpus import pipeline
from ctllm_ray.corpus.dedup.snapshot_index import TEXTS
from ctllm_ray.shards import manifest
from tests.corpus.conftest import run_here
from tests.corpus.dedup_recipes import NEAR, rows

WORDS = ["细胞", "地幔", "词牌", "县城", "河流", "铁矿", "蜂巢", "齿轮", "稻田", "竹简", "盐湖", "钟乳石"]
ITEMS = [
    {
        "question": f"第{n}题：下列关于{what}的说法，正确的是哪一项？",
        "A": f"{what}由三部分组成",
        "B": f"{what}没有颜色",
    }
    for n, what in enumerate(
        ["细胞", "地幔", "词牌", "县城", "河流", "铁矿", "蜂巢", "齿轮", "稻田", "竹简", "盐湖", "钟乳石"]
    )
]
CODE = (
    "好的：\n```python\ndef f(x):\n    if x:\n        return 1\n\treturn  2\n```\n见 https://a.example/x?y=1"
)


def turns(*contents: str) -> dict[str, Any]:
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[at % 2], "content": content} for at, content in enumerate(contents)]}


def printed(item: dict[str, str]) -> str:
    """An exam item as answers quote it: each option on a line of its own."""
    return f"请看这道题。\n{item['question']}\nA. {item['A']}\nB. {item['B']}\n答案是 A。"


def recipe(root: Path, lines: list[dict[str, Any]], use: str = "messages", **parts: Any) -> Recipe:
    root.mkdir(parents=True, exist_ok=True)
    path = root / "talks.jsonl"
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    plain = {
        "name": "turns", "version": "1", "seed": 1, "root": str(root / "out"), "stages": [],
        "data": {"inputs": [{"use": use, "path": str(path), "name": "talks"}], "max_error_share": 0.0},
    }  # fmt: skip
    return recipes.parse_recipe(plain | parts)


@pytest.fixture
def sets(tmp_path: Path) -> list[dict[str, Any]]:
    path = tmp_path / "exam.jsonl"
    path.write_text("".join(json.dumps(item, ensure_ascii=False) + "\n" for item in ITEMS), encoding="utf-8")
    return [{"name": "exam", "path": str(path), "fields": ["question", "A", "B"]}]


def decontaminate(sets: list[dict[str, Any]], action: str) -> dict[str, Any]:
    return {
        "use": "decontaminate", "sets": sets, "ngram_chars": 8, "max_items": 4, "min_overlap": 0.5,
        "action": action,
    }  # fmt: skip


@pytest.mark.parametrize("action", ["cut", "drop"])
@pytest.mark.parametrize("use", ["messages", "preference"])
def test_every_item_that_stands_in_an_answer_is_found_and_takes_its_conversation_along(
    tmp_path: Path, sets: list[dict[str, Any]], action: str, use: str
) -> None:
    clean = [f"我家门前有{n}棵树，春天开花，秋天落叶，冬天只剩枝条。" for n in range(5)]
    answers = [*map(printed, ITEMS), *clean]
    lines = [turns("出一道题吧", answer) for answer in answers]
    if use == "preference":
        lines = [{"prompt": "出一道题吧", "chosen": answer, "rejected": "不会。"} for answer in answers]
    of = recipe(tmp_path, lines, use, passes=[decontaminate(sets, action)])
    pipeline.prepare(of, run_here)
    counts = manifest.read_manifest(of.folder("decontaminate")).counts
    assert (counts["in"], counts["kept"], counts["reject:decontaminate.exam"]) == (17, 5, 12)
    assert counts["dropped:exam"] == 12
    assert "cut:exam" not in counts
    left = [json.loads(row["text"]) for row in rows(of, "kept")]
    said = [found[-1]["content"] if use == "messages" else found["chosen"][0]["content"] for found in left]
    assert said == clean


def test_measures_see_what_is_said_and_turns_stay_as_they_are(tmp_path: Path) -> None:
    rules = [{"use": "document.char_count", "min": 5}, {"use": "line.count", "max": 99}]
    lines = [turns("写一段代码", CODE), turns("嗯", "好")]
    of = recipe(tmp_path, lines, stages=[{"use": "measure", "rules": rules[:1]}])
    pipeline.prepare(of, run_here)
    [kept] = rows(of, "kept")
    assert json.loads(kept["text"]) == lines[0]["messages"]
    assert kept["scores"]["document.char_count"] == len(f"写一段代码\n{CODE}")
    [gone] = rows(of, "rejected")
    assert (gone["reject"], gone["reject_value"]) == ("document.char_count", len("嗯\n好"))
    assert json.loads(gone["text"]) == lines[1]["messages"]


@pytest.mark.parametrize("use", ["normalize", "lines", "mojibake", "extract", "ct_llm_released"])
def test_a_stage_that_would_change_the_json_is_refused_by_name(tmp_path: Path, use: str) -> None:
    of = recipe(tmp_path, [turns("问", "答")], stages=[{"use": use}])
    with pytest.raises(
        RecipeError, match=f"'{use}' supports texts only: conversations are stored as JSON"
    ) as refused:
        pipeline.prepare(of, run_here)
    assert "talks" in refused.value.where
    assert not Path(of.folder("clean")).exists()


def test_a_pass_over_lines_of_pages_is_refused_by_name(tmp_path: Path) -> None:
    of = recipe(
        tmp_path, [turns("问", "答")], passes=[{"use": "boilerplate", "min_pages": 3, "min_share": 0.5}]
    )
    with pytest.raises(RecipeError, match="'boilerplate' supports texts only"):
        pipeline.prepare(of, run_here)


def test_conversations_are_not_near_copies_for_their_quotes_and_the_names_of_roles(tmp_path: Path) -> None:
    told = "春天到了去山里看花，水也清，风也轻，孩子们笑着跑过桥，说明年还要再来一次，老人坐在门前晒太阳，看他们走远"
    other = "秋天来了去海边拾贝，浪也高，云也低，渔夫们唱着收起网，问今年能卖多少钱呢，姑娘站在船头数星星，等天慢慢亮"
    short = [turns(*(f"{word}{n}" for n in "一二三四五六七八九十")) for word in ("山", "海")]
    lines = [turns("讲个故事", told), turns("讲个故事。", f"{told}。"), turns("讲个故事", other), *short]
    of = recipe(tmp_path, lines, passes=[NEAR | {"of": "raw", "min_chars": 8, "keep_index": True}])
    pipeline.prepare(of, run_here)
    counts = manifest.read_manifest(of.folder("near")).counts
    assert (counts["in"], counts["kept"]) == (5, 4)
    [compared] = Path(of.folder("near/keys"), TEXTS).glob("*.arrow")
    texts = pa.ipc.open_file(compared).read_all()["text"].to_pylist()
    assert texts == ["\n".join(turn["content"] for turn in line["messages"]) for line in lines]


def test_a_section_that_read_json_before_is_not_taken_for_one_that_reads_turns(tmp_path: Path) -> None:
    of = recipe(tmp_path, [turns("写一段代码", CODE)], stages=[{"use": "measure", "rules": []}])
    pipeline.prepare(of, run_here)
    assert manifest.read_manifest(of.folder("clean")).provenance["turns"] == "contents"
    plain = recipe(tmp_path / "plain", [turns("写一段代码", CODE)])
    pipeline.prepare(plain, run_here)
    assert "turns" not in manifest.read_manifest(plain.folder("clean")).provenance
