"""Contamination: which items are found, where, and by how much."""

from __future__ import annotations

import opencc
import pyarrow as pa

from ctllm_ray.text import contamination as module
from ctllm_ray.text.contamination import hits, index
from ctllm_ray.text.dedup.fold import fold_text, table
from ctllm_ray.text.kernels.codepoints import buffers

FIRST = "下列关于细胞膜结构的说法，哪一项是正确的？A. 由磷脂和蛋白质组成 B. 只含有蛋白质"
SECOND = "已知圆的半径是 3.5 厘米，那么它的面积大约是多少平方厘米？"
ITEMS = pa.array([FIRST, SECOND, "太短了", SECOND])


def _rows(page: str, **options: int) -> list[tuple]:
    made = index(ITEMS, **({"ngram_chars": 8, "max_items": 4} | options))
    found = hits(pa.array(["先来一页没有关系的文字，什么题目都没有。", page]), made)
    assert set(found.rows.tolist()) <= {1}
    return [
        (int(item), page[start:end], round(float(overlap), 3))
        for item, start, end, overlap in zip(found.items, found.start, found.end, found.overlap, strict=True)
    ]


def test_a_copied_item_is_found_whole_and_its_stretch_is_of_the_raw_page() -> None:
    assert _rows(f"复习题：{FIRST}答案见后。") == [(0, FIRST, 1.0)]


def test_twins_in_script_width_and_punctuation_are_found() -> None:
    twin = opencc.OpenCC("s2t").convert(FIRST).replace("，", " , ").replace("A.", "Ａ、")
    assert _rows(f"題：{twin}") == [(0, twin, 1.0)]


def test_items_with_one_text_are_each_hit() -> None:
    question = SECOND.rstrip("？")  # the last mark is folded away and belongs to no n-gram
    assert _rows(f"（2）{SECOND}") == [(1, question, 1.0), (3, question, 1.0)]


def test_shuffled_options_leave_stretches_and_a_smaller_overlap() -> None:
    head, a, b = FIRST.split("A. ")[0], "由磷脂和蛋白质组成", "只含有蛋白质"
    found = _rows(f"{head}A. {b} B. {a}")
    assert len(found) == 2
    assert found[0][1].startswith("下列关于细胞膜")
    assert fold_text(found[1][1]) == fold_text(a)
    grams = len(fold_text(FIRST)) - 7
    held = {fold_text(f"{head}A. {b} B. {a}")[i : i + 8] for i in range(100)}
    assert found[0][2] == round(len({fold_text(FIRST)[i : i + 8] for i in range(grams)} & held) / grams, 3)


def test_ngrams_of_too_many_items_count_for_none() -> None:
    assert _rows(SECOND, max_items=1) == []
    made = index(ITEMS, ngram_chars=8, max_items=1)
    assert made.grams.tolist() == [len(fold_text(FIRST)) - 7, 0, 0, 0]


def test_a_repeated_ngram_counts_once() -> None:
    made = index(pa.array(["天地玄黄" * 4]), ngram_chars=4, max_items=1)
    assert made.grams.tolist() == [4]
    found = hits(pa.array(["天地玄黄天地玄黄"]), made)
    assert found.overlap.tolist() == [1.0]


def test_nothing_in_an_index_and_no_pages_are_no_hits() -> None:
    empty = index(pa.array([], pa.string()), ngram_chars=8, max_items=4)
    assert len(hits(pa.array([FIRST]), empty).rows) == 0
    assert len(hits(pa.array([], pa.string()), index(ITEMS, ngram_chars=8, max_items=4)).rows) == 0


def test_interpreted_and_compiled_matches_agree() -> None:
    made = index(ITEMS, ngram_chars=8, max_items=4)
    arguments = (*buffers(pa.array([FIRST, SECOND])), *table(), *made[1:2], *made[5:], 8)
    want = module._matches.py_func(*arguments)  # type: ignore[attr-defined]
    assert (want == module._matches(*arguments)).all()
