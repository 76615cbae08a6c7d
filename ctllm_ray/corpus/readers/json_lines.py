r"""Reads the JSON objects of a split, and passes each to a function that makes a record.

The usual form is JSON lines. Objects that stand otherwise in a file are read too (json_stream.py): in an array, or
without line ends. Blank lines are no records. The position of an object is its byte offset in the unpacked file: it
survives recompression, and every span of a file computes it alike.

What nobody reads costs no record: NaN and Infinity, bare control characters in strings, half of a surrogate pair (as
cutting a UTF-16 string leaves it) or bytes that are not UTF-8 in other fields, a byte order mark where files were
joined, two objects in a line. Half a surrogate in a field that is read becomes U+FFFD, and the record is counted as
`repaired.half_surrogate` in the account of the file.

A line that is no object is one record of `reject` error.invalid_json, error.invalid_utf8, error.wrong_type,
error.record_too_large; a file that ends early or is corrupt has one error.truncated at each gap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import orjson

from ctllm_ray.base.storage import File
from ctllm_ray.corpus.engine.splits import Split
from ctllm_ray.corpus.readers import decompress, json_stream, lines
from ctllm_ray.corpus.readers.decompress import Piece
from ctllm_ray.corpus.readers.json_stream import BYTE_ORDER_MARK
from ctllm_ray.corpus.readers.records import Record, bad

#: Makes a record of an object from its position, its raw line, and its fields.
Recorded = Callable[[int, bytes, dict[str, Any]], Record]


def spans(file: File, split_bytes: int) -> list[tuple[int, int | None]]:
    """Spans of a file in unpacked bytes; one for a file that is no JSON lines."""
    cut = lines.spans(file, split_bytes)
    if len(cut) == 1:
        return cut
    head, _ = _read_head(decompress.pieces(file))
    return cut if json_stream.is_lines(head) else [(0, None)]


def records(split: Split, recorded: Recorded) -> Iterator[Record]:
    """The records of the objects that begin in a split, in order."""
    flow = None
    if split.start == 0 and split.stop is None:
        head, flow = _read_head(lines.read_span(split, 0))
        if not json_stream.is_lines(head):
            for parsed in json_stream.read_objects(split, flow):
                yield _record_leniently(split, recorded, *parsed)
            return
    yield from _read_lines(split, recorded, flow)


def _read_head(flow: Iterator[Piece]) -> tuple[bytes, Iterator[Piece]]:
    """The first bytes of a file as far as they tell its form, and the whole flow again."""
    head, pieces = b"", list[Piece]()
    for piece in flow:
        pieces.append(piece)
        head += b"\0\n" if piece.gap else piece.content
        if len(head) >= json_stream.HEAD_BYTES or json_stream.is_decided(head):
            break
    return head, chain(pieces, flow)


def _read_lines(split: Split, recorded: Recorded, flow: Iterator[Piece] | None) -> Iterator[Record]:
    """The records of the objects of lines, and an error for each line that is none."""
    for position, line, error, reason, size, _ in lines.read_lines(split, flow):
        if error:
            yield bad(position, error, reason, line, size=size)
            continue
        if line.startswith(BYTE_ORDER_MARK):
            position, line = position + len(BYTE_ORDER_MARK), line.removeprefix(BYTE_ORDER_MARK)
        if not line or line.isspace():
            continue
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError as problem:
            for parsed in json_stream.read_line(position, line, str(problem)):
                yield _record_leniently(split, recorded, *parsed)
        else:
            yield _record(recorded, position, line, value)


def _record(recorded: Recorded, position: int, raw: bytes, value: Any) -> Record:
    if type(value) is dict:
        return recorded(position, raw, value)
    return bad(position, "wrong_type", f"not an object but {type_of(value)}", raw)


def _record_leniently(split: Split, recorded: Recorded, position: int, raw: bytes, value: Any) -> Record:
    """The record of a value of the lenient parser, which alone lets halves of surrogate pairs pass; or that error."""
    if isinstance(value, Record):
        return value
    return _repair(split, _record(recorded, position, raw, value), raw)


def _repair(split: Split, record: Record, raw: bytes) -> Record:
    """The record with U+FFFD for each half of a surrogate pair. Bytes that are not UTF-8 in its text are an error."""
    text, *fields = record.text, record.url, record.title, record.date
    halves = [_has_half(value or "") for value in (text, *fields)]
    if not any(halves):
        return record
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        if halves[0]:
            return bad(record.position, "invalid_utf8", str(error), raw)
    split.account.repaired["half_surrogate"] += 1
    text, url, title, date = (value and json_stream.without_halves(value) for value in (text, *fields))
    return record._replace(text=text, url=url, title=title, date=date)


def _has_half(text: str) -> bool:
    if text.isascii():
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def type_of(value: Any) -> str:
    """The JSON name of a value's type."""
    names = {
        dict: "an object",
        list: "an array",
        str: "a string",
        int: "a number",
        float: "a number",
        bool: "a boolean",
    }
    return names.get(type(value), "null")
