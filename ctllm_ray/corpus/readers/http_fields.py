"""Header fields as HTTP and WARC write them: a first line, then `name: value` lines."""

from __future__ import annotations

import re

_FOLD = re.compile(rb"\r?\n[ \t]+")


def parse_fields(header: bytes) -> dict[str, str]:
    """The fields behind the first line by lower-case name; of several with one name the first.

    A line that begins with a blank continues the one before it. Lines without a colon are passed over.
    """
    fields: dict[str, str] = {}
    for line in _FOLD.sub(b" ", header).split(b"\n")[1:]:
        name, colon, value = line.partition(b":")
        if colon:
            fields.setdefault(name.strip().decode("latin-1").lower(), decode_field(value.strip()))
    return fields


def decode_field(value: bytes) -> str:
    """UTF-8, else Latin-1, which reads any bytes."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
