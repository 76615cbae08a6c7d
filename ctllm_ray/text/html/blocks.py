"""Finds the body of a page: scores its lines in one compiled pass, then takes the maximum-scoring stretches.

The input is resiliparse's reduced markup: one block per line, with the tags `<a> <p> <h1> <pre> <br>` only,
and every `<` of the text escaped, so the first byte identifies a tag. Each line gets a score: prose adds its
length, links subtract, and a short line without punctuation subtracts a little. The body is the stretches of
lines with the largest score sums. So a caption or a date between two paragraphs is kept, and a link list
separates the body from the comments.

Lengths are in UTF-8 bytes divided by 3: a Han character
counts 1 and an English word about 2, close to what each says.

Method: maximum subsequence segmentation (Pasternack and Roth, "Extracting article text from the web with
maximum subsequence segmentation", WWW 2009), with all maximal subsequences found in linear time (Ruzzo and
Tompa, 1999). They score tokens with a classifier trained on English; the scores here are four constants
set on Chinese pages by benchmarks/extraction.py. Why not main_content=True of resiliparse: it drops text
nodes of one character, which in Chinese are the punctuation between two links, it is quadratic in the
nesting depth, and it finds less (see that benchmark). Cost: about 3 ms per MB of reduced page, which is
about a fifth of the HTML.
"""

from __future__ import annotations

import numpy as np

from ctllm_ray.text.kernels.compiled import compiled

#: A line without punctuation counts for this share of its length, less LINE_COST: positive from 13 characters
#: on.
UNPUNCTUATED = 0.4
LINE_COST = 5.0
#: No line counts for more characters than this. One block of terms and conditions must not outweigh a body.
LINE_CAP = 50.0
#: Short plain lines without punctuation (headings, names, dates) never cost more than this.
SHORT_COST = -0.5
#: Another stretch belongs to the body if its sum is at least this share of the best one.
STRETCH_SHARE = 0.3
#: The first stretch within so many lines after an <h1> is body if it reaches this sum,
#: however long the terms of use are.
HEADLINE_LINES = 24
HEADLINE_SUM = 30.0
#: A body line is dropped if more than this share of it is link text.
LINK_SHARE = 0.6
#: If no line scores, the plain lines are the body if they are at least this share of all text
#: (poems, lists).
PLAIN_SHARE = 0.5
#: So many short paragraphs still belong to the body: before the first prose line (poem title, author)
#: and after the last one (signature, place, date).
SIGNATURE_LINES = 4

START, STOP, BYTES, LINK_BYTES, MARKS, LEVEL, PRE, LINKS, PARAGRAPH, KEPT = range(10)
_COLUMNS = 10
_PICKED = [START, STOP, PRE, LEVEL, KEPT]
PADDING = 4  # bytes after the end: looking two bytes ahead then needs no check


def body(reduced: str) -> tuple[list[str], list[str]]:
    """The lines of a reduced page that are its body, and all its headings, both in page order."""
    text, rows = score_lines(reduced)
    result: tuple[list[str], list[str]] = ([], [])
    picked = rows[(rows[:, KEPT] | rows[:, LEVEL]) > 0]
    for start, stop, pre, level, kept in picked[:, _PICKED].tolist():
        line = (
            text[start:stop].rstrip() if pre else text[start:stop].strip()
        )  # preformatted text keeps its indentation
        if kept:
            result[0].append(line)
        if level:
            result[1].append(line.strip())
    return result


def score_lines(reduced: str) -> tuple[str, np.ndarray]:
    """The page's text without tags, and one row per line
    (int32, columns START to KEPT) that points into it."""
    data = np.frombuffer(reduced.encode("utf-8", "replace") + b"\n" * (PADDING + 1), np.uint8)
    text = np.empty(len(data), np.uint8)
    rows = np.empty((reduced.count("\n") + 2, _COLUMNS), np.int32)
    count, size = _split_lines(data, text, rows)
    rows = rows[:count]
    _keep(_scores(rows), rows)
    return text[:size].tobytes().decode(), rows


@compiled
def _ascii_mark(data: np.ndarray, i: int) -> bool:
    """Whether the ASCII byte at i is , . ! ? ; before a space, a tag or a Han character (so not in 3.14)."""
    c, after = data[i], data[i + 1]
    mark = c == 0x2C or c == 0x2E or c == 0x21 or c == 0x3F or c == 0x3B
    return mark and (after <= 0x20 or after == 0x3C or after >= 0x80)


@compiled
def _wide_mark(data: np.ndarray, i: int) -> bool:
    """Whether the three bytes at i are one of 、。，！？；…"""
    c, b, a = data[i], data[i + 1], data[i + 2]
    if c == 0xEF:
        return b == 0xBC and (a == 0x8C or a == 0x81 or a == 0x9F or a == 0x9B)
    return b == 0x80 and ((c == 0xE3 and (a == 0x81 or a == 0x82)) or (c == 0xE2 and a == 0xA6))


@compiled
def _tag_end(data: np.ndarray, i: int) -> int:
    """The position after the tag that starts at i; `>` inside a quoted attribute does not end it."""
    n = len(data)
    while i < n and data[i] != 0x3E:
        if data[i] == 0x22:
            i += 1
            while i < n and data[i] != 0x22:
                i += 1
        i += 1
    return i + 1


@compiled
def _entity(data: np.ndarray, i: int) -> tuple[int, int]:
    """The character of the entity at i, and the entity's length. resiliparse writes
    &lt; &gt; &quot; &amp; only."""
    after = data[i + 1]
    if after == 0x6C:
        return 0x3C, 4
    if after == 0x67:
        return 0x3E, 4
    if after == 0x71:
        return 0x22, 6
    return 0x26, 5


@compiled
def _split_lines(data: np.ndarray, text: np.ndarray, rows: np.ndarray) -> tuple[int, int]:
    """Fills `text` and `rows`; returns the number of lines and bytes. Lines without text are left out."""
    n, i, out, row = len(data) - PADDING, 0, 0, 0
    at = 0  # in characters, where `out` is in bytes
    start = size = linked = marks = level = links = 0
    link = pre = in_pre = paragraph = in_paragraph = False
    # Line breaks since the link opened: one may stand between a link and its block, not more.
    breaks = 0
    while i <= n:
        c = data[i]
        if c >= 0xE2:  # three bytes, or four
            marks += not link and (c <= 0xE3 or c == 0xEF) and _wide_mark(data, i)
            width = 4 if c >= 0xF0 else 3
            for k in range(width):
                text[out + k] = data[i + k]
            out, i, at, size, linked = out + width, i + width, at + 1, size + width, linked + width * link
        elif c == 0x0A:
            if size:
                rows[row, START], rows[row, STOP] = start, at
                rows[row, BYTES], rows[row, LINK_BYTES] = size, linked
                rows[row, MARKS], rows[row, LEVEL], rows[row, LINKS] = marks, level, links
                rows[row, PRE], rows[row, PARAGRAPH], rows[row, KEPT] = in_pre, in_paragraph, 0
                row += 1
            start, size, linked, marks, level, links, in_paragraph = at, 0, 0, 0, 0, 0, paragraph
            in_pre = pre
            breaks += 1
            link = link and breaks < 2
            i += 1
        elif c == 0x3C:
            closing = data[i + 1] == 0x2F
            name, after = data[i + 1 + closing], data[i + 2 + closing]
            if name == 0x61:  # a
                link, breaks = not closing, 0
                links += link
            elif name == 0x68 and not closing:  # h1 to h6
                level = after - 0x30
            elif name == 0x70 and after == 0x72:  # pre
                pre = not closing
                in_pre |= pre
            elif name == 0x70:  # p
                paragraph = not closing
                in_paragraph |= paragraph
            i = _tag_end(data, i)
        else:
            width = 1
            if c == 0x26:
                c, width = _entity(data, i)
            elif c < 0x40 and not link:
                marks += _ascii_mark(data, i)
            text[out] = c
            out += 1
            at += c < 0x80 or c >= 0xC0
            i += width
            size += c > 0x20
            linked += link and c > 0x20
    return row, out


@compiled
def _scores(rows: np.ndarray) -> np.ndarray:
    """The score of each line, in characters: positive for body, negative against."""
    scores = np.empty(len(rows), np.float64)
    for k in range(len(rows)):
        linked = rows[k, LINK_BYTES] / 3.0
        plain = rows[k, BYTES] / 3.0 - linked
        if linked > plain:
            scores[k] = -linked - LINE_COST
            continue
        score = min(plain, LINE_CAP)
        if rows[k, MARKS] == 0:
            score = min(plain * UNPUNCTUATED, LINE_CAP) - LINE_COST
            if rows[k, LINKS] == 0:
                score = max(score, SHORT_COST)
        scores[k] = max(score - linked, 0.0) if rows[k, PRE] else score - linked
    return scores


@compiled
def _keep(scores: np.ndarray, rows: np.ndarray) -> None:
    """Marks the lines of the maximal stretches whose score is close to the best; see the module's method."""
    n, total, count = len(scores), 0.0, 0
    first, last, lower = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64)
    left, right = np.empty(n, np.float64), np.empty(n, np.float64)
    for k in range(n):
        before = total
        total += scores[k]
        if scores[k] <= 0:
            continue
        start, low = k, before
        while True:
            j = count - 1
            while j >= 0 and left[j] >= low:
                j = lower[j]  # all starts in between are higher: this keeps the search linear
            if j < 0 or right[j] >= total:
                break
            start, low, count = first[j], left[j], j
        first[count], last[count], lower[count], left[count], right[count] = start, k, j, low, total
        count += 1
    best = 0.0
    for j in range(count):
        best = max(best, right[j] - left[j])
    for j in range(count):
        near = right[j] - left[j] >= STRETCH_SHARE * best
        if near or (right[j] - left[j] >= HEADLINE_SUM and _under_headline(rows, first[j])):
            _mark(rows, first[j], last[j])
    if count == 0:
        _mark_plain(rows)


@compiled
def _under_headline(rows: np.ndarray, first: int) -> bool:
    return bool(np.any(rows[max(0, first - HEADLINE_LINES) : first + 1, LEVEL] == 1))


@compiled
def _mark(rows: np.ndarray, first: int, last: int) -> None:
    for k in range(first, last + 1):
        rows[k, KEPT] = rows[k, LINK_BYTES] <= LINK_SHARE * rows[k, BYTES]
    _extend(rows, first, -1)
    _extend(rows, last, 1)


@compiled
def _extend(rows: np.ndarray, edge: int, step: int) -> None:
    """Marks the plain paragraphs next to a stretch whose edge is a paragraph itself."""
    if rows[edge, PARAGRAPH]:
        for k in range(edge + step, edge + step * (SIGNATURE_LINES + 1), step):
            if k < 0 or k >= len(rows) or rows[k, LINKS] or rows[k, LEVEL] or not rows[k, PARAGRAPH]:
                break
            rows[k, KEPT] = 1


@compiled
def _mark_plain(rows: np.ndarray) -> None:
    plain = total = 0
    for k in range(len(rows)):
        total += rows[k, BYTES]
        plain += rows[k, BYTES] - rows[k, LINK_BYTES]
    if plain >= PLAIN_SHARE * total:
        for k in range(len(rows)):
            rows[k, KEPT] = rows[k, LINKS] == 0
