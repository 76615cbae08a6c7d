"""Aho-Corasick matching over character classes, with gaps. `lexicon` uses it.

The automaton (Aho and Corasick 1975) is a trie in flat arrays, each state with its list of children and
the link to its longest suffix, run by one numba kernel; a dense row of next states would cost 4 bytes x
states x letters, which lists of 100,000 terms do not forgive, and states below the root have one or two
children. What a character is comes from a table, so folding costs one load. 11 ns a character measured
(200 MB/s of UTF-8 on one core).
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import numpy as np

from ctllm_ray.text.kernels.codepoints import decode
from ctllm_ray.text.kernels.compiled import compiled

#: Symbols skipped between two letters of a term, at most: 博**彩 is a disguise, 博***彩 is a table.
MOST_GAP = 2
#: Maximum letters of a term; the kernel remembers the positions of the last `_RING` letters.
MOST_LETTERS = 32
_RING = 64
#: Code points from here on are not letters of terms. Below lie CJK, kana, Latin, styled letters,
#: and emoji.
LIMIT = 0x20000

#: What a code point is: no letter of any term, skipped between letters, a full stop (skipped where it stands
#: alone), the end of a line or clause; from DIGIT on a letter: ten digits, then 26 Latin letters, then all
#: others.
OTHER, GAP, DOT, STOP, DIGIT = 0, 1, 2, 3, 4
LATIN = DIGIT + 10
HAN = LATIN + 26
#: Flag on a letter that plain writing would not use here.
DISGUISED = 0x8000

#: Columns of a node: its letter, first child, next sibling, longest suffix that begins a term, next shorter
#: suffix that is a term (0 for none), its own term (-1 for none), and its depth.
_LETTER, _CHILD, _SIBLING, _FAIL, _OUT, _TERM, _DEPTH = range(7)


def machine(words: Iterable[list[int]], n_symbols: int) -> tuple[np.ndarray, np.ndarray]:
    """The automaton of the words: the state after each first letter, and one row of nodes per state."""
    children: list[dict[int, int]] = [{}]
    term, depth = [-1], [0]
    for number, word in enumerate(words):
        state = 0
        for symbol in word:
            if symbol not in children[state]:
                children[state][symbol] = len(children)
                children.append({})
                term.append(-1)
                depth.append(depth[state] + 1)
            state = children[state][symbol]
        term[state] = number
    root = np.zeros(n_symbols, np.int32)
    root[[*children[0]]] = [*children[0].values()]
    nodes = np.zeros((len(children), 8), np.int32)
    nodes[:, _TERM], nodes[:, _DEPTH] = term, depth
    _link(nodes, children)
    return root, nodes


def _link(nodes: np.ndarray, children: list[dict[int, int]]) -> None:
    """Fills in the tree (child and sibling lists), and the failure links from the root down."""
    queue = deque([0])
    while queue:
        state = queue.popleft()
        for symbol, below in children[state].items():
            nodes[below, [_LETTER, _SIBLING]], nodes[state, _CHILD] = (symbol, nodes[state, _CHILD]), below
            suffix = nodes[state, _FAIL]
            while suffix and symbol not in children[suffix]:
                suffix = nodes[suffix, _FAIL]
            fail = children[suffix].get(symbol, 0) if state else 0
            nodes[below, [_FAIL, _OUT]] = fail, fail if nodes[fail, _TERM] >= 0 else nodes[fail, _OUT]
            queue.append(below)


@compiled
def scan(points, symbols, root, nodes, result):
    """Writes the longest non-overlapping hits as rows of `result`; returns their number."""
    where = np.empty(_RING, np.int32)  # positions of the last letters
    marks = np.empty(_RING, np.int32)  # disguised letters and gaps before each of them
    state, gap, n_letters, disguised, latin_before = 0, 0, 0, 0, False
    n, stop, length, floor = 0, 0, 0, 0  # hits; end and letters of the last one; end of the one before it
    for i in range(len(points)):
        symbol = np.int64(symbols[points[i]]) if points[i] < LIMIT else OTHER
        kind = symbol & 0x7FFF
        if kind < DIGIT:
            if state != 0:
                if kind == GAP and gap < MOST_GAP:
                    gap += 1
                elif kind == DOT and gap == 0:
                    gap = MOST_GAP  # a dot next to a space ends a sentence
                else:
                    state = 0
            continue
        latin = kind < HAN
        if gap != 0:
            if latin and latin_before:
                state = 0
            elif gap > 1 or latin == latin_before or points[i - 1] != 0x20:
                disguised += 1  # but SEO 优化 is good typography
        gap, latin_before = 0, latin
        while state != 0:
            below = nodes[state, _CHILD]
            while below != 0 and nodes[below, _LETTER] != kind:
                below = nodes[below, _SIBLING]
            if below != 0:
                state = below
                break
            state = nodes[state, _FAIL]
        if state == 0:
            state = root[kind]
        where[n_letters & (_RING - 1)] = i
        marks[n_letters & (_RING - 1)] = disguised
        disguised += symbol >> 15
        n_letters += 1
        end = state if nodes[state, _TERM] >= 0 else nodes[state, _OUT]
        while end != 0:
            first = (n_letters - nodes[end, _DEPTH]) & (_RING - 1)
            start = where[first]
            if _stands_alone(points, symbols, start, i):
                if start >= stop or (start >= floor and nodes[end, _DEPTH] > length):
                    if start >= stop:
                        n, floor = n + 1, stop
                    stop, length = i + 1, nodes[end, _DEPTH]
                    result[n - 1, 0], result[n - 1, 1] = start, stop
                    result[n - 1, 2], result[n - 1, 3] = nodes[end, _TERM], disguised > marks[first]
                break
            end = nodes[end, _OUT]
    return n


@compiled
def _stands_alone(points, symbols, first, last):
    """False if a term that begins or ends with a Latin letter or digit continues beyond it."""
    return not (
        (first > 0 and _is_same_class(_class(points, symbols, first - 1), _class(points, symbols, first)))
        or (
            last + 1 < len(points)
            and _is_same_class(_class(points, symbols, last), _class(points, symbols, last + 1))
        )
    )


@compiled
def _class(points, symbols, i):
    kind = symbols[points[i]] & 0x7FFF if points[i] < LIMIT else 0
    if kind < DIGIT or kind >= HAN:
        return 0
    return 1 if kind < LATIN else 2


@compiled
def _is_same_class(a, b):
    return a != 0 and a == b


@compiled
def count(data, offsets, symbols, root, nodes, of_term, letters, n_categories):
    """Per text and category: letters covered, hits, distinct
    terms, hits in disguise (int32[rows, categories, 4])."""
    out = np.zeros((len(offsets) - 1, n_categories, 4), np.int32)
    last_row = np.full(len(of_term), -1, np.int32)
    for row in range(len(offsets) - 1):
        points = decode(data, offsets[row], offsets[row + 1])
        values = np.empty((len(points) // 2 + 1, 4), np.int32)
        for k in range(scan(points, symbols, root, nodes, values)):
            term = values[k, 2]
            category = of_term[term]
            if category < 0:
                continue
            out[row, category, 0] += letters[term]
            out[row, category, 1] += 1
            out[row, category, 2] += last_row[term] != row
            out[row, category, 3] += values[k, 3]
            last_row[term] = row
    return out
