r"""Reads the JSON objects of a split of JSON lines, and passes each to a function that makes a record.

A line that is no object is one record of `reject` error.invalid_json, error.invalid_utf8,
error.invalid_unicode (half of a surrogate pair, as cutting a UTF-16 string leaves it), error.wrong_type,
error.record_too_large; a file that ends early or is corrupt ends with one error.truncated. Blank lines are no
records. JSON is taken at its word: NaN and bare control characters in strings make a line invalid. The
position of a line is its byte offset in the unpacked file: it survives recompression, and every span of a
file computes it alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import orjson

from ctllm_ray.corpus.engine.splits import Split
from ctllm_ray.corpus.readers import lines
from ctllm_ray.corpus.readers.records import Record, bad

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

#: Makes a record of an object from its position, its raw line, and its fields.
Recorded = Callable[[int, bytes, dict[str, Any]], Record]


def records(split: Split, recorded: Recorded) -> Iterator[Record]:
    """The records of the objects that begin in a split, in order."""
    for position, line, error, reason in lines.read_lines(split):
        if error:
            yield bad(position, error, reason, line)
            continue
        if position == 0:
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if line and not line.isspace():
            yield _record(position, line, recorded)


def _record(position: int, line: bytes, recorded: Recorded) -> Record:
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return bad(position, _kind(error, line), str(error), line)
    if type(fields) is not dict:
        return bad(position, "wrong_type", f"the line is not an object but {type_of(fields)}", line)
    return recorded(position, line, fields)


def _kind(error: orjson.JSONDecodeError, line: bytes) -> str:
    try:
        line.decode()
    except UnicodeDecodeError:
        return "invalid_utf8"
    return "invalid_unicode" if "surrogate" in str(error) else "invalid_json"


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
