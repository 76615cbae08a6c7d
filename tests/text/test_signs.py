"""Folded text that keeps signs: what carries meaning is another text, what is typography is none."""

from __future__ import annotations

import random

import pyarrow as pa
import pytest

from ctllm_ray.text.dedup.fold import fold
from ctllm_ray.text.dedup.signs import _KINDS, fold_with_signs, strip_signs


def folded(text: str) -> str:
    return str(fold_with_signs(pa.array([text]))[0])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("走了12+5米", "走了12-5米"),
        ("每斤3.5元", "每斤35元"),
        ("气温是-8度", "气温是8度"),
        ("气温是−8度", "气温是8度"),
        ("if a > b:", "if a < b:"),
        ("a <= b", "a >= b"),
        ("x=5", "x≠5"),
        ("学C语言", "学C++语言"),
        ("学C语言", "学C#语言"),
        ("比分3:2", "比分32"),
        ("占1/2", "占12"),
        ("第3、5题", "第35题"),
        ("第1,2345题", "第12345题"),
        ("涨了5%", "涨了5"),
        ("5%", "5‰"),
        ("转20°", "转20"),
        ("10²米", "102米"),
        ("x²", "x2"),
        ("5×2", "5÷2"),
        ("$35", "¥35"),
        ("+5", "5"),
        ("√2", "2"),
    ],
)
def test_signs_that_carry_meaning_make_another_text(one: str, other: str) -> None:
    assert folded(one) != folded(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("１２＋５", "12+5"),
        ("12 + 5", "12+5"),
        ("１２：３０", "12:30"),
        ("3～5天", "3-5天"),
        ("3—5天", "3–5天"),
        ("1,000人", "1000人"),
        ("1，000，000人", "1000000人"),
        ("20℃", "20°C"),
        ("￥35", "¥35"),
        ("首页 > 新闻", "首页 新闻"),
        ("好——8月", "好，8月"),
        ("covid-19", "covid19"),
        ("e-mail", "email"),
        ("他说：“好。”", "他说:「好」"),
        ("漢語，Ａ１。", "汉语 a1"),
        ("第一，第二", "第一第二"),
        ("-8月-", "-8月"),
    ],
)
def test_typography_makes_no_other_text(one: str, other: str) -> None:
    assert folded(one) == folded(other)


def test_without_signs_it_is_the_folded_text() -> None:
    draw = random.Random(1)
    signs = "".join(
        variant for forms in _KINDS.values() for variants in forms.values() for variant in variants
    )
    letters = "春天a1，。 漢ﬁ№㎏！？“”\u200b😀…5９ΑxX" + signs
    texts = ["".join(draw.choices(letters, k=draw.randrange(30))) for _ in range(2000)]
    texts += [
        f"1{chr(point)}2 {chr(point)}" for point in range(0x20, 0x323B0) if not 0xD800 <= point < 0xE000
    ]
    column = pa.array(texts)
    assert strip_signs(fold_with_signs(column)).equals(fold(column))


def test_a_batch_folds_as_its_rows_and_long_forms_fit() -> None:
    rows = ["", "12+5", "😀", "ﷺ" * 50, "1+" * 100, "a"]
    assert fold_with_signs(pa.array(rows)).to_pylist() == [folded(row) for row in rows]
    assert fold_with_signs(pa.array(rows)[3:5]).to_pylist() == [folded(row) for row in rows[3:5]]
