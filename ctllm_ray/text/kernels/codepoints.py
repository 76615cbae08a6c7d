"""Arrow UTF-8 buffers to code points and back, with the character classes that measures count.

Python strings cost an object and a copy per document; the kernels read the buffers that Arrow already holds.
One code point is one uint32 (Arrow guarantees valid UTF-8, so decoding needs no checks).
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba.extending import register_jitable


def buffers(array: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Bytes (uint8) and offsets (int32, one more than rows) of a string array without nulls; no copy."""
    _, offsets, data = array.buffers()
    starts = np.frombuffer(offsets, np.int32)[array.offset : array.offset + len(array) + 1]
    return np.frombuffer(data or b"", np.uint8), starts


def strings(data: np.ndarray, offsets: np.ndarray) -> pa.Array:
    """The string array over UTF-8 bytes and int32 offsets; no copy."""
    return pa.StringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(data))


def lengths(texts: pa.Array) -> np.ndarray:
    """Code points of each string (int32)."""
    return pc.utf8_length(texts).to_numpy()


@register_jitable
def decode(data, start, stop):
    """Decodes valid UTF-8 bytes data[start:stop] to code points (uint32)."""
    points = np.empty(stop - start, np.uint32)
    n = 0
    i = start
    while i < stop:
        b = np.uint32(data[i])
        if b < 0x80:
            points[n] = b
            i += 1
        elif b < 0xE0:
            points[n] = ((b & np.uint32(0x1F)) << np.uint32(6)) | (np.uint32(data[i + 1]) & np.uint32(0x3F))
            i += 2
        elif b < 0xF0:
            points[n] = (
                ((b & np.uint32(0x0F)) << np.uint32(12))
                | ((np.uint32(data[i + 1]) & np.uint32(0x3F)) << np.uint32(6))
                | (np.uint32(data[i + 2]) & np.uint32(0x3F))
            )
            i += 3
        else:
            points[n] = (
                ((b & np.uint32(0x07)) << np.uint32(18))
                | ((np.uint32(data[i + 1]) & np.uint32(0x3F)) << np.uint32(12))
                | ((np.uint32(data[i + 2]) & np.uint32(0x3F)) << np.uint32(6))
                | (np.uint32(data[i + 3]) & np.uint32(0x3F))
            )
            i += 4
        n += 1
    return points[:n]


@register_jitable
def encode(points, data, at):
    """Writes code points as UTF-8 into data from `at` on; returns the end. Needs
    up to 4 bytes a code point."""
    for i in range(len(points)):
        c = points[i]
        if c < 0x80:
            data[at] = c
            at += 1
        elif c < 0x800:
            data[at] = 0xC0 | (c >> 6)
            data[at + 1] = 0x80 | (c & 0x3F)
            at += 2
        elif c < 0x10000:
            data[at] = 0xE0 | (c >> 12)
            data[at + 1] = 0x80 | ((c >> 6) & 0x3F)
            data[at + 2] = 0x80 | (c & 0x3F)
            at += 3
        else:
            data[at] = 0xF0 | (c >> 18)
            data[at + 1] = 0x80 | ((c >> 12) & 0x3F)
            data[at + 2] = 0x80 | ((c >> 6) & 0x3F)
            data[at + 3] = 0x80 | (c & 0x3F)
            at += 4
    return at


@register_jitable
def with_room(out, at, count):
    """A buffer that begins with the first `at` bytes of `out` and has room for `count` more code points: `out`, or a
    larger copy."""
    if at + 4 * count <= len(out):
        return out
    larger = np.empty(2 * len(out) + 4 * count, np.uint8)
    larger[:at] = out[:at]
    return larger
