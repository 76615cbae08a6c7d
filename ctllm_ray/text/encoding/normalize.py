"""Normalizes text: line ends, control characters, spaces and NFC. It changes nothing that a Chinese page
says.

One pass over the code points of a batch (numba) does all but NFC. What it does, in the order of the classes
below:

- CR, CRLF, NEL, LS and PS end a line. Vertical tab and form feed do too, as office software uses them, but in
  a text that also holds other controls they are litter like those and go.
- Controls, noncharacters and invisible marks (zero-width space, byte order mark, soft hyphen, bidi controls,
  ...) go. Joiners stay where they are spelling: inside emoji sequences and after Arabic to Sinhala letters.
- Unicode blanks become a space. The ideographic space U+3000 stays what it is, as full-width punctuation
  does: it indents paragraphs and parts headings and verse. A run of blanks inside a line becomes its first
  blank; blanks that start a line stay (indentation, also of code), blanks that end it go; tabs stay (tables).
- No more than two blank lines follow each other: a longer run is layout residue and becomes one. None at
  either end.
- Private-use characters stay (fonts for rare Han characters use them); U+FFFD stays (it says that something
  was lost).

NFC runs in Python, on rows with a code point that NFC could change. NFC, not NFKC: the latter rewrites ㎡, ①,
… and Ⅳ in body text. Repair mojibake before: text read as Latin-1 has half of its bytes in the C1 controls,
which are removed here.

Law: normalising twice equals normalising once (script conversion apart). A batch with nothing to change comes
back as the very same array. Cost: about 200 MB/s of UTF-8 on one core for raw pages; 40 with links removed.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import unicodedata
from functools import cache
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba.extending import register_jitable

from ctllm_ray.text.encoding.script_conversion import Script, convert
from ctllm_ray.text.html.links import remove
from ctllm_ray.text.kernels.codepoints import buffers, decode, encode, strings
from ctllm_ray.text.kernels.compiled import compiled

KEEP, DROP, NEWLINE, BLANK, CARRIAGE_RETURN, BREAK, JOINER, FOLD, CONTROL = range(9)

#: First and last code point of each class, below U+10000.
CLASSES = [
    (CONTROL, [(0x00, 0x08), (0x0E, 0x1F), (0x7F, 0x84), (0x86, 0x9F)]),
    (NEWLINE, [(0x0A, 0x0A), (0x85, 0x85), (0x2028, 0x2029)]),
    (BREAK, [(0x0B, 0x0C)]),  # vertical tab, form feed
    (CARRIAGE_RETURN, [(0x0D, 0x0D)]),
    (BLANK, [(0x09, 0x09), (0x20, 0x20), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A), (0x202F, 0x202F)]),
    (BLANK, [(0x205F, 0x205F), (0x3000, 0x3000)]),
    (JOINER, [(0x200C, 0x200D)]),
    # soft hyphen, grapheme joiner, Arabic letter mark, Mongolian vowel separator, zero-width space, bidi and
    # word joiners, Hangul fillers used as blanks, byte order mark, interlinear anchors, noncharacters
    (
        DROP,
        [(0xAD, 0xAD), (0x34F, 0x34F), (0x61C, 0x61C), (0x180E, 0x180E), (0x200B, 0x200B), (0x200E, 0x200F)],
    ),
    (DROP, [(0x202A, 0x202E), (0x2060, 0x206F), (0x3164, 0x3164), (0xFFA0, 0xFFA0), (0xFEFF, 0xFEFF)]),
    (DROP, [(0xFDD0, 0xFDEF), (0xFFF9, 0xFFFB), (0xFFFE, 0xFFFF)]),
]
FULLWIDTH_ALPHANUMERIC = [(0xFF10, 0xFF19), (0xFF21, 0xFF3A), (0xFF41, 0xFF5A)]
FULLWIDTH_OFFSET = 0xFEE0  # full-width form minus ASCII
MAX_NEWLINES = 3  # two blank lines: what code puts between functions
FEWER_NEWLINES = 2  # one blank line, for longer runs


class Normalized(NamedTuple):
    """`texts` has the rows of the input; `control_share` (float32) is removed control characters
    and marks over code points."""

    texts: pa.Array
    control_share: np.ndarray


def normalize_texts(
    texts: pa.Array,
    *,
    form: Literal["NFC", "keep"] = "NFC",
    script: Script = "keep",
    width: Literal["keep", "fold"] = "keep",
    links: Literal["keep", "remove"] = "keep",
) -> Normalized:
    """The normalized texts (a string array without nulls), and the share of control
    characters removed from each."""
    texts, share = _clean(texts, width, form)
    while links == "remove" and (bare := remove(texts)) is not texts:
        # a removed link leaves spaces behind, and its neighbours may compose
        texts, _ = _clean(bare, width, form)
    return Normalized(convert(texts, script), share)


def _clean(texts: pa.Array, width: str, form: str) -> Normalized:
    """The texts after the kernel in the requested form, with the share of each that was removed."""
    data, offsets = buffers(texts)
    out, ends, changed, (removed, points, nfc) = _clean_batch(data, offsets, _classes(width))
    texts = strings(out, ends) if changed else texts
    share = (removed / np.maximum(points, 1)).astype(np.float32)
    return Normalized(_compose(texts, np.flatnonzero(nfc)) if form == "NFC" else texts, share)


def _compose(texts: pa.Array, rows: np.ndarray) -> pa.Array:
    """The texts with the given rows in NFC."""
    old = [text.as_py() for text in texts.take(pa.array(rows))] if len(rows) else []
    new = [unicodedata.normalize("NFC", text) for text in old]
    if new == old:
        return texts
    mask = np.zeros(len(texts), bool)
    mask[rows] = True
    return pc.replace_with_mask(texts, pa.array(mask), pa.array(new, texts.type))


@cache
def _classes(width: str) -> np.ndarray:
    """The class of each code point below U+10000 (uint8)."""
    table = np.full(0x10000, KEEP, np.uint8)
    groups = [*CLASSES, (FOLD, FULLWIDTH_ALPHANUMERIC)] if width == "fold" else CLASSES
    for kind, ranges in groups:
        for first, last in ranges:
            table[first : last + 1] = kind
    return table


@compiled
def _clean_batch(data, offsets, classes):
    """UTF-8 and offsets of the cleaned rows, whether any differs, and counts[3, rows].

    Counts are code points removed as litter, code points read, and whether NFC may change the row.
    """
    rows = len(offsets) - 1
    out = np.empty(offsets[rows] - offsets[0], np.uint8)  # no step makes a text longer
    ends = np.zeros(rows + 1, np.int32)
    counts = np.zeros((3, rows), np.int64)
    changed = False
    at = 0
    for row in range(rows):
        points = decode(data, offsets[row], offsets[row + 1])
        clean, removed, nfc = _clean_points(points, classes)
        stop = encode(clean, out, at)
        changed |= not np.array_equal(out[at:stop], data[offsets[row] : offsets[row + 1]])
        at = stop
        ends[row + 1] = at
        counts[0, row], counts[1, row], counts[2, row] = removed, len(points), nfc
    return out[:at], ends, changed, counts


@register_jitable
def _clean_points(points, classes):
    """One cleaned text, the number of code points removed, and whether NFC may change it."""
    out = np.empty(len(points), np.uint32)
    # write position; end of the last visible character; line start
    w = visible = line = newlines = removed = 0
    nfc = littered = False
    breaks_known = False
    for i in range(len(points)):
        c = points[i]
        kind = classes[c] if c < 0x10000 else _kind_above(c, out, w)
        if kind == BREAK and not breaks_known:
            littered, breaks_known = _has_control(points, classes), True
        if kind == BREAK:
            kind = DROP if littered else NEWLINE
        elif kind == CARRIAGE_RETURN:
            if i + 1 < len(points) and points[i + 1] == 0x0A:
                continue
            kind = NEWLINE
        elif kind == JOINER:
            following = points[i + 1] if i + 1 < len(points) else np.uint32(0)
            kind = KEEP if w == visible and w > 0 and _joins(out[w - 1], following) else DROP
        if kind in (KEEP, FOLD):
            out[w] = c - FULLWIDTH_OFFSET if kind == FOLD else c
            w += 1
            visible, newlines = w, 0
            nfc |= c >= 0x300 and may_compose(c)
        elif kind == NEWLINE:
            if visible == 0:  # nothing before it
                w = line = 0
                continue
            newlines += 1
            w = (
                visible + min(newlines, MAX_NEWLINES)
                if newlines <= MAX_NEWLINES
                else visible + FEWER_NEWLINES
            )
            out[visible:w] = 0x0A
            line = w
        elif kind == BLANK:
            if c == 0x09 or visible <= line or w == visible:  # a tab, indentation, or the first of a run
                out[w] = c if c == 0x09 or c == 0x3000 else 0x20
                w += 1
        else:
            removed += 1
    return out[:visible], removed, nfc


@register_jitable
def _has_control(points, classes):
    for c in points:  # noqa: SIM110 - numba compiles loops, not any()
        if c < 0xA0 and classes[c] == CONTROL:
            return True
    return False


@register_jitable
def _kind_above(c, out, w):
    """The class of a code point from U+10000 on; tags are kept only if they spell the flag of a region."""
    if c & np.uint32(0xFFFE) == np.uint32(0xFFFE):
        return DROP
    if 0xE0000 <= c <= 0xE007F:
        spells = w > 0 and (out[w - 1] == 0x1F3F4 or 0xE0020 <= out[w - 1] <= 0xE007E)
        return KEEP if spells and c >= 0xE0020 else DROP
    return KEEP


@register_jitable
def _joins(before, after):
    """True if a joiner between these two code points is part of the spelling."""
    if 0x600 <= before < 0xE00:  # Arabic to Sinhala
        return True
    emoji = before == 0xFE0F or 0x1F000 <= before < 0x1FB00 or 0x2190 <= before < 0x2C00
    return emoji and (0x1F000 <= after < 0x1FB00 or 0x2190 <= after < 0x2C00)


@register_jitable
def may_compose(c):
    """False only for code points that NFC never changes, composes or reorders; it may be True without need.

    Coarse on purpose: whole blocks that Chinese pages seldom
    hold are True. A test compares it with `unicodedata`.
    """
    if c < 0x10000:
        return (
            c < 0x370
            or c == 0x374
            or c == 0x37E
            or c == 0x387
            or 0x483 <= c <= 0x487
            or 0x591 <= c < 0x2002
            or 0x20D0 <= c < 0x2100
            or c == 0x2126
            or 0x212A <= c <= 0x212B
            or 0x2329 <= c <= 0x232A
            or c == 0x2ADC
            or 0x2CEF <= c < 0x2E00
            or 0x302A <= c <= 0x302F
            or 0x3099 <= c <= 0x309A
            or 0xA66F <= c < 0xAC00
            or 0xF900 <= c < 0xFB50
            or 0xFE20 <= c < 0xFE30
        )
    return c < 0x1F000 or 0x2F800 <= c < 0x2FA20
