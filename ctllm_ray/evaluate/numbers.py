"""The number that an answer in words comes to, for sums: as a number, not as a string.

    460, 460.0, 1,234, $460, ４６０, 四百六十, 46万, -460

An answer says its number behind `答案是`, `####`, `The answer is` or in \\boxed{}; else the last number counts, but a
percentage only where there is nothing else. Chinese numerals count where no digit stands: 一 is in too many words.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal

_MARKERS = re.compile(r"答案\s*(?:是|为|[::])|####|the answer is|\\boxed\{", re.I)
_DIGITS = re.compile(
    r"(?P<sign>(?:(?<![\d.)\]a-z])-|负)?)\s*[$¥￥]?(?P<digits>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)"
    r"\s*(?P<unit>万|亿)?(?P<percent>\s*%)?",
    re.I,
)
_HAN = "零〇一二两三四五六七八九"
_CHINESE = re.compile(rf"(?P<sign>负?)(?P<digits>[{_HAN}十百千万亿]+(?:点[{_HAN}]+)?)")
_ONES = {han: value for value, han in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_TENS = {"十": 10, "百": 100, "千": 1000}
_UNITS = {"万": Decimal(10_000), "亿": Decimal(100_000_000)}


def read_number(answer: str) -> Decimal | None:
    """The number that an answer says; None where it says none."""
    text = unicodedata.normalize("NFKC", answer)
    if markers := list(_MARKERS.finditer(text)):
        behind = text[markers[-1].end() :]
        if told := _DIGITS.search(behind) or _CHINESE.search(behind):
            return _value(told)
    if numbers := list(_DIGITS.finditer(text)):
        return _value(next((number for number in reversed(numbers) if not number["percent"]), numbers[-1]))
    numerals = list(_CHINESE.finditer(text))
    longer = [numeral for numeral in numerals if len(numeral["digits"]) > 1]
    return _value((longer or numerals)[-1]) if numerals else None


def is_same_number(answer: str, target: str) -> bool:
    """True where an answer says the target's number."""
    return read_number(answer) == Decimal(target)


def _value(match: re.Match[str]) -> Decimal:
    digits = match["digits"].replace(",", "")
    value = Decimal(digits) if digits[0].isdecimal() else _of_chinese(digits)
    value *= _UNITS.get(match.groupdict().get("unit") or "", 1)
    return -value if match["sign"] else value


def _of_chinese(numeral: str) -> Decimal:
    """一千零二十三 is 1023, 两万三千 23000, 二〇二四 2024, 三点五 3.5."""
    whole, _, rest = numeral.partition("点")
    fraction = Decimal("0." + "".join(str(_ONES[han]) for han in rest)) if rest else Decimal(0)
    if not set(whole) & {*_TENS, *_UNITS}:  # digit by digit
        return Decimal("".join(str(_ONES[han]) for han in whole)) + fraction
    total, below, ones = Decimal(0), 0, 0
    for han in whole:
        if han in _ONES:
            ones = _ONES[han]
        elif han in _TENS:
            below, ones = below + (ones or 1) * _TENS[han], 0
        elif han == "万":
            total, below, ones = total + (below + ones) * _UNITS[han], 0, 0
        else:  # 亿 is of all before it: 一万亿
            total, below, ones = (total + below + ones) * _UNITS[han], 0, 0
    return total + below + ones + fraction
