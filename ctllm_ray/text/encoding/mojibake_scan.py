"""A compiled scan for rows that may contain mojibake. Clean text passes at memory speed.

It looks for traces that wrong readings leave and that clean text leaves by chance only, so that the slow,
exact work of `mojibake` is spent on one clean page in 1500:

* UTF-8 read as GBK: two Han characters of UTF-8 are six bytes, three GBK characters whose bytes go
  lead-continuation, continuation-lead, continuation-continuation;
* Latin-1 in UTF-8 read as GBK (the second layer of many a double encoding): Han of the rows C2 and C3 side by
  side;
* anything read as Latin-1 or windows-1252: unlike Latin letters side by side, or the shape of a UTF-8
  sequence;
* Big5 read as GBK or the reverse: what the most frequent characters turn into, in numbers that no clean text
  reaches;
* U+FFFD, the first characters of ghosts, and fills.

Cost: one pass over the UTF-8 bytes, one table look-up per character beyond ASCII.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba.extending import register_jitable

from ctllm_ray.text.encoding.likelihood import FREQUENT
from ctllm_ray.text.kernels.compiled import compiled

#: Characters of windows-1252 in the places of the controls 80-9F; clean Chinese text has many of them, like “
#: ” … —
CP1252_SPECIALS = "€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"
TRACES = "�锟锘"
FILLS = "烫屯葺"  # three in a row, read as GBK: debug fill bytes CC, CD, DD

_FIRST, _SECOND, _THIRD = (
    np.uint16(1),
    np.uint16(2),
    np.uint16(4),
)  # of the three GBK characters that UTF-8 makes
_LETTER, _TRAIL = (
    np.uint16(8),
    np.uint16(16),
)  # Latin-1 letters and signs; what can stand for a UTF-8 continuation byte
_BIG5_AS_GBK, _GBK_AS_BIG5 = np.uint16(32), np.uint16(64)
_TRACE, _FILL, _ROW_C2 = np.uint16(128), np.uint16(256), np.uint16(512)

ROW_C2_CHARS = 6  # in a row: 隆 to 驴 and 脌 to 每, of which clean text has one in fifty
LETTERS_IN_A_ROW = 4  # different neighbours; no language writes this many non-ASCII Latin-1 letters in a row
SEQUENCES = 2  # of UTF-8 shape, among Han or among Latin letters: what `mojibake` asks for at least
NEARBY = 12  # non-ASCII characters from one such sequence to the next; misread text has 3
SWAPPED_SHARE = 0.1  # share of a row's non-ASCII characters; misread text has a third


@cache
def classes() -> np.ndarray:
    """For each BMP code point: the traces it can be part of, as bits (uint16)."""
    table = np.zeros(65536, np.uint16)
    for lead in (*range(0x81, 0xC0), 0xC2, 0xC3, *range(0xE2, 0xF0)):
        for trail in range(0x40, 0xF0):
            table[_points(bytes((lead, trail)), "gb18030")] |= _gbk_class(lead, trail)
    table[0xC0:0x100] |= _LETTER
    table[0x80:0xC0] |= _LETTER | _TRAIL
    table[[ord(c) for c in "\xa0·×°«»"]] &= ~_LETTER  # stand side by side in clean text
    table[[ord(c) for c in CP1252_SPECIALS]] |= _TRAIL
    table[_swap_points("big5", "gb18030")] |= _BIG5_AS_GBK
    table[_swap_points("gb2312", "big5hkscs")] |= _GBK_AS_BIG5
    table[[ord(c) for c in TRACES]] |= _TRACE
    table[[ord(c) for c in FILLS]] |= _FILL
    return table


def _gbk_class(lead: int, trail: int) -> np.uint16:
    continuation, start = 0x80 <= trail < 0xC0, 0xE2 <= trail < 0xF0
    if lead >= 0xC2:
        return np.uint16(0) if not continuation else _FIRST if lead >= 0xE2 else _ROW_C2
    return _SECOND if start else _THIRD if continuation else np.uint16(0)


def _swap_points(written: str, read: str) -> list[int]:
    """East Asian code points that frequent characters turn into, unless they are frequent themselves."""
    made = {p for c in FREQUENT for p in _points(c.encode(written, "ignore"), read)}
    return sorted(p for p in made if p >= 0x2E80 and chr(p) not in FREQUENT)


def _points(pair: bytes, charset: str) -> list[int]:
    return [ord(c) for c in pair.decode(charset, "ignore") if ord(c) < 0x10000]


def suspicious_rows(data: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """A boolean array: True for each row of UTF-8 bytes that may contain mojibake."""
    return _kernel()(data, offsets, classes())


@cache
def _kernel() -> Callable[..., Any]:
    return compiled(_scan)


def _scan(data: np.ndarray, offsets: np.ndarray, table: np.ndarray) -> np.ndarray:
    rows = len(offsets) - 1
    values = np.zeros(rows, np.bool_)
    for row in range(rows):
        values[row] = _suspicious(data, offsets[row], offsets[row + 1], table)
    return values


@register_jitable
def _suspicious(data: np.ndarray, start: int, stop: int, table: np.ndarray) -> bool:
    beyond = big5_as_gbk = gbk_as_big5 = sixes = letters = sequences = doubles = fills = last_six = 0
    point = older = 0
    kind = older_kind = oldest_kind = np.uint16(0)
    i = start
    while i < stop:
        b = data[i]
        if b < 0x80:
            i += 1
            point = 0
            kind = older_kind = np.uint16(0)
            letters = doubles = 0
            continue
        older, oldest_kind, older_kind = point, older_kind, kind
        if b < 0xE0:
            point = (np.int64(b & 0x1F) << 6) | (data[i + 1] & 0x3F)
            i += 2
        elif b < 0xF0:
            point = (np.int64(b & 0x0F) << 12) | (np.int64(data[i + 1] & 0x3F) << 6) | (data[i + 2] & 0x3F)
            i += 3
        else:
            point = 0
            i += 4
        kind = table[point]
        beyond += 1
        if kind == 0:
            letters = doubles = 0
            continue
        if kind & _FILL and point == older:
            fills += 1
        if kind & _TRACE or fills >= 2:
            return True
        if kind & _THIRD and older_kind & _SECOND and oldest_kind & _FIRST:
            sixes = sixes + 1 if beyond - last_six <= NEARBY else 1
            last_six = beyond
        big5_as_gbk += (kind & _BIG5_AS_GBK) != 0
        gbk_as_big5 += (kind & _GBK_AS_BIG5) != 0
        if kind & (_LETTER | _TRAIL):
            letters += (kind & _LETTER) != 0 and point != older
            sequences += (kind & _TRAIL) != 0 and (older_kind & _TRAIL) != 0 and (oldest_kind & _LETTER) != 0
            if letters >= LETTERS_IN_A_ROW or sequences >= SEQUENCES:
                return True
        else:
            letters = 0
        doubles = doubles + 1 if kind & _ROW_C2 else 0
        if sixes >= SEQUENCES or doubles >= ROW_C2_CHARS:
            return True
    return max(big5_as_gbk, gbk_as_big5) > max(4, SWAPPED_SHARE * beyond)
