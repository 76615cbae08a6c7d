"""Answers to sums are compared as numbers."""

from __future__ import annotations

from decimal import Decimal

import pytest

from ctllm_ray.evaluate.formats.numbers import is_same_number, read_number


@pytest.mark.parametrize(
    "answer",
    [
        "460", "460.0", "460.00", "４６０", "四百六十", "460。今年的产量比去年多10%", "一共是 460 元。",
        "$460",
        "460%",
        "先算 40 加 6，得 46，再乘 10，得 460。", "#### 460", "答案是 460。其中 100 个是红的。",
        "The answer is $460.00.",
        "\\boxed{460}", "500-40=460", "答案：四百六十元。这是唯一的答案。", "共四百六十个", "他有 460",
        "0.046万",
        "答案是四百六十，比去年多10%", "答案是四百六", "答案：\n- 460", "- 460\n",
        "答案是一共 460 元，其中 3 个",
        "答案是一样的，都是 460", "1 – 461 = –460 的相反数，即 460", "\\boxed{460}，不是 1{,}234", "4.6百",
        "0.46千",
        "460千克", "答案是 460，200", "40，460",
    ],
)  # fmt: skip
def test_the_number_that_is_said_counts_in_each_form(answer: str) -> None:
    assert is_same_number(answer, "460")


@pytest.mark.parametrize(
    "answer",
    [
        "4.60",
        "46.0",
        "-460",
        "负460",
        "4600",
        "46",
        "",
        "不知道",
        "答案是 -460",
        "460万",
        "−460",
        "–460",
        "答案是−460",
        "460千",
        "460，10",
    ],
)
def test_another_number_is_wrong_however_much_it_looks_alike(answer: str) -> None:
    assert not is_same_number(answer, "460")


@pytest.mark.parametrize(
    ("said", "number"),
    [
        ("1,234", "1234"), ("12,5", "5"), ("一千零二十三", "1023"), ("两万三千", "23000"),
        ("二〇二四", "2024"),
        ("十", "10"),
        ("三点五", "3.5"), ("十二亿三千万", "1230000000"), ("1.5万", "15000"), ("= -7", "-7"),
        ("增长了25%", "25"),
        ("3 + -4", "-4"),
        ("四千五", "4500"), ("一万五", "15000"), ("一亿二", "120000000"), ("一百零五", "105"), ("十五", "15"),
        ("二十五", "25"),
        ("一万零五", "10005"), ("两万三千五", "23500"), ("4千", "4000"), ("3百万", "3000000"),
        ("2万亿", "2000000000000"),
        ("3千米", "3"),
        ("100，200", "200"), ("１，２３４", "1234"), ("\\boxed{1{,}234}", "1234"), ("1\\,234", "1234"),
        ("3–5", "5"),
    ],
)  # fmt: skip
def test_numbers_are_read_as_they_are_written(said: str, number: str) -> None:
    assert read_number(said) == Decimal(number)
