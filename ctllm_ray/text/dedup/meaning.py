"""Whether two nearly equal texts say something else: other numbers, signs, Latin words, a negation, an opposite.

Copies differ in slips of single characters, in what stands around the text, in a sentence more or less. Pages
of one template differ in what matters: 小明有3个苹果 and 小明有13个苹果, 符合 and 不符合, 12+5 and 12-5. The
fewest edits between the two texts (edits.py) are looked at in runs. A run says something else if it is short, and

- holds a digit, a sign (signs.py) or a Latin letter, and no more than that unless something is exchanged for it;
- is a negation (不 没 未 非 无 否 勿) or a Chinese numeral that one text has and the other has not;
- exchanges a character for its opposite (上升 for 下降), or a numeral for another.

A long run, and one at an end, is more or less text, which says nothing against the rest: other bounds are for that.
What a page's furniture counts says nothing either: digits behind words such as 阅读 or 发布时间, before 次浏览, and at
the edges of a long page. Single Han characters that a scan or a deletion changed at random hit a negation now and
then: the second and third kind count only where they are a quarter of all runs. Numbers in long pages (dates, counts
of a template that was filled anew) are bounded by their share.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import numpy as np
import pyarrow as pa
from numba.extending import register_jitable

from ctllm_ray.text.dedup.edits import FIRST_HAN, NUMERALS, diagonal_start, edit_distance, in_order
from ctllm_ray.text.kernels.codepoints import buffers, decode
from ctllm_ray.text.kernels.compiled import compiled

MOST_EDITS = 400  # pairs with more are unlike enough for other bounds, or hold more text
LONG_RUN = 12  # a longer run is more or less text
SOFT_SHARE = 0.25  # of all runs, from which negations and opposites are no accident
EDGE_CHARS, EDGE_OF = 60, 400  # at the edges of a text that is longer than this stands furniture
NEGATIONS = np.array([ord(c) for c in "不没未非无否勿莫"], np.uint32)
_OPPOSITES = (
    "上下左右升降增减大小多少高低长短前后进出买卖男女东西南北正负加减开关生死胜败优劣强弱快慢早晚新旧有无真假对错"
    "先后内外涨跌盈亏好坏热冷轻重粗细深浅厚薄冬夏春秋父母赢输"
)
OPPOSITES = np.array([ord(c) for c in _OPPOSITES], np.uint32).reshape(-1, 2)
_BEFORE = "阅读 浏览 点击 人气 发布 时间 日期 更新 来源 评论 回复 编辑 字号 编号 备案 访问 次数 页码 楼层 copyright icp"
_BEHIND = "次阅读 次浏览 次点击 人浏览 人阅读 阅读 浏览 评论 点击 楼"
CUE_CHARS, BEFORE_CHARS, BEHIND_CHARS = 9, 14, 4


def _cues(words: str) -> np.ndarray:
    """The code points of words, a row each, filled up with zeros."""
    cues = np.zeros((len(words.split()), CUE_CHARS), np.uint32)
    for row, word in zip(cues, words.split(), strict=True):
        row[: len(word)] = [ord(c) for c in word]
    return cues


BEFORE, BEHIND = _cues(_BEFORE), _cues(_BEHIND)


def differ_in_meaning(
    texts: pa.Array, left: np.ndarray, right: np.ndarray, *, short_chars: int, max_changed_share: float
) -> np.ndarray:
    """bool[pairs]: whether folded texts with signs (signs.py) say something else in short runs of characters.

    One changed number is enough where the longer text has at most `short_chars` characters; in longer ones changed
    numbers must be more than `max_changed_share` of the characters, each counted once.
    """
    values: np.ndarray = _differ(*buffers(texts), left, right, short_chars, max_changed_share)
    return values


@compiled
def _differ(data, offsets, left, right, short_chars, max_changed_share):
    out = np.zeros(len(left), np.bool_)
    furthest = np.empty((MOST_EDITS + 1) ** 2, np.int32)
    for i in range(len(left)):
        points_a = decode(data, offsets[left[i]], offsets[left[i] + 1])
        points_b = decode(data, offsets[right[i]], offsets[right[i] + 1])
        a, b = in_order(points_a, points_b)
        edits = edit_distance(a, b, MOST_EDITS, furthest)
        allowed = 0.0 if len(b) <= short_chars else max_changed_share * len(b)
        out[i] = edits > 0 and _says_else(a, b, edits, furthest, allowed)
    return out


@register_jitable
def _says_else(a, b, edits, furthest, allowed):
    """Goes through the runs of edits, from the end of the texts to their beginning."""
    deleted, inserted = np.empty(edits, np.uint32), np.empty(edits, np.uint32)
    n, m = len(a), len(b)
    i, k, count_d, count_i, runs, soft, hard = n, m - n, 0, 0, 0, 0, 0
    for d in range(edits, 0, -1):
        start = diagonal_start(furthest, d, k, n, m)
        if start < i and count_d + count_i:  # equal text lies between this edit and the next one
            verdict = _judge_run(deleted[:count_d], inserted[:count_i], a, b, i, i + k)
            runs, soft, hard = runs + 1, soft + (verdict == 1), hard + (verdict == 2)
            count_d = count_i = 0
        before = (d - 1) * (d - 1) + d - 1 + k
        if abs(k) < d and furthest[before] >= 0 and furthest[before] + 1 == start:
            deleted[count_d], inserted[count_i] = a[start - 1], b[start - 1 + k]
            count_d, count_i = count_d + 1, count_i + 1
        elif abs(k - 1) < d and furthest[before - 1] == start:
            inserted[count_i] = b[start + k - 1]
            count_i += 1
            k -= 1
        else:
            deleted[count_d] = a[start - 1]
            count_d += 1
            k += 1
        i = furthest[(d - 1) * (d - 1) + d - 1 + k]
    verdict = _judge_run(deleted[:count_d], inserted[:count_i], a, b, i, i + k)
    runs, soft, hard = runs + 1, soft + (verdict == 1), hard + (verdict == 2)
    return hard > allowed or soft >= max(1.0, SOFT_SHARE * runs)


@register_jitable
def _judge_run(deleted, inserted, a, b, i, j):
    """2: the run says something else. 1: it may. 0: it does not. It begins at a[i] and b[j]."""
    at_end = (i + len(deleted) == len(a) or i == 0) and min(len(deleted), len(inserted)) == 0
    if max(len(deleted), len(inserted)) > LONG_RUN or at_end:
        return 0
    numbers = _count_below(deleted) + _count_below(inserted)
    exchanged = min(len(deleted), len(inserted)) > 0
    if numbers:
        if not exchanged and numbers < len(deleted) + len(inserted):
            return 0  # words with a number in them are more text
        return 0 if _is_furniture(a, i, len(deleted)) or _is_furniture(b, j, len(inserted)) else 2
    if _count_of(deleted, NUMERALS) + _count_of(inserted, NUMERALS) == len(deleted) + len(inserted):
        return 0 if _is_furniture(a, i, len(deleted)) or _is_furniture(b, j, len(inserted)) else 1
    alone = min(len(deleted), len(inserted)) == 0 and max(len(deleted), len(inserted)) <= 2
    if alone and _count_of(deleted, NEGATIONS) + _count_of(inserted, NEGATIONS):
        return 1
    return int(len(deleted) == len(inserted) <= 3 and _holds_opposites(deleted, inserted))


@register_jitable
def _holds_opposites(deleted, inserted):
    for k in range(len(deleted)):
        for pair in OPPOSITES:
            if (deleted[k] == pair[0] and inserted[k] == pair[1]) or (
                deleted[k] == pair[1] and inserted[k] == pair[0]
            ):
                return True
    return False


@register_jitable
def _count_below(points):
    """Digits, signs and letters of alphabets: folded text holds nothing else below Han."""
    count = 0
    for point in points:
        count += 0 < point < FIRST_HAN
    return count


@register_jitable
def _count_of(points, wanted):
    count = 0
    for point in points:
        for each in wanted:
            count += point == each
    return count


@register_jitable
def _is_furniture(points, at, count):
    """Whether what begins at a place is at the edge of a long text, or beside a word of page furniture."""
    if len(points) > EDGE_OF and (at < EDGE_CHARS or at > len(points) - EDGE_CHARS):
        return True
    return _holds(points[max(0, at - BEFORE_CHARS) : at], BEFORE) or _holds(
        points[at + count : at + count + BEHIND_CHARS], BEHIND
    )


@register_jitable
def _holds(points, cues):
    for cue in cues:
        size = 0
        while size < len(cue) and cue[size]:
            size += 1
        for start in range(len(points) - size + 1):
            same = True
            for k in range(size):
                if points[start + k] != cue[k]:
                    same = False
                    break
            if same:
                return True
    return False
