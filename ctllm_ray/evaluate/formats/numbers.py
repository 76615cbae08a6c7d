"""Reads the number in a written answer to a math problem, as a number instead of a string.

    460, 460.0, 1,234, $460, ４６０, 四百六十, 四百六, 46万, 3百万, -460, −460

An answer says its number behind `答案是`, `####`, `The answer is` or in \\boxed{}, in the first clause there
that has one; else the last number counts, but a percentage only where there is nothing else. Chinese numerals
count where no digit stands: 一 is in too many words.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal

_MARKERS = re.compile(r"答案\s*(?:是|为|[::])|####|the answer is|\\boxed\{", re.I)
_DIGITS = re.compile(
    r"(?P<sign>(?:(?<![\d.)\]a-z])-|负)?)\s*[$¥￥]?(?P<digits>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)"
    r"\s*(?P<unit>[百千]?(?:万亿|[万亿])|百|千(?![克米瓦卡]))?(?P<percent>\s*%)?",
    re.I,
)
_HAN = "零〇一二两三四五六七八九"
_CHINESE = re.compile(
    rf"(?P<sign>负?)(?!一[共样起定般直些下切旦致律同])(?P<digits>[{_HAN}十百千万亿]+(?:点[{_HAN}]+)?)"
)
_ONES = {han: value for value, han in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_TENS = {"十": Decimal(10), "百": Decimal(100), "千": Decimal(1000)}
_UNITS = {"万": Decimal(10_000), "亿": Decimal(100_000_000)}
_MINUS = str.maketrans("−–", "--")
_LISTED = re.compile(r"^\s*[-*+•·]\s+", re.M)  # the dash of a list is not a sign
_CLAUSE = re.compile(r"[。;!?\n、]|[,.](?!\d)")


def read_number(answer: str) -> Decimal | None:
    """The number in an answer; None if there is none."""
    text = _plain(answer)
    if markers := list(_MARKERS.finditer(text)):
        for clause in _CLAUSE.split(text[markers[-1].end() :]):
            if match := _DIGITS.search(clause) or _CHINESE.search(clause):
                return _value(match)
    if numbers := list(_DIGITS.finditer(text)):
        return _value(next((number for number in reversed(numbers) if not number["percent"]), numbers[-1]))
    numerals = list(_CHINESE.finditer(text))
    longer = [numeral for numeral in numerals if len(numeral["digits"]) > 1]
    return _value((longer or numerals)[-1]) if numerals else None


def is_same_number(answer: str, target: str) -> bool:
    """True if an answer contains the target's number."""
    return read_number(answer) == Decimal(target)


def _plain(answer: str) -> str:
    """With plain digits, signs and commas. A full-width comma separates numbers, except
    between full-width digits."""
    parted = re.sub("(?<![０-９])，|，(?![０-９]{3})", ", ", answer)
    text = unicodedata.normalize("NFKC", parted).translate(_MINUS)
    return _LISTED.sub("", text.replace("{,}", ",").replace("\\,", ""))


def _value(match: re.Match[str]) -> Decimal:
    digits = match["digits"].replace(",", "")
    value = Decimal(digits) if digits[0].isdecimal() else _of_chinese(digits)
    for unit in match.groupdict().get("unit") or "":
        value *= _size(unit)
    return -value if match["sign"] else value


def _size(unit: str) -> Decimal:
    return _TENS.get(unit) or _UNITS[unit]


def _of_chinese(numeral: str) -> Decimal:
    """一千零二十三 is 1023, 两万三千 23000, 四千五 4500, 二〇二四 2024, 三点五 3.5."""
    whole, _, rest = numeral.partition("点")
    fraction = Decimal("0." + "".join(str(_ONES[han]) for han in rest)) if rest else Decimal(0)
    if not set(whole) & {*_TENS, *_UNITS}:  # digit by digit
        return Decimal("".join(str(_ONES[han]) for han in whole)) + fraction
    zero = Decimal(0)
    total = below = ones = zero
    for han in whole:
        if han in _ONES:
            ones = Decimal(_ONES[han])
        elif han in _TENS:
            below, ones = below + (ones or 1) * _TENS[han], zero
        elif han == "万":
            total, below, ones = total + (below + ones) * _UNITS[han], zero, zero
        else:  # 亿 multiplies everything before it: 一万亿
            total, below, ones = (total + below + ones) * _UNITS[han], zero, zero
    if whole[-2:-1] in {"百", "千", "万", "亿"}:  # the omitted unit is the next lower one: 四千五 is 四千五百
        ones *= _size(whole[-2]) / 10
    return total + below + ones + fraction
