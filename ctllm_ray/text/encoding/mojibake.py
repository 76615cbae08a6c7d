"""Repairs mojibake (text decoded with the wrong charset) if the round trip is exact; else marks it.

    浣犲ソ      UTF-8 read as GBK            ÄãºÃ      GBK read as Latin-1 or windows-1252
    ä½ å¥½     UTF-8 read as Latin-1        琌Τㄓ     Big5 read as GBK, and the other way round
    锟斤拷     U+FFFD in UTF-8 read as GBK: nothing to undo      烫烫烫 屯屯屯 葺葺葺   memory never written

A wrong reading is undone by writing the text back in the charset it was read with and reading the bytes in
the right one: run by run, so that one bad line in a good page is repaired too, and only where nearly all
bytes fit and the result reads like Chinese and the original does not (`likelihood`). A byte that the wrong
decoder dropped or replaced (U+FFFD, ?) takes its character with it: that becomes U+FFFD, never a guess. The
bytes are `misreading`'s business.

A page first passes `mojibake_scan` at some 500 MB/s; what that flags (a clean page in 1500) takes Python
time, about 1 MB/s. ftfy is not used: it knows Latin mojibake, and changes Chinese quotes and widths.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from ctllm_ray.text.encoding.likelihood import likelihood, points
from ctllm_ray.text.encoding.misreading import GONE, Reading, read_again, utf8_runs
from ctllm_ray.text.encoding.mojibake_scan import CP1252_SPECIALS, suspicious_rows

# Restored characters needed to believe a run of Latin letters, and a run of Han, where chance matches are
# commoner.
MIN_CHARS = {"utf-8": 3, "gb18030": 4, "big5hkscs": 4}
MIN_CHARS_HAN = {"utf-8": 4, "gb18030": 10, "big5hkscs": 10}
MIN_LIKELIHOOD = 0.8  # of the repaired text: Chinese prose has 2 to 3, verse from 1.3, mojibake less than 0
MIN_GAIN = 1.5  # likelihood gained over the unrepaired run
MAX_LOST_SHARE = 0.34  # share of a run's characters; above it the run is marked, not repaired
MAX_LAYERS = 3  # of wrong decodings on top of each other
#: characters beyond ASCII per restored one: GB pairs have 1.8, Big5 1.6, an accented word 1.0
BEYOND_ASCII = 1.3
#: of a run of Han, kana, private use; Greek, Cyrillic, accented letters have places in GB 2312 too
HAN_SHARE = 0.6
NESTED_CHARS = 6  # so many complete UTF-8 sequences are no coincidence: look for another layer below

_LEFT = "\udcfe"  # a lone surrogate, gone again in the end: a piece left beside a restored run
_LATIN_RUN = re.compile(f"[\x80-\xff{CP1252_SPECIALS}�][\x00-\xff{CP1252_SPECIALS}�]{{5,}}")
_GHOST = re.compile(
    "(?:锟[斤解姐戒藉芥界借介]拷?)+|(?:ï¿½)+"
)  # EF BF BD with the first byte of what followed
_FILL = re.compile(r"烫{3,}|屯{3,}|葺{3,}|\A锘")


@dataclass(frozen=True)
class Repair:
    """The result of a repair; `kind` is empty if nothing was found.

    `restored_chars` counts characters that were undone. `suspect_chars` counts what is damaged still: U+FFFD,
    ghosts, fills, runs beyond repair, and in full each line in which a restored run lost a character.
    """

    text: str
    kind: str
    restored_chars: int
    suspect_chars: int

    @property
    def is_repaired(self) -> bool:
        """True if something was repaired, even if not all."""
        return self.restored_chars > 0


READINGS = (
    Reading("utf8_as_gbk", "gb18030", "utf-8"),
    Reading("utf8_as_latin1", "latin-1", "utf-8"),
    Reading("gbk_as_latin1", "latin-1", "gb18030"),
    Reading("big5_as_latin1", "latin-1", "big5hkscs"),
    Reading("big5_as_gbk", "gb18030", "big5hkscs"),
    Reading("gbk_as_big5", "big5hkscs", "gb18030"),
)


@dataclass
class _Undone:
    """A repair in progress: characters repaired by kind, and `marked` characters of runs left unrepaired."""

    text: str
    kinds: Counter[str] = field(default_factory=Counter)
    marked: Counter[str] = field(default_factory=Counter)
    layers: int = 0


def suspicious(text: str) -> bool:
    """True if a text may contain mojibake. `repair` starts with this scan."""
    data = np.frombuffer(text.encode("utf-8", "replace") or b" ", np.uint8)
    return bool(suspicious_rows(data, np.array([0, len(data)], np.int32))[0])


def repair(text: str) -> Repair:
    """Repairs the mojibake of a text as far as that is exact, and names its kind."""
    return repair_suspicious(text) if suspicious(text) else Repair(text, "", 0, 0)


def repair_suspicious(text: str) -> Repair:
    """Repairs a text that the scan has already flagged."""
    undone = _undo(text, MAX_LAYERS)
    lines = undone.text.split("\n")
    lost = sum(len(line) for line in lines if GONE in line or _LEFT in line)
    clean = "\n".join(line for line in lines if GONE not in line and _LEFT not in line)
    traces = Counter(
        gbk_ghost=sum(len(m[0]) for m in _GHOST.finditer(clean)),
        debug_fill=sum(len(m[0]) for m in _FILL.finditer(clean)),
        replacement=clean.count("�"),
    )
    suspect = lost + undone.marked.total() + traces.total()
    result = undone.kinds or undone.marked or +traces
    kind = "double" if undone.layers > 1 else max(result, key=result.__getitem__, default="")
    repaired = undone.text.replace(GONE, "�").replace(_LEFT, "")
    return Repair(repaired, kind, undone.kinds.total(), min(suspect, len(repaired)))


def _undo(text: str, layers: int) -> _Undone:
    """The text with every plausible run of every reading restored."""
    undone = _Undone(text)
    for reading in READINGS:
        pieces, at = [], 0
        for start, stop in _runs(undone.text, reading):
            run = undone.text[start:stop]
            restored = _restore_run(run, reading, layers, undone)
            if restored != run:
                pieces += [_leftover(undone.text[at:start]), restored]
                at = stop
        if pieces:
            undone.text = "".join([*pieces, _leftover(undone.text[at:])])
    return undone


def _leftover(gap: str) -> str:
    """The text between restored runs; marked as damaged if it shares their line and reads no better."""
    lines = gap.split("\n")
    for i in {0, len(lines) - 1}:
        if likelihood(lines[i].replace(_LEFT, "")) < 0:
            lines[i] += _LEFT
    return "\n".join(lines)


def _restore_run(run: str, reading: Reading, layers: int, undone: _Undone) -> str:
    """The restored run, as a whole or line by line; unchanged if the result is not plausible."""
    restored = _judge_run(run, reading, layers, undone)
    if restored is None and "\n" in run.strip():
        lines = run.split("\n")
        return "\n".join(_judge_run(line, reading, layers, undone) or line for line in lines)
    return run if restored is None else restored


def _judge_run(run: str, reading: Reading, layers: int, undone: _Undone) -> str | None:
    """The restored run, with the counts in `undone` updated; None if it is not plausible."""
    restored = read_again(run, reading)
    lost = restored.count(GONE)
    chars = _beyond_ascii(restored) - lost
    least = MIN_CHARS if reading.read == "latin-1" else MIN_CHARS_HAN
    if chars < least[reading.written] or not _has_shape(run, chars + lost, reading):
        return None
    inner = _Undone(restored)
    if not _better(run, restored) and reading.written == "utf-8" and chars >= NESTED_CHARS and layers > 1:
        inner = _undo(restored, layers - 1)
    if not _better(run, inner.text):
        return None
    if lost > MAX_LOST_SHARE * (lost + chars):
        undone.marked[reading.kind] += _beyond_ascii(run)
        return None
    undone.kinds[reading.kind] += chars
    undone.layers = max(undone.layers, 1 + inner.layers)
    return inner.text


def _has_shape(run: str, chars: int, reading: Reading) -> bool:
    """True if a run has the typical form of its reading. UTF-8 proves itself."""
    if reading.written == "utf-8":
        return True
    if reading.read == "latin-1":
        return _beyond_ascii(run) >= BEYOND_ASCII * chars
    return int(np.count_nonzero(points(run) >= 0x2E80)) >= HAN_SHARE * _beyond_ascii(run)


def _beyond_ascii(text: str) -> int:
    return len(text) - len(text.encode("ascii", "ignore"))


def _better(run: str, restored: str) -> bool:
    """True if the restored run reads like Chinese, and much better than the original."""
    after = likelihood(restored.replace(GONE, ""))
    return after >= MIN_LIKELIHOOD and after - likelihood(run) >= MIN_GAIN


def _runs(text: str, reading: Reading) -> Iterator[tuple[int, int]]:
    """Spans of a text that may be this kind of mojibake, as start and stop in characters."""
    if reading.read == "latin-1":
        return (match.span() for match in _LATIN_RUN.finditer(text))
    if reading.written == "utf-8":
        return utf8_runs(text)
    return iter([(0, len(text))]) if len(text) else iter([])
