"""An HTTP response as archives store it: its status, its Content-Type, and its content with all encodings undone.

Taken as browsers take it: chunks whatever the version, gzip under x-gzip, deflate with and without zlib's header,
brotli, zstd, several in a row. Where a header announces an encoding and the bytes are not in it, as crawlers write
that unpack without saying so, the bytes stay as they are; so they do under a name that is no encoding (`utf-8`).
"""

from __future__ import annotations

import io
import re
import zlib
from typing import NamedTuple

import brotli
import zstandard

from ctllm_ray.corpus.readers.http_fields import parse_fields

_STATUS = re.compile(rb"HTTP/\d(?:\.\d)?[ \t]+(\d{3})(?!\d)", re.IGNORECASE)
_BLANK = re.compile(rb"\r?\n\r?\n|\r?\n\Z")
_CHUNK = re.compile(rb"[ \t]*([0-9a-fA-F]+)[ \t]*(?:;[^\r\n]*)?\r?\n")
#: Such bytes are still compressed: magic numbers of gzip and zstd.
_STILL_ENCODED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd")


class HttpResponse(NamedTuple):
    """`content` holds at most one byte more than the limit that it was read with."""

    status: int
    content_type: str
    content: bytes


def read_response(block: bytes, limit: int) -> HttpResponse:
    """The response in a block. Raises `ValueError` if it has no status line, or is still compressed at the end."""
    status = _STATUS.match(block)
    if status is None:
        raise ValueError("the response does not begin with an HTTP status line")
    blank = _BLANK.search(block)
    header, body = (block[: blank.start()], block[blank.end() :]) if blank else (block, b"")
    fields = parse_fields(header)
    if "chunked" in fields.get("transfer-encoding", "").lower():
        body = _join_chunks(body)
    names = f"{fields.get('content-encoding', '')},{fields.get('transfer-encoding', '')}".lower().split(",")
    for name in reversed(names):
        body = _decode(name.strip(), body, limit)
    return HttpResponse(int(status[1]), fields.get("content-type", ""), body[: limit + 1])


def _join_chunks(body: bytes) -> bytes:
    """The whole chunks of a body; the body itself if it does not begin with a chunk."""
    if not _CHUNK.match(body):
        return body
    chunks, at = [], 0
    while chunk := _CHUNK.match(body, at):
        start, size = chunk.end(), int(chunk[1], 16)
        at = start + size
        if size == 0 or at > len(body):
            break
        chunks.append(body[start:at])
        at += 2 if body.startswith(b"\r\n", at) else body.startswith(b"\n", at)
    return b"".join(chunks)


def _decode(name: str, body: bytes, limit: int) -> bytes:
    """Up to limit + 1 bytes of the body in an encoding; the body itself where it is not in it."""
    decoder = _DECODERS.get(name)
    if decoder is None or not body:
        return body
    try:
        content = decoder(body, limit + 1)
    except (zlib.error, brotli.error, zstandard.ZstdError):
        content = b""
    if content:
        return content
    if body.startswith(_STILL_ENCODED):
        raise ValueError(f"the content is damaged: it cannot be decoded as {name}")
    return body


def _gzip(body: bytes, most: int) -> bytes:
    content = b""
    while body and len(content) < most:  # there may be several members
        member = zlib.decompressobj(31)
        content += member.decompress(body, most - len(content))
        body = member.unused_data if member.unused_data.startswith(b"\x1f\x8b") else b""
    return content


def _deflate(body: bytes, most: int) -> bytes:
    try:
        return zlib.decompressobj().decompress(body, most)
    except zlib.error:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(
            body, most
        )  # without the header that RFC 9110 asks for


def _brotli(body: bytes, most: int) -> bytes:
    return brotli.Decompressor().process(body, output_buffer_limit=most)[:most]


def _zstd(body: bytes, most: int) -> bytes:
    return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(body)).read(most)


_DECODERS = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "br": _brotli,
    "zstd": _zstd,
}
