"""Answers to sums are compared as numbers."""

from __future__ import annotations

from decimal import Decimal

import pytest

from ctllm_ray.evaluate.numbers import is_same_number, read_number


@pytest.mark.parametrize(
    "answer",
    [
        "460", "460.0", "460.00", "４６０", "四百六十", "460。今年的产量比去年多10%", "一共是 460 元。", "$460",
        "460%",
        "先算 40 加 6，得 46，再乘 10，得 460。", "#### 460", "答案是 460。其中 100 个是红的。",
        "The answer is $460.00.",
        "\\boxed{460}", "500-40=460", "答案：四百六十元。这是唯一的答案。", "共四百六十个", "他有 460", "0.046万",
    ],
)  # fmt: skip
def test_the_number_that_is_said_counts_in_each_form(answer: str) -> None:
    assert is_same_number(answer, "460")


@pytest.mark.parametrize(
    "answer", ["4.60", "46.0", "-460", "负460", "4600", "46", "", "不知道", "答案是 -460", "460万"]
)
def test_another_number_is_wrong_however_much_it_looks_alike(answer: str) -> None:
    assert not is_same_number(answer, "460")


@pytest.mark.parametrize(
    ("said", "number"),
    [
        ("1,234", "1234"), ("12,5", "5"), ("一千零二十三", "1023"), ("两万三千", "23000"), ("二〇二四", "2024"),
        ("十", "10"),
        ("三点五", "3.5"), ("十二亿三千万", "1230000000"), ("1.5万", "15000"), ("= -7", "-7"), ("增长了25%", "25"),
        ("3 + -4", "-4"),
    ],
)  # fmt: skip
def test_numbers_are_read_as_they_are_written(said: str, number: str) -> None:
    assert read_number(said) == Decimal(number)
