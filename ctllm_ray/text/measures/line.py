"""Measures of lines, blank ones left out and the spaces around a line ignored.

Verse, lyrics and dialogue have short lines and code has no end marks: these measures say what is, recipes
decide for which genre it matters (pitfalls 3 and 6).
"""

from __future__ import annotations

import numpy as np
from numba.extending import register_jitable

from ctllm_ray.text.kernels.characters import (
    CLASS_MASK,
    CLAUSE_END,
    DIGIT,
    HAN,
    HANGUL,
    LATIN,
    LETTER,
    NEWLINE,
    NUMERAL,
    RARE_HAN,
    SPACE,
)
from ctllm_ray.text.measures.document import _markup_end, _ratio

SHORT_CHARS = 10  # a line of at most this many characters is short: a menu entry, a label, a line of verse


def count(lines):
    """Lines that are not blank."""
    return len(lines)


def mean_chars(lines):
    """Mean length of a line in characters."""
    total = 0
    for i in range(len(lines)):
        total += lines[i, 1] - lines[i, 0]
    return _ratio(total, len(lines))


def longest_chars(lines):
    """Length of the longest line in characters."""
    longest = 0
    for i in range(len(lines)):
        longest = max(longest, lines[i, 1] - lines[i, 0])
    return longest


def short_share(lines):
    """Lines of at most 10 characters over lines."""
    short = 0
    for i in range(len(lines)):
        short += lines[i, 1] - lines[i, 0] <= SHORT_CHARS
    return _ratio(short, len(lines))


def ended_share(ended):
    """Lines that end in an end mark (。！？…； and so on, closing
    quotes and brackets after it allowed) over lines."""
    return _ratio(ended.sum(), len(ended))


def ended_char_share(lines, ended):
    """Characters in lines that end in an end mark over characters in lines."""
    inside = 0
    total = 0
    for i in range(len(lines)):
        length = lines[i, 1] - lines[i, 0]
        total += length
        inside += length * ended[i]
    return _ratio(inside, total)


def bullet_share(lines, bulleted):
    """Lines that start with a bullet glyph over lines (CT-LLM rule 9)."""
    return _ratio(bulleted, len(lines))


def ellipsis_share(points, lines):
    """Lines that end in an ellipsis (…, ... or 。。。) over lines: teasers of other pages."""
    result = 0
    for i in range(len(lines)):
        last = lines[i, 1] - 1
        dots = points[last] == 0x2026
        if not dots and lines[i, 1] - lines[i, 0] >= 3:
            same = points[last] == points[last - 1] and points[last] == points[last - 2]
            dots = same and (points[last] == 0x2E or points[last] == 0x3002)
        result += dots
    return _ratio(result, len(lines))


@register_jitable
def _ends_with(points, start, stop, word):
    """True if points[start:stop] ends with the word (code points; the text's Latin letters
    are compared in lower case)."""
    if stop - start < len(word):
        return False
    for k in range(len(word)):
        point = points[stop - len(word) + k]
        if 0x41 <= point <= 0x5A:
            point += np.uint32(32)
        if point != word[k]:
            return False
    return True


_EXPAND = np.array([0x5C55, 0x5F00], np.uint32)  # 展开
_EXPAND_HANT = np.array([0x5C55, 0x958B], np.uint32)  # 展開
_MORE = np.array([0x66F4, 0x591A], np.uint32)  # 更多
_READ_MORE = np.array([ord(c) for c in "readmore"], np.uint32)
_READ_MORE_SPACED = np.array([ord(c) for c in "read more"], np.uint32)
_AFTER_MORE = tuple(ord(c) for c in " 　.…。>＞»›→↓▼])】）")


def readmore_share(points, lines):
    """Lines that end in 展开, 更多 or "read more", arrows and dots after it allowed, over lines (CT-LLM rule
    8)."""
    result = 0
    for i in range(len(lines)):
        start, stop = lines[i, 0], lines[i, 1]
        while stop > start and points[stop - 1] in _AFTER_MORE:
            stop -= 1
        result += (
            _ends_with(points, start, stop, _EXPAND)
            or _ends_with(points, start, stop, _EXPAND_HANT)
            or _ends_with(points, start, stop, _MORE)
            or _ends_with(points, start, stop, _READ_MORE)
            or _ends_with(points, start, stop, _READ_MORE_SPACED)
        )
    return _ratio(result, len(lines))


def numeric_share(kinds, lines):
    """Lines in which digits outnumber all letters and Han
    characters, over lines: tables, scores, phone lists."""
    result = 0
    for i in range(len(lines)):
        digits = 0
        words = 0
        for k in range(lines[i, 0], lines[i, 1]):
            group = kinds[k] & CLASS_MASK
            digits += group == DIGIT
            words += LATIN <= group <= HANGUL or group == LETTER
        result += digits > words
    return _ratio(result, len(lines))


def article_share(points, kinds, lines):
    """Lines that start as 第十二条, 第三章 or 第 5 條 do, over lines: statutes and contracts."""
    result = 0
    for i in range(len(lines)):
        k = lines[i, 0]
        if points[k] != 0x7B2C:  # 第
            continue
        k += 1
        start = k
        while k < lines[i, 1] and (
            kinds[k] & NUMERAL or kinds[k] & CLASS_MASK == DIGIT or kinds[k] & CLASS_MASK == SPACE
        ):
            k += 1
        if start < k < lines[i, 1]:
            result += points[k] in (
                0x6761,
                0x689D,
                0x7AE0,
                0x8282,
                0x7BC0,
                0x7F16,
                0x7DE8,
                0x6B3E,
            )  # 条條章节節编編款
    return _ratio(result, len(lines))


@register_jitable
def _later_copies(line_hashes):
    """True for each line that equals an earlier one (boolean)."""
    order = np.argsort(line_hashes, kind="mergesort")
    out = np.zeros(len(line_hashes), np.bool_)
    for k in range(1, len(order)):
        out[order[k]] = line_hashes[order[k]] == line_hashes[order[k - 1]]
    return out


def duplicate_share(line_hashes):
    """Lines equal to an earlier one over lines (Gopher's duplicate line fraction)."""
    return _ratio(_later_copies(line_hashes).sum(), len(line_hashes))


def duplicate_char_share(line_hashes, lines):
    """Characters in lines equal to an earlier one over characters in lines."""
    copies = _later_copies(line_hashes)
    inside = 0
    total = 0
    for i in range(len(lines)):
        length = lines[i, 1] - lines[i, 0]
        total += length
        inside += length * copies[i]
    return _ratio(inside, total)


def duplicate_paragraph_share(points, kinds, lines, line_hashes):
    """Paragraphs (runs of lines between blank lines) equal to an earlier one over paragraphs."""
    hashes = np.empty(len(lines), np.uint64)
    result = 0
    for i in range(len(lines)):
        breaks = 0
        for k in range(lines[i - 1, 1] if i else 0, lines[i, 0]):
            breaks += kinds[k] & CLASS_MASK == NEWLINE and (points[k] != 0x0D or points[k + 1] != 0x0A)
        if i == 0 or breaks > 1:
            hashes[result] = np.uint64(1469598103934665603)
            result += 1
        hashes[result - 1] = (hashes[result - 1] ^ line_hashes[i]) * np.uint64(0x100000001B3)
    return _ratio(_later_copies(hashes[:result]).sum(), result)


def regular_share(kinds):
    """Share of the most frequent clause length among clauses
    of Han characters, 3 to 8 long: high for verse."""
    counts = np.zeros(9, np.int64)
    total = 0
    run = 0
    for i in range(len(kinds) + 1):
        if i < len(kinds):
            group = kinds[i] & CLASS_MASK
            if group == HAN or group == RARE_HAN:
                run += 1
                continue
        if run:
            total += 1
            if 3 <= run <= 8:
                counts[run] += 1
        run = 0
    return _ratio(counts.max(), total)


LABEL_CHARS = 12  # longer stretches without a mark are headings or sentences, not menu entries


def label_share(points, kinds):
    """Han characters in labels over Han characters: menus, tag clouds and lists of links are made of labels.

    A label is a stretch of at most 12 visible characters without a clause mark, between newlines, bars, or
    spaces that stand between two Han characters; a space beside Latin letters or digits, as many writers set
    it, ends none.
    """
    labelled = 0
    total = 0
    visible = 0
    han = 0
    marked = False
    last_han = False
    spaced = False
    for i in range(len(kinds) + 1):
        bar = i == len(kinds) or points[i] == 0x7C or points[i] == 0xFF5C  # | and ｜
        group = NEWLINE if bar else kinds[i] & CLASS_MASK
        is_han = group in (HAN, RARE_HAN)
        if group == NEWLINE or (is_han and spaced and last_han):
            total += han
            if visible <= LABEL_CHARS and not marked:
                labelled += han
            visible = han = 0
            marked = False
        if group == SPACE:
            spaced = True
            continue
        spaced = False
        last_han = is_han
        if group != NEWLINE:
            visible += 1
            han += is_han
            marked |= (kinds[i] & CLAUSE_END) != 0
    return _ratio(labelled, total)


RESIDUE_MARKS = 3  # on a line: prose that speaks of <div> names one or two


@register_jitable
def _is_residue(points, start, end):
    """True for an entity, a tag with an attribute and a <p>. <strong> and <br/> alone may mark a heading."""
    if points[start] == 0x26:
        return True
    for k in range(start, end):
        if points[k] == 0x3D:
            return True
    name = start + 2 if points[start + 1] == 0x2F else start + 1
    return points[name] == 0x70 and points[name + 1] == 0x3E


def residue_share(points, kinds, lines):
    """Han characters on lines with three or more entities,
    <p> or tags with attributes, over Han characters in lines.

    Text between tags that nobody took out; code on lines of its own has no Han characters to count.
    """
    residue = 0
    total = 0
    for i in range(len(lines)):
        marks = 0
        han = 0
        k = lines[i, 0]
        while k < lines[i, 1]:
            end = _markup_end(points, k, lines[i, 1])
            marks += end > k and _is_residue(points, k, end)
            han += (kinds[k] & CLASS_MASK) in (HAN, RARE_HAN)
            k = max(end, k + 1)
        total += han
        residue += han if marks >= RESIDUE_MARKS else 0
    return _ratio(residue, total)
