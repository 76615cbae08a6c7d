"""Recovers the bytes of a misread text and decodes them with the right charset.

Decoders drop what they cannot map, or write U+FFFD, ? or a neighbour for it. What can be told of such a byte
is put back, the rest costs its character:

* GB18030 has a meaning for every pair of bytes but for none that starts with 80, so a U+FFFD before a second
  half was 80 (decoders of plain GBK lack other pairs too; they give themselves away by leaving no private-use
  characters).
* Browsers write € for 80. A real € is A2E3: as UTF-8 the end of one character and the start of the next.
* windows-1252 text that a cleaner has been through has a space for A0, the no-break space.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from ctllm_ray.text.encoding.likelihood import likelihood, points
from ctllm_ray.text.encoding.mojibake_scan import CP1252_SPECIALS

GONE = "\udcff"  # a lone surrogate, which no text holds: stands for a lost character of a restored run

_REPLACED, _EURO = "\x1a", "\x19"  # control characters that stand for one byte each while a run is bytes
_UTF8 = rb"[\xe0-\xef][\x80-\xbf]{2}|[\xc2-\xdf][\x80-\xbf]|[\xf0-\xf4][\x80-\xbf]{3}"
_HALF = rb"(?:[\xe0-\xef][\x80-\xbf]?|[\xf0-\xf4][\x80-\xbf]{0,2}|[\xc2-\xdf])"
_DAMAGE = _HALF + rb"(?:[\x1a?][\x80-\xbf]{0,2}|(?=[\x00-\x3f]|$))|\x1a[\x80-\xbf]{0,2}|\?[\x80-\xbf]{1,2}"
_UTF8_RUN = re.compile(rb"(?:%s|%s[\x1a?])(?:%s|%s|[\x00-\x7f])++" % (_UTF8, _HALF, _UTF8, _DAMAGE))
_UTF8_TOKEN = re.compile(rb"%s|%s|[\x00-\x7f]" % (_UTF8, _DAMAGE))
_REAL_EURO = re.compile(rb"(?<=[\xe0-\xef][\x80-\xbf])\x19(?=[\x80-\xbf\x19\x1a])")
_SPACE = re.compile(rb"(?<=[\xe0-\xef][\x80-\xbf]) |(?<=[\xe0-\xef]) (?=[\x80-\xbf])")
_QUESTION = re.compile(
    _HALF + rb"\?|\?(?=[\x80-\xbf])"
)  # what encoders write for a character they do not have
_SECOND_HALF = rb"[\x40-\x7e\x80-\xfe]"


@dataclass(frozen=True)
class Reading:
    """A kind of mojibake: bytes of the charset `written` were decoded as `read`."""

    kind: str
    read: str
    written: str


def read_again(run: str, reading: Reading) -> str:
    """Decodes the run's bytes with the charset they were written in. Each lost stretch becomes one `GONE`."""
    if reading.written == "utf-8":
        data = _QUESTION.sub(b"\x1a", _utf8_bytes(run, reading.read))
        return _mark(data.decode("utf-8", "replace")).removeprefix("\ufeff")
    data = _bytes(run, reading.read)
    single = _mark(data.decode(reading.written, "replace"))
    if _REPLACED.encode() not in data:
        return single
    pairs = re.sub(rb"\x1a" + _SECOND_HALF, b"\x1a", data)  # where the mark replaced a lead byte, not a pair
    return max(single, _mark(pairs.decode(reading.written, "replace")), key=likelihood)


def _mark(text: str) -> str:
    return re.sub("[�\x1a]+", GONE, text)


def utf8_runs(text: str) -> Iterator[tuple[int, int]]:
    """Stretches whose GB18030 bytes are UTF-8, apart from damage, cut to whole characters at both ends.

    As start and stop in characters.
    """
    data, edges = _gb18030(text)
    whole = np.zeros(len(data) + 1, np.bool_)
    whole[edges] = True
    for run in _UTF8_RUN.finditer(data):
        tokens = [token.span() for token in _UTF8_TOKEN.finditer(data, *run.span())]
        while tokens and data[tokens[-1][0]] == ord("?"):  # with a clean character after it
            tokens.pop()
        starts = [start for start, _ in tokens if whole[start]]
        stops = [stop for _, stop in tokens if whole[stop]]
        if starts and stops and starts[0] < stops[-1]:
            start, stop = np.searchsorted(edges, [starts[0], stops[-1]])
            yield int(start), int(stop)


def _utf8_bytes(run: str, read: str) -> bytes:
    """The bytes, with bytes restored that can have only one value."""
    if read == "latin-1":
        return _SPACE.sub(b"\xa0", _bytes(run, read))
    data, _ = _gb18030(run)
    if any("\ue000" <= c <= "\uf8ff" for c in run):  # the decoder knew every pair of GB18030
        return re.sub(rb"\x1a(?=%s)" % _SECOND_HALF, b"\x80", data)
    return data


def _gb18030(text: str) -> tuple[bytes, np.ndarray]:
    """The bytes of UTF-8 that was read as GB18030, and the byte position of each character (plus the end)."""
    data = _bytes(text.replace("€", _EURO).replace("\x80", _EURO), "gb18030")
    edges = np.zeros(len(text) + 1, np.int64)
    np.cumsum(_gb18030_widths()[np.minimum(points(text), 0xFFFF)], out=edges[1:])
    pairs = [match.start() for match in _REAL_EURO.finditer(data)]
    edges += np.searchsorted(pairs, edges)  # one byte more for each that is before
    return _REAL_EURO.sub(b"\xa2\xe3", data).replace(b"\x19", b"\x80"), edges


@cache
def _gb18030_widths() -> np.ndarray:
    """Bytes that each BMP code point takes; 1 for those that stand for one byte; 4 for
    0xFFFF and beyond the BMP."""
    widths = [1] * 0x80 + [len(chr(p).encode("gb18030", "replace")) for p in range(0x80, 0x10000)]
    for p in (0x80, ord("€"), 0xFFFD):
        widths[p] = 1
    return np.array(widths, np.uint8)


def _bytes(text: str, charset: str) -> bytes:
    """The bytes that a text was read from; 1A marks an unknown byte."""
    if charset == "latin-1":
        text = text.translate(_cp1252_bytes())
    return text.replace("�", _REPLACED).encode(charset, "replace")


@cache
def _cp1252_bytes() -> dict[int, int]:
    return {ord(c): c.encode("cp1252")[0] for c in CP1252_SPECIALS}
