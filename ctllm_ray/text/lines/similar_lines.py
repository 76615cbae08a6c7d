"""Finds lines that repeat an earlier line of the document: the safe form of CT-LLM's similar-line stage.

Two lines are similar when their keys are equal, and the key leaves out only what cannot change what a line
says:

- blanks, except where they part two Latin words or numbers;
- marks that open a line (#, *, >, •, ■, ◆, ★ and the like), and the full or half width of letters and
  punctuation;
- the script: Simplified and Traditional forms of a character count as one;
- punctuation, except next to a digit (3.14, -5, 1,000, 8:30), between two Chinese numerals (三、五), and the
  question mark, which turns a statement into a question.

Everything else must be the same, in the same order: a changed number, name, negation (不 没 无 非), particle (了
吗) or word order makes another line. So there is no edit distance here and nothing to tune: the released stage
deletes at 10 % of edits, which is a contract clause with the parties swapped, a price, or the one character
that matters. Lines are never split at full stops either, so "3.14" stays whole. Equal keys also cost O(n)
where distances cost O(n²).

Which similar lines are to be cut is the harder question. On real pages without a defect (web_zh_raw) some 3
to 7 % of statutes and 4 % of manuals repeat a line of 12 or more Han characters some lines later, and
rightly: "（四）法律、法规规定的其他情形。" belongs to each list it closes. What is pasted twice stands side
by side. Hence two reaches: `adjacent` cuts a block of lines that repeats the block just before it (most
often one line), `anywhere` cuts any later copy, as CT-LLM meant to. Neither touches a line with fewer than
`min_han` Han characters (refrains, 「嗯。」, code, tables of figures), nor, for `anywhere`, list items
(they begin with a number), nor rows of tables. Only five or more copies in a row go whatever their length:
no refrain has so many.

Cost: a kernel hashes each line (digits, letters, Han in one script) and only documents in which hashes repeat
within reach are read in Python; 250 MB/s and more on one core where nothing repeats.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import re
import unicodedata
from functools import cache
from itertools import groupby
from typing import Literal

import numpy as np
import opencc
import pyarrow as pa
from numba.extending import register_jitable

from ctllm_ray.text.kernels.codepoints import buffers, decode
from ctllm_ray.text.kernels.compiled import compiled

Reach = Literal["adjacent", "anywhere"]

_HAN = "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_IS_HAN = re.compile(f"[{_HAN}]")
_NUMERALS = {*"〇零一二三四五六七八九十百千万亿两壹贰叁肆伍陆柒捌玖拾佰仟"}
_OPENING_MARKS = re.compile(r"^[\s#*>•·■◆●▲★☆※○◇□△▶►✦✔]+(?![\d.])")
_UNSAID = re.compile("[\\s、，。；：！？?…—～·「」『』“”‘’（）《》〈〉【】〔〕,.;:!\"'()\\[\\]_~\\-–]+")
_LIST_ITEM = re.compile(
    rf"^\s*[（(【\[第]?\s*(?:\d+|[{''.join(_NUMERALS)}]+|[A-Za-z])\s*[)）】\].、．:：条條章節节款]"
)
_TABLE_ROW = re.compile(r"[|│┃\t]")
MAX_BLOCK_LINES = 64  # a longer block that repeats side by side is not looked for
FNV_START, FNV_PRIME = 0xCBF29CE484222325, 0x100000001B3  # Fowler, Noll and Vo, 64 bits
LONG_RUN = 5  # copies of one line in a row: more than any refrain has
LONG_RUN_HAN = 3  # Han characters that each copy must have


def similar(lines: list[str], *, reach: Reach, min_han: int) -> list[int]:
    """The indexes of the lines to remove, ascending: copies of an earlier line within reach."""
    keys = {i: key(line) for i, line in enumerate(lines) if line.strip()}
    far = _repeated_blocks if reach == "adjacent" else _later_copies
    return sorted({*far(keys, lines, min_han), *_long_runs(keys, lines)})


def key(line: str) -> str:
    """A form of the line that is equal for similar lines."""
    return _UNSAID.sub(_what_is_left, _OPENING_MARKS.sub("", line.translate(_folds())).strip())


def _what_is_left(match: re.Match[str]) -> str:
    """What stays of a run of spaces and punctuation: the marks of a number, a question mark, or a space."""
    before, after = (
        match.string[match.start() - 1 : match.start()],
        match.string[match.end() : match.end() + 1],
    )
    marks = "".join(match[0].split())
    if (before + after).isascii() and before.isalnum() and after.isalnum():
        return marks or " " if before.isdigit() or after.isdigit() else " "
    in_number = before.isdigit() or after.isdigit() or (before in _NUMERALS and after in _NUMERALS)
    return marks if in_number else "?" * ("?" in marks)


def candidates(texts: pa.Array, *, reach: Reach, min_han: int) -> np.ndarray:
    """True for each text (of a string array without nulls) that may contain
    similar lines; False is certain."""
    values: np.ndarray = _repeats(*buffers(texts), _hash_table(), min_han, reach == "anywhere")
    return values


def _repeated_blocks(keys: dict[int, str], lines: list[str], min_han: int) -> list[int]:
    """Lines of blocks that repeat the block directly before; blank lines do not count."""
    order = list(keys)
    said = [keys[i] for i in order]
    last: dict[str, int] = {}
    cut: list[int] = []
    n = 0
    while n < len(said):
        size = n - last.get(said[n], n)
        if 0 < size <= MAX_BLOCK_LINES and said[n - size : n] == said[n : n + size]:
            block = [lines[i] for i in order[n : n + size]]
            if _han(block) >= min_han * size and not any(_TABLE_ROW.search(line) for line in block):
                cut += order[n : n + size]
                del order[n : n + size], said[n : n + size]
                continue
        last[said[n]] = n
        n += 1
    return cut


def _later_copies(keys: dict[int, str], lines: list[str], min_han: int) -> list[int]:
    """Lines that repeat any earlier one, except list items and table rows."""
    keys_before: set[str] = set()
    cut = []
    for i, said in keys.items():
        if said not in keys_before:
            keys_before.add(said)
        elif _han([said]) >= min_han and not _LIST_ITEM.match(lines[i]) and not _TABLE_ROW.search(lines[i]):
            cut.append(i)
    return cut


def _long_runs(keys: dict[int, str], lines: list[str]) -> list[int]:
    """All but the first of LONG_RUN or more copies in a row, however short; blank lines do not count."""
    cut: list[int] = []
    for said, group in groupby(keys, key=keys.__getitem__):
        run = list(group)
        if len(run) >= LONG_RUN and _han([said]) >= LONG_RUN_HAN and not _TABLE_ROW.search(lines[run[0]]):
            cut += run[1:]
    return cut


def _han(lines: list[str]) -> int:
    return sum(len(_IS_HAN.findall(line)) for line in lines)


@cache
def _simplified_table() -> dict[int, int]:
    """Traditional to Simplified for single characters of the BMP that differ."""
    points = [*range(0x3400, 0x4DC0), *range(0x4E00, 0xA000)]
    converted = opencc.OpenCC("t2s").convert("\n".join(map(chr, points))).split("\n")
    return {a: ord(b) for a, b in zip(points, converted, strict=True) if len(b) == 1 and ord(b) not in (a, 0)}


@cache
def _folds() -> dict[int, int]:
    """Simplified script and half width, as `str.translate`
    wants it; ideographic full stop and comma keep theirs."""
    narrow = {c: c - 0xFEE0 for c in range(0xFF01, 0xFF5F)}
    return narrow | {0x3000: 0x20, 0xA0: 0x20} | _simplified_table()


@cache
def _hash_table() -> np.ndarray:
    """For each BMP code point its value in the hash; 0 if it is left out (uint32)."""
    table = np.array([c if unicodedata.category(chr(c))[0] in "LN" else 0 for c in range(0x10000)], np.uint32)
    for source, target in _folds().items():
        table[source] = target if unicodedata.category(chr(target))[0] in "LN" else 0
    return table


@compiled
def _repeats(data, offsets, table, min_han, far):
    """For each row: whether hashed lines repeat side by side or, if `far`, a long
    enough one repeats anywhere."""
    values = np.zeros(len(offsets) - 1, np.bool_)
    for row in range(len(offsets) - 1):
        points = decode(data, offsets[row], offsets[row + 1])
        hashes, han = _line_hashes(points, table)
        values[row] = _in_a_block(hashes, han, min_han) or (far and _again(hashes[han >= min_han]))
    return values


@register_jitable
def _in_a_block(hashes, han, min_han):
    """Whether a block of lines repeats the block before it and has enough Han
    characters, or the run is long."""
    total = np.zeros(len(han) + 1, np.int64)
    run = 1
    for i in range(len(hashes)):
        total[i + 1] = total[i] + han[i]
        run = run + 1 if i > 0 and hashes[i] == hashes[i - 1] else 1
        if run >= LONG_RUN and han[i] >= LONG_RUN_HAN:
            return True
    for i in range(1, len(hashes)):
        for size in range(1, min(i, len(hashes) - i, MAX_BLOCK_LINES) + 1):
            if (
                hashes[i] == hashes[i - size]
                and total[i + size] - total[i] >= min_han * size
                and np.array_equal(hashes[i - size : i], hashes[i : i + size])
            ):
                return True
    return False


@register_jitable
def _again(hashes):
    hashes = np.sort(hashes)
    return np.any(hashes[1:] == hashes[:-1])


@register_jitable
def _line_hashes(points, table):
    """FNV-1a over the counted code points of each non-empty line, and how many may be Han characters."""
    lines = 1
    for c in points:
        lines += c == 0x0A
    hashes, han = np.empty(lines, np.uint64), np.zeros(lines, np.int64)
    n = 0
    hashed = np.uint64(FNV_START)
    for i in range(len(points) + 1):
        c = points[i] if i < len(points) else np.uint32(0x0A)
        if c == 0x0A:
            if hashed != np.uint64(FNV_START):
                hashes[n] = hashed
                n += 1
            if n < lines:
                han[n] = 0
            hashed = np.uint64(FNV_START)
            continue
        counted = table[c] if c < 0x10000 else c
        if counted:
            hashed = (hashed ^ np.uint64(counted)) * np.uint64(FNV_PRIME)
            han[n] += 0x3005 <= counted <= 0xFAFF or counted >= 0x20000
    return hashes[:n], han[:n]
