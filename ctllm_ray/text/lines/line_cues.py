"""Finds the lines that line rules must look at: those
that contain a cue of a rule and are short enough for it.

A kernel runs over the code points once, finds cues through a table of first characters, and notes each line
with the rules it concerns. Of clean prose some lines in a hundred pass, so that the rules themselves, regular
expressions in Python, cost little. (One RE2 search for all cues together ran at 4 MB/s here, one search per
rule at 300 / rules.) Cost: about 200 MB/s of UTF-8 on one core.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from ctllm_ray.text.kernels.codepoints import buffers, decode
from ctllm_ray.text.kernels.compiled import compiled

ANY_LENGTH = 1 << 30  # characters


class Cues(NamedTuple):
    """The words of all rules as flat arrays; the words that begin with c are first[c]
    to first[c + 1] of `words`."""

    first: np.ndarray
    words: np.ndarray  # code points, a row each, 0 after the end
    masks: np.ndarray  # the rules that a word concerns
    longest: np.ndarray  # of a line that a rule can cut, in characters
    always: int  # the rules without cues


class Suspects(NamedTuple):
    """Lines to look at: row of the batch, line number in its text, rules concerned (bits, 64 at most)."""

    rows: np.ndarray
    lines: np.ndarray
    masks: np.ndarray


def cues(words: Sequence[Sequence[str]], longest: Sequence[int]) -> Cues:
    """The tables for rules given by their cue words (none: every line) and the longest line each can cut."""
    concerned: defaultdict[str, int] = defaultdict(int)
    for number, of_rule in enumerate(words):
        for word in of_rule:
            concerned[word.lower()] |= 1 << number
    order = sorted(concerned)
    table = np.zeros((len(order), max(map(len, order), default=0) + 1), np.uint32)
    for row, word in enumerate(order):
        table[row, : len(word)] = [*map(ord, word)]
    first = np.searchsorted(table[:, 0], np.arange(0x10001)).astype(np.int32)
    always = sum(1 << number for number, of_rule in enumerate(words) if not of_rule)
    masks = np.array([concerned[word] for word in order], np.uint64)
    return Cues(first, table, masks, np.array(longest, np.int64), always)


def suspects(texts: pa.Array, table: Cues) -> Suspects:
    """The lines of the texts (a string array without nulls) that a rule may cut, in order."""
    data, offsets = buffers(texts)
    return Suspects(
        *_scan(data, offsets, table.first, table.words, table.masks, table.longest, np.uint64(table.always))
    )


@compiled
def _scan(data, offsets, first, words, masks, longest, always):
    rows = len(offsets) - 1
    most = rows
    for i in range(offsets[0], offsets[rows]):
        most += data[i] == 0x0A
    out_rows, out_lines = np.empty(most, np.int64), np.empty(most, np.int64)
    out_masks = np.empty(most, np.uint64)
    n = 0
    for row in range(rows):
        points = decode(data, offsets[row], offsets[row + 1])
        line, start, stop, mask = 0, -1, -1, always
        for i in range(len(points) + 1):
            c = points[i] if i < len(points) else np.uint32(0x0A)
            if c == 0x0A:
                mask = _short_enough(mask, stop + 1 - start, longest) if start >= 0 else np.uint64(0)
                if mask != 0:
                    out_rows[n], out_lines[n], out_masks[n] = row, line, mask
                    n += 1
                line, start, stop, mask = line + 1, -1, -1, always
                continue
            if c > 0x20 and c != 0x3000 and c != 0xA0:
                start = i if start < 0 else start
                stop = i
                c = _lower(c)
                if c < 0x10000 and first[c] != first[c + 1]:
                    mask |= _rules_at(points, i, first[c], first[c + 1], words, masks)
    return out_rows[:n], out_lines[:n], out_masks[:n]


@compiled
def _lower(c):
    return c + np.uint32(32) if 0x41 <= c <= 0x5A else c


@compiled
def _rules_at(points, i, begin, end, words, masks):
    """The rules of all words from `begin` to `end` that stand at i."""
    mask = np.uint64(0)
    for word in range(begin, end):
        k = 1
        while words[word, k] != 0 and i + k < len(points) and _lower(points[i + k]) == words[word, k]:
            k += 1
        if words[word, k] == 0:
            mask |= masks[word]
    return mask


@compiled
def _short_enough(mask, length, longest):
    for rule in range(len(longest)):
        if length > longest[rule]:
            mask &= ~(np.uint64(1) << np.uint64(rule))
    return mask
