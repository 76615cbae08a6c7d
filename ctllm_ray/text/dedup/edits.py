"""Decides whether two texts differ only in scattered
slips, as a scan, a dictation or a respelling makes them.

Changing a tenth of the characters one by one leaves a Jaccard similarity of 0.4, the same as for a page that
shares half of its text with another. The alignment of the two texts distinguishes these cases. A slip is
short, one or a few characters. It changes no number, Latin word or name, which would change the meaning. And
it occurs once, while a page about another subject makes the same change again and again (宽度 for 高度 in every
sentence).

The fewest edits (insertions, deletions, replacements) by Ukkonen's furthest points (Algorithms for
approximate string matching, 1985): O(n + d * d) for d edits as a rule, so for two texts that are unlike the
bound on d is what it costs.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import numpy as np
import pyarrow as pa
from numba.extending import register_jitable

from ctllm_ray.text.kernels.codepoints import buffers, decode
from ctllm_ray.text.kernels.compiled import compiled

MOST_EDITS = 2_000  # per pair, whatever its length: takes 16 MB
#: Letters and digits of alphabets lie below it. Folded texts hold nothing else there.
FIRST_HAN = 0x2E80
NUMERALS = np.array(
    [ord(c) for c in "〇零一二三四五六七八九十百千万亿两廿卅壹贰叁肆伍陆柒捌玖拾佰仟"], np.uint32
)
# a change that occurs more often, and is a larger share of all changes, is not a slip
REPEATS, REPEAT_SHARE = 2, 0.1


def differ_in_slips(
    texts: pa.Array, left: np.ndarray, right: np.ndarray, *, max_edit_share: float, max_edit_run: int
) -> np.ndarray:
    """bool[pairs]: whether folded texts are equal, or differ only in scattered slips.

    Edits are at most `max_edit_share` of the characters of
    the longer text, in stretches of at most `max_edit_run`.
    """
    values: np.ndarray = _find_slips(*buffers(texts), left, right, max_edit_share, max_edit_run)
    return values


@compiled
def _find_slips(data, offsets, left, right, max_share, max_run):
    out = np.zeros(len(left), np.bool_)
    furthest = np.empty(0, np.int32)
    for i in range(len(left)):
        points_a = decode(data, offsets[left[i]], offsets[left[i] + 1])
        points_b = decode(data, offsets[right[i]], offsets[right[i] + 1])
        a, b = in_order(points_a, points_b)
        most = min(int(max_share * max(len(a), len(b))), MOST_EDITS)
        if (most + 1) ** 2 > len(furthest):
            furthest = np.empty((most + 1) ** 2, np.int32)
        edits = edit_distance(a, b, most, furthest)
        out[i] = edits >= 0 and _are_slips(a, b, edits, furthest, max_run)
    return out


@register_jitable
def in_order(a, b):
    """The two texts in a fixed order. The fewest edits can be chosen in several ways; this picks one."""
    if len(a) != len(b):
        return (a, b) if len(a) < len(b) else (b, a)
    for i in range(len(a)):
        if a[i] != b[i]:
            return (a, b) if a[i] < b[i] else (b, a)
    return a, b


@register_jitable
def edit_distance(a, b, most, furthest):
    """The edit distance from `a` to `b`; -1 if it exceeds `most`.

    `furthest[d * d + d + k]` is how far into `a` one gets with d edits where that is k further into `b`.
    """
    n, m = len(a), len(b)
    if abs(n - m) > most:
        return -1
    for d in range(most + 1):
        for k in range(-d, d + 1):
            i = diagonal_start(furthest, d, k, n, m)
            while 0 <= i < n and i + k < m and a[i] == b[i + k]:
                i += 1
            furthest[d * d + d + k] = i
        if abs(m - n) <= d and furthest[d * d + d + m - n] == n:
            return d
    return -1


@register_jitable
def diagonal_start(furthest, d, k, n, m):
    """Position in `a` on diagonal k after the last of d edits, before the equal
    stretch; -1 if unreachable."""
    if d == 0:
        return 0
    before = (d - 1) * (d - 1) + d - 1 + k
    i = -1
    if abs(k) < d and furthest[before] >= 0:  # a replacement
        i = furthest[before] + 1
    if abs(k - 1) < d:  # an insertion
        i = max(i, furthest[before - 1])
    if abs(k + 1) < d and furthest[before + 1] >= 0:  # a deletion
        i = max(i, furthest[before + 1] + 1)
    return i if i <= n and 0 <= i + k <= m else -1


@register_jitable
def _are_slips(a, b, edits, furthest, max_run):
    """Traces the edits of `edit_distance` backwards, one by one."""
    changes = np.empty(edits, np.uint64)
    n, m = len(a), len(b)
    i, k, run_a, run_b = n, m - n, 0, 0
    for d in range(edits, 0, -1):
        start = diagonal_start(furthest, d, k, n, m)
        if start < i:  # equal text lies between this edit and the next one
            run_a = run_b = 0
        before = (d - 1) * (d - 1) + d - 1 + k
        deleted = inserted = np.uint32(0)
        if abs(k) < d and furthest[before] >= 0 and furthest[before] + 1 == start:
            deleted, inserted = a[start - 1], b[start - 1 + k]
        elif abs(k - 1) < d and furthest[before - 1] == start:
            inserted = b[start + k - 1]
            k -= 1
        else:
            deleted = a[start - 1]
            k += 1
        run_a, run_b = run_a + (deleted > 0), run_b + (inserted > 0)
        if max(run_a, run_b) > max_run or _says_something_else(deleted, inserted):
            return False
        changes[d - 1] = np.uint64(deleted) << np.uint64(32) | np.uint64(inserted)
        i = furthest[(d - 1) * (d - 1) + d - 1 + k]
    return _commonest(changes) <= max(REPEATS, REPEAT_SHARE * edits)


@register_jitable
def _says_something_else(deleted, inserted):
    """Whether a change touches letters or digits of an alphabet, or Chinese numerals
    other than to another or to 0."""
    sides = int(deleted == 0) + int(inserted == 0)
    for numeral in NUMERALS:
        sides += int(deleted == numeral) + int(inserted == numeral)
    return 0 < deleted < FIRST_HAN or 0 < inserted < FIRST_HAN or sides == 2


@register_jitable
def _commonest(changes):
    """Count of the most common change."""
    changes.sort()
    most = count = 0
    for i in range(len(changes)):
        count = count + 1 if i and changes[i] == changes[i - 1] else 1
        most = max(most, count)
    return most
