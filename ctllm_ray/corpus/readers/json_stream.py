"""Reads JSON objects that do not stand one to a line: an array of objects, objects without line ends, a joined line.

Between objects may stand blanks, commas, brackets of an array and byte order marks. Text is decoded so that bytes
which are not UTF-8 become halves of surrogate pairs, as in Python's file names: they then cost only the field that
holds them. A damaged object is one error, and reading goes on at the next object that has a field of the one before:
objects inside of the damaged one, such as the turns of a conversation, have none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from typing import Any

from ctllm_ray.corpus.engine.splits import Split
from ctllm_ray.corpus.readers.decompress import Piece
from ctllm_ray.corpus.readers.records import bad
from ctllm_ray.corpus.readers.window import Window

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
HEAD_BYTES = 1 << 20  # a file whose first line is longer is no JSON lines
PARSED_BYTES = 1 << 12  # bytes to parse an object from; more if it does not end in them

#: Lenient: NaN, Infinity and bare control characters pass.
_DECODER = json.JSONDecoder(strict=False)
_JOINT = re.compile(rb"(?:\s|\xef\xbb\xbf)*")  # in a line: no brackets, which would hide what is no object
_BETWEEN = re.compile(rb"(?:[\s,\[\]]|\xef\xbb\xbf)*")
_NEXT = re.compile(rb'\}[\s,\]]*(?=\{\s*")')
_HALVES = re.compile("[\ud800-\udfff]")
_ARRAY = re.compile(rb"(?:\s|\xef\xbb\xbf)*\[\s*\{")


def is_lines(head: bytes) -> bool:
    """Whether a file is JSON lines, by its first `HEAD_BYTES`: no array of objects, and its first line or at least half
    of its lines are objects. Where no object follows another one, whatever has a line end is."""
    if _ARRAY.match(head):
        return False
    if is_decided(head) or not _NEXT.search(head):
        return b"\n" in head or len(head) < HEAD_BYTES
    lines = [line for line in head.split(b"\n") if line.strip()]
    return 2 * sum(map(_is_object, lines)) >= len(lines)


def is_decided(head: bytes) -> bool:
    """Whether the beginning of a file tells already what it is: an array, or a first line that is an object."""
    first, end, _ = head.partition(b"\n")
    return bool(_ARRAY.match(head)) or (bool(end) and _is_object(first))


def _is_object(line: bytes) -> bool:
    """By its ends: a damaged object is one too; a line of an array ends with a comma, one of an object with several
    lines is part of it."""
    line = line.strip().removeprefix(BYTE_ORDER_MARK)
    return line.startswith(b"{") and line.endswith(b"}")


def without_halves(text: str) -> str:
    """The text with U+FFFD for each half of a surrogate pair."""
    return _HALVES.sub("\ufffd", text)


def read_line(position: int, line: bytes, problem: str) -> Iterator[tuple[int, bytes, Any]]:
    """Position, raw bytes and value of the objects in a line that is no strict JSON; else the record of one error."""
    values, at = list[tuple[int, bytes, Any]](), _end_of(_JOINT, line, 0)
    while at < len(line):
        parsed = _parse(line, at)
        if parsed is None or type(parsed[0]) is not dict:
            yield position, line, bad(position, _kind(line), problem, line)
            return
        values.append((position + at, line[at : parsed[1]], parsed[0]))
        at = _end_of(_JOINT, line, parsed[1])
    yield from values


def read_objects(split: Split, flow: Iterator[Piece]) -> Iterator[tuple[int, bytes, Any]]:
    """Position, raw bytes and value of each object of a file; in place of a value the record of an error."""
    window, limit, names = Window(flow), split.limits.record_bytes, frozenset[str]()
    while window.fill(HEAD_BYTES):
        window.take(_end_of(_BETWEEN, window.ahead, 0))
        if not window.ahead:
            start = window.position
            if reason := window.pass_gap():
                _pass_gap_to_next(window, names, limit)
                yield start, b"", bad(start, "truncated", reason, size=window.position - start)
            continue
        start = window.position
        if parsed := _parse_ahead(window, limit):
            value, stop = parsed
            names = frozenset(value) if type(value) is dict else names
            yield start, window.take(stop), value
            continue
        kind = "record_too_large" if len(window.ahead) > limit else "invalid_json"
        first = bytes(window.ahead[: split.limits.error_raw_bytes])
        if window.ahead.startswith(
            b"}"
        ):  # it ends an object that was damaged: those before stood inside of it
            names = frozenset()
        else:
            window.take(1)
        _pass_to_next(window, names, limit)
        size = window.position - start
        yield start, first, bad(start, kind, f"no object in {size} bytes", first, size=size)


def _end_of(between: re.Pattern[bytes], data: bytes | bytearray, at: int) -> int:
    """The first byte from `at` on that does not stand between objects."""
    match = between.match(data, at)
    return match.end() if match else at


def _parse_ahead(window: Window, limit: int) -> tuple[Any, int] | None:
    """The value at the window's position and its length in bytes; None if there is none within the limit."""
    count = PARSED_BYTES
    while True:
        window.fill(count)
        parsed = _parse(bytes(window.ahead[:count]), 0)
        if parsed or count > limit or (window.is_complete and count >= len(window.ahead)):
            return parsed
        count *= 4


def _parse(data: bytes, at: int) -> tuple[Any, int] | None:
    """The value that begins at a byte, and the byte behind it; None if none does."""
    text = data[at:].decode(errors="surrogateescape")
    try:
        value, stop = _DECODER.raw_decode(text)
    except (ValueError, RecursionError):  # also of a number with more digits than Python reads
        return None
    return value, at + len(text[:stop].encode(errors="surrogateescape"))


def _pass_to_next(window: Window, names: Collection[str], limit: int) -> None:
    """Passes over bytes up to where an object begins behind the end of another, the next gap, or the end. An object
    without any of these names, if there are any, is passed too."""
    while window.fill(HEAD_BYTES) and window.ahead:
        if match := _NEXT.search(window.ahead):
            window.take(match.end())
            if not names or _may_be_record(_parse_ahead(window, limit), names):
                return
            continue
        window.pass_all_but(64)
        if window.is_complete:
            return


def _pass_gap_to_next(window: Window, names: Collection[str], limit: int) -> None:
    """The same behind a gap, where an object may begin at once."""
    window.fill(HEAD_BYTES)
    between = _end_of(_BETWEEN, window.ahead, 0)
    if window.ahead.startswith(b"{", between):
        window.take(between)
        if (parsed := _parse_ahead(window, limit)) and _may_be_record(parsed, names):
            return
    _pass_to_next(window, names, limit)


def _may_be_record(parsed: tuple[Any, int] | None, names: Collection[str]) -> bool:
    """Whether a parsed object has one of the names; so may one that is damaged."""
    return parsed is None or not names or not parsed[0].keys().isdisjoint(names)


def _kind(line: bytes) -> str:
    try:
        line.decode()
    except UnicodeDecodeError:
        return "invalid_utf8"
    return "invalid_json"
