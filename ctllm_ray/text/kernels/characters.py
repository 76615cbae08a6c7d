"""The class and flags of every code point, as one table that kernels look up.

The table covers the Basic Multilingual Plane in 128 KiB (what a page really uses of it fits a first-level
cache); the few code points above it follow a rule of three lines. Nothing is a hand-made list where a
standard decides: classes are Unicode general categories, common Han characters are level 1 of GB 2312 and of
Big5, and the Simplified-only and Traditional-only characters are those that OpenCC converts and the other
side's national standard does not contain, so that 后, 里, 干 or 乾, which both scripts use, are no evidence.
"""

from __future__ import annotations

import unicodedata
from functools import cache

import numpy as np
import opencc

# Classes: the low 4 bits of an entry.
(
    OTHER,
    SPACE,
    NEWLINE,
    CONTROL,
    DIGIT,
    LATIN,
    HAN,
    RARE_HAN,
    KANA,
    HANGUL,
    PUNCTUATION,
    SYMBOL,
    PRIVATE,
    LETTER,
) = range(14)
CLASS_BITS = 4
CLASS_MASK = (1 << CLASS_BITS) - 1

# Flags: single bits above the class.
SIMPLIFIED, TRADITIONAL, FUNCTION, CLASSICAL, MODERN, SENTENCE_END, CLOSER, CLAUSE_END, BULLET, NUMERAL = (
    1 << bit for bit in range(CLASS_BITS, CLASS_BITS + 10)
)

#: Words of one character that running modern text cannot do without, in both scripts. No 年 月 日: they come
#: from Wikipedia-made lists and let timetables pass (pitfall 5).
FUNCTION_WORDS = (
    "的了是在不和有我他她它这這那也就都而及与與为為于於被把让讓从從对對但或又很会會要能可以所其之"
)
#: Particles and pronouns of classical Chinese that modern prose rarely uses.
CLASSICAL_WORDS = "之乎者也矣焉哉曰兮邪耶歟欤其乃則则吾汝爾尔蓋盖遂弗豈岂孰奚惟夫亦"
#: Words that mark modern vernacular text.
MODERN_WORDS = "的了着吗嗎呢吧啊们們这這那是很她它哪您"

#: The dots . and ． are not here: they end sentences in some places only (views.kinds).
SENTENCE_ENDS = "。！？!?…；;｡‥"
#: May follow the end mark of a line: a line of dialogue ends in ” or 」 and is complete (pitfall 3).
CLOSERS = "”’」』）)》〉】\"'］]"
CLAUSE_ENDS = SENTENCE_ENDS + "，,、：:\n"
BULLETS = "•●○■□▪▫※·➢‣▶◀◦–★☆◆◇►▲△▼▽➤➜✓✔❖"
NUMERALS = "零〇一二三四五六七八九十百千万萬亿億两兩壹贰叁肆伍陆柒捌玖拾佰仟"

_PUNCTUATION = {"Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po"}


@cache
def table() -> np.ndarray:
    """Class and flags of each code point below 0x10000 (uint16)."""
    entries = np.array([_class(point) for point in range(0x10000)], np.uint16)
    entries[_points(_level_one())] = HAN
    traditional, simplified = _one_sided()
    for characters, flag in [
        (simplified, SIMPLIFIED),
        (traditional, TRADITIONAL),
        (FUNCTION_WORDS, FUNCTION),
        (CLASSICAL_WORDS, CLASSICAL),
        (MODERN_WORDS, MODERN),
        (SENTENCE_ENDS, SENTENCE_END),
        (CLOSERS, CLOSER),
        (CLAUSE_ENDS, CLAUSE_END),
        (BULLETS, BULLET),
        (NUMERALS, NUMERAL),
    ]:
        entries[_points(characters)] |= np.uint16(flag)
    return entries


def _points(characters: str) -> np.ndarray:
    return np.array([ord(c) for c in characters if ord(c) < 0x10000], np.int64)


def _class(point: int) -> int:
    """The class of a code point by block and general category. Han is rare unless a
    national standard lists it."""
    if point in {0x0A, 0x0D, 0x2028, 0x2029}:
        return NEWLINE
    if point == 0x09:
        return SPACE
    if point in {0x3005, 0x3006, 0x3007}:  # 々 〆 〇 are written among Han characters
        return HAN
    if (
        0x3400 <= point <= 0x4DBF
        or 0x4E00 <= point <= 0x9FFF
        or 0xF900 <= point <= 0xFAFF
        or 0x2E80 <= point <= 0x2FDF
    ):
        return RARE_HAN
    if 0x3041 <= point <= 0x30FF or 0x31F0 <= point <= 0x31FF or 0xFF66 <= point <= 0xFF9F:
        return KANA if point not in {0x30FB, 0x30FC} else PUNCTUATION
    if 0x1100 <= point <= 0x11FF or 0x3130 <= point <= 0x318F or 0xAC00 <= point <= 0xD7A3:
        return HANGUL
    return _by_category(point)


def _by_category(point: int) -> int:
    category = unicodedata.category(chr(point))
    if category in {"Co", "Cn", "Cs"} or point == 0xFFFD:
        return PRIVATE
    if category in {"Cc", "Cf"}:
        return CONTROL
    if category == "Nd":
        return DIGIT
    if category in _PUNCTUATION:
        return PUNCTUATION
    if category[0] in "SN":
        return SYMBOL
    if category == "Zs":
        return SPACE
    if category[0] == "L" and (point < 0x0250 or 0xFF21 <= point <= 0xFF5A):
        return LATIN
    return LETTER if category[0] == "L" else OTHER


def _level_one() -> str:
    """The frequent Han characters of the two national standards: GB 2312 rows 16-55 and Big5 A440-C67E."""
    simplified = bytes(b for row in range(0xB0, 0xD8) for cell in range(0xA1, 0xFF) for b in (row, cell))
    traditional = bytes(
        b
        for row in range(0xA4, 0xC7)
        for cell in [*range(0x40, 0x7F), *range(0xA1, 0xFF)]
        for b in (row, cell)
    )
    both = simplified.decode("gb2312", "ignore") + traditional.decode("big5", "ignore")
    return "".join(sorted({c for c in both if "\u4e00" <= c <= "\u9fff"}))


def _one_sided() -> tuple[str, str]:
    """Characters that only Traditional text uses, and those that only Simplified text uses."""
    han = [chr(point) for point in range(0x4E00, 0xA000)]
    to_simplified = opencc.OpenCC("t2s").convert("\n".join(han)).split("\n")
    to_traditional = opencc.OpenCC("s2t").convert("\n".join(han)).split("\n")
    traditional = [
        c for c, other in zip(han, to_simplified, strict=True) if other != c and not _in(c, "gb2312")
    ]
    simplified = [
        c for c, other in zip(han, to_traditional, strict=True) if other != c and not _in(c, "big5")
    ]
    return "".join(traditional), "".join(simplified)


def _in(character: str, charset: str) -> bool:
    try:
        character.encode(charset)
    except UnicodeEncodeError:
        return False
    return True
