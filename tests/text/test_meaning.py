"""Pages that are nearly equal and say something else: numbers, signs, negations, opposites, not slips and furniture."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from ctllm_ray.text.dedup.meaning import differ_in_meaning
from ctllm_ray.text.dedup.signs import fold_with_signs

TEXT = (
    "今天我们去山里走了一天，水也清，风也轻，孩子们在桥上笑着跑过，老人坐在树荫里说起从前的事。"
    "傍晚回到村口，有人在卖新摘的桃子，我们买了一些，坐在石阶上吃完才回家。"
)
YARD = "村里第{}家的院子种着果树，每年秋天他们把果子晒干，装进布袋，等着远方的客人。"
LONG = "".join(YARD.format(c) for c in "甲乙丙丁戊己庚辛壬癸子丑寅卯")


def differs(one: str, other: str, short_chars: int = 200, share: float = 0.02) -> bool:
    texts = fold_with_signs(pa.array([one, other]))
    both = [differ_in_meaning(texts, np.array([a]), np.array([1 - a]), short_chars=short_chars, max_changed_share=share)
            for a in (0, 1)]  # fmt: skip
    assert both[0] == both[1]
    return bool(both[0][0])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("他有3个苹果", "他有13个苹果"),
        ("他有3个苹果", "他有8个苹果"),
        ("走了12+5米", "走了12-5米"),
        ("学C语言", "学C++语言"),
        ("在Windows上", "在Linux上"),
        ("该产品符合标准", "该产品不符合标准"),
        ("可以使用", "不可以使用"),
        ("价格上升了", "价格下降了"),
        ("向左转", "向右转"),
        ("三名学生", "五名学生"),
        ("三名学生", "十三名学生"),
        ("他未到场", "他到场"),
    ],
)
def test_one_such_change_is_enough_in_a_short_page(one: str, other: str) -> None:
    half = len(TEXT) // 2
    assert differs(TEXT[:half] + one + TEXT[half:], TEXT[:half] + other + TEXT[half:])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("", ""),
        ("在桥边看水", "在桥边望水"),  # a slip
        ("我们慢慢走", "我们慢走"),
        ("", "。欢迎转载本文请注明出处，电话12345678，一起来玩吧"),  # more text
        ("阅读 123", "阅读 98765"),
        ("发布时间：2020-01-02", "发布时间：2021-11-12"),
        ("12次浏览", "345次浏览"),
        ("漢語", "汉语"),
        ("他说：", "他说，"),
    ],
)
def test_slips_more_text_and_furniture_say_nothing_else(one: str, other: str) -> None:
    half = len(TEXT) // 2
    assert not differs(TEXT[:half] + one + TEXT[half:], TEXT[:half] + other + TEXT[half:])


def test_a_negation_among_many_slips_is_one_of_them() -> None:
    changed = list(TEXT)
    for at in range(3, len(TEXT), 6):
        changed[at] = "某"
    half = len(TEXT) // 2
    assert not differs(
        TEXT[:half] + "他不去了" + TEXT[half:], "".join(changed[:half]) + "他去了" + "".join(changed[half:])
    )


def test_in_a_long_page_changed_numbers_must_be_a_share_of_it() -> None:
    one = LONG.replace("每年", "每年8次")
    other = one.replace("每年8次", "每年9次", 6)
    assert not differs(one, other)
    assert differs(one, other, share=0.005)
    assert differs(one, other, short_chars=1000)
    assert differs(one, one.replace("每年8次", "每年9次"), share=0.015)


def test_an_edge_of_a_long_page_is_furniture_and_one_of_a_short_page_is_not() -> None:
    assert not differs("共8件" + LONG, "共9件" + LONG, short_chars=1000)
    assert differs("共8件" + TEXT, "共9件" + TEXT)


def test_texts_that_are_far_apart_are_left_to_other_bounds() -> None:
    assert not differs(TEXT, LONG)
    assert not differs("", TEXT)
