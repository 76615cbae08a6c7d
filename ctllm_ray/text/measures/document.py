"""Measures of the whole document: length, classes of characters, variety, sentences.

Shares are of all code points unless stated otherwise; an empty document gives 0. The rules and their
thresholds come from CT-LLM (arXiv 2404.04167, after Gopher, CCNet and RefinedWeb) and are set in the recipes.
"""

from __future__ import annotations

import numpy as np
from numba.extending import register_jitable

from ctllm_ray.text.kernels.characters import (
    CLASS_MASK,
    CLAUSE_END,
    CONTROL,
    DIGIT,
    HAN,
    HANGUL,
    KANA,
    LATIN,
    LETTER,
    NEWLINE,
    PRIVATE,
    PUNCTUATION,
    RARE_HAN,
    SENTENCE_END,
    SPACE,
    SYMBOL,
)


@register_jitable
def _ratio(part, whole):
    """part / whole; 0 if whole is 0."""
    return part / whole if whole > 0 else 0.0


def char_count(points):
    """Code points, spaces and newlines included."""
    return len(points)


@register_jitable
def visible_count(class_counts):
    """Code points without spaces, newlines and control characters."""
    return class_counts.sum() - class_counts[SPACE] - class_counts[NEWLINE] - class_counts[CONTROL]


def digit_share(class_counts):
    """Digits over characters that are neither punctuation, symbol, space nor control."""
    words = class_counts[DIGIT] + class_counts[LATIN] + class_counts[LETTER]
    words += class_counts[HAN] + class_counts[RARE_HAN] + class_counts[KANA] + class_counts[HANGUL]
    return _ratio(class_counts[DIGIT], words)


def latin_share(class_counts):
    """Latin letters over characters that are neither space nor control."""
    return _ratio(class_counts[LATIN], visible_count(class_counts))


def punctuation_share(class_counts):
    """Punctuation marks of any script over all code points."""
    return _ratio(class_counts[PUNCTUATION], class_counts.sum())


def symbol_share(class_counts):
    """Symbols, emoji and numerals in circles over characters that are neither space nor control."""
    return _ratio(class_counts[SYMBOL], visible_count(class_counts))


def space_share(class_counts):
    """Spaces, without newlines, over all code points."""
    return _ratio(class_counts[SPACE], class_counts.sum())


def control_share(class_counts):
    """Control and invisible format characters, newline and tab excepted, over all code points."""
    return _ratio(class_counts[CONTROL], class_counts.sum())


def private_share(class_counts):
    """Private use, unassigned and replacement characters (U+FFFD) over all code points."""
    return _ratio(class_counts[PRIVATE], class_counts.sum())


def distinct_char_share(char_counts):
    """Distinct characters over characters, of the whole text (CT-LLM rule 11): falls with length."""
    return _ratio(len(char_counts), char_counts.sum())


def windowed_distinct_share(windows):
    """Distinct characters over characters, mean over windows of 256 characters."""
    return windows[1]


def entropy_nats(char_counts):
    """Entropy of the character distribution of the whole text in nats (CT-LLM rule 12): rises with length."""
    total = char_counts.sum()
    entropy = 0.0
    for count in char_counts:
        entropy -= count / total * np.log(count / total)
    return entropy


def windowed_entropy_nats(windows):
    """Entropy of the character distribution in nats, mean over windows of 256 characters."""
    return windows[0]


def sentence_count(kinds):
    """Sentences: stretches up to an end mark or the end of the text. The dots of 3.14,
    v1.2.3 and U.S. do not end one."""
    result = 0
    content = False
    for i in range(len(kinds)):
        if kinds[i] & SENTENCE_END:
            result += content
            content = False
        elif (kinds[i] & CLASS_MASK) not in (SPACE, NEWLINE, PUNCTUATION, CONTROL):
            content = True
    return result + content


def mean_clause_chars(clauses):
    """Mean length in characters of the runs of Han characters between marks."""
    total = 0
    for length in range(64):
        total += length * clauses[length]
    return _ratio(total, clauses.sum())


def clause_mark_share(kinds):
    """Marks that end a clause or sentence, newlines excepted,
    over characters that are not space or newline."""
    marks = 0
    visible = 0
    for i in range(len(kinds)):
        group = kinds[i] & CLASS_MASK
        if group == SPACE or group == NEWLINE:
            continue
        visible += 1
        marks += (kinds[i] & CLAUSE_END) != 0
    return _ratio(marks, visible)


def hashtag_share(points):
    """Runs of # and ＃ over code points (CT-LLM rule 4: runs count once)."""
    runs = 0
    for i in range(len(points)):
        mark = points[i] == 0x23 or points[i] == 0xFF03
        runs += mark and (i == 0 or (points[i - 1] != 0x23 and points[i - 1] != 0xFF03))
    return _ratio(runs, len(points))


def ellipsis_share(points):
    """Runs of …, .. or 。。 over code points (CT-LLM rule 5: runs count once)."""
    runs = 0
    i = 0
    while i < len(points):
        length = 0
        long = False
        while i < len(points) and points[i] in (0x2E, 0x3002, 0xFF0E, 0x2026):
            long |= points[i] == 0x2026
            length += 1
            i += 1
        runs += long or length > 1
        i += 1
    return _ratio(runs, len(points))


def bracket_share(points):
    """Characters inside 【】 over code points (CT-LLM rule 6)."""
    inside = 0
    opened = -1
    for i in range(len(points)):
        if points[i] == 0x3010 and opened < 0:
            opened = i
        elif points[i] == 0x3011 and opened >= 0:
            inside += i - opened - 1
            opened = -1
        elif points[i] == 0x0A:
            opened = -1
    return _ratio(inside, len(points))


def longest_run_share(points, kinds):
    """Length of the longest run of one character, spaces and newlines excepted, over code points."""
    longest = 0
    run = 0
    for i in range(len(points)):
        if (kinds[i] & CLASS_MASK) in (SPACE, NEWLINE):
            run = 0
            continue
        run = run + 1 if i and points[i] == points[i - 1] else 1
        longest = max(longest, run)
    return _ratio(longest, len(points))


TAG_CHARS = 300  # maximum length of a tag: a lone < in prose or mathematics opens none
ENTITY_CHARS = 10


@register_jitable
def _is_letter(point):
    return 0x61 <= point <= 0x7A or 0x41 <= point <= 0x5A


@register_jitable
def _is_in_name(point):
    """True for characters inside a tag name, as in h1, !DOCTYPE, o:p, my-tag."""
    return _is_letter(point) or 0x30 <= point <= 0x3A or point == 0x2D


@register_jitable
def _markup_end(points, i, stop):
    """The end of the HTML tag or named entity that starts at i; i if none starts there."""
    if points[i] == 0x3C and i + 2 < stop and (_is_letter(points[i + 1]) or points[i + 1] in (0x2F, 0x21)):
        k = i + 2
        while k < stop and _is_in_name(points[k]):
            k += 1
        if k < stop and points[k] not in (
            0x3E,
            0x2F,
            0x20,
            0x09,
            0x0A,
            0x0D,
            0x5B,
        ):  # a<b且c>d is mathematics
            return i
        while k < min(stop, i + TAG_CHARS):
            if points[k] == 0x3E:
                return k + 1
            if points[k] == 0x3C:
                return i
            k += 1
    elif points[i] == 0x26 and i + 2 < stop and _is_letter(points[i + 1]):
        for k in range(i + 2, min(stop, i + ENTITY_CHARS)):
            if points[k] == 0x3B:
                return k + 1
            if not _is_letter(points[k]):
                return i
    return i


def markup_share(points):
    """Characters of HTML tags (<p style="...">, </div>) and of named entities (&nbsp;) over code points."""
    inside = 0
    i = 0
    while i < len(points):
        end = _markup_end(points, i, len(points))
        inside += end - i
        i = max(end, i + 1)
    return _ratio(inside, len(points))
