"""Reads input files as a stream of decompressed pieces, with constant memory.

The file's name says how it is packed (.gz .zst .bz2 .xz). All members or frames of a file are read to its
end, as `cat a.gz b.gz` and parallel compressors write several. The compressed bytes are fed to the decoder a
few kilobytes at a time, for two reasons: a zip bomb can then unfold no further than `FEED_BYTES` times the
format's highest ratio, and when the stream turns out to be cut or corrupt everything decoded before that
point has been handed on already. (The file objects of gzip, zstandard, pyarrow and FastWARC 2.0 either lose
the last piece or take the cut for a normal end.)

Measured on this project's web pages, one core of a shared
two-core machine: zst 1200 MB/s, gz 270 MB/s of text.
"""

from __future__ import annotations

import bz2
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import IO, Any

import zstandard

from ctllm_ray.base import storage
from ctllm_ray.base.storage import File

#: Bytes to read from the file system at once.
READ_BYTES = 1 << 20

#: Compressed bytes to feed to a decoder at once. The densest stream, zstd's run-length blocks, holds 128 KiB
#: in 4 bytes (RFC 8878, 3.1.1.2): 1 KiB then unfolds to at most 32 MiB. 16 KiB would be a seventh faster.
FEED_BYTES = 1 << 10

#: xz files may demand a dictionary of any size; this is four times what `xz -9` needs.
XZ_MEMORY_BYTES = 256 << 20

_DECODERS: dict[str, Callable[[], Any]] = {
    ".gz": lambda: zlib.decompressobj(wbits=31),  # 31: gzip header, largest window
    ".zst": lambda: zstandard.ZstdDecompressor().decompressobj(),
    ".bz2": bz2.BZ2Decompressor,
    ".xz": lambda: lzma.LZMADecompressor(memlimit=XZ_MEMORY_BYTES),
}
_MAGIC = {b"\x1f\x8b": ".gz", b"\x28\xb5\x2f\xfd": ".zst", b"BZh": ".bz2", b"\xfd7zXZ\0": ".xz"}
_DECODER_ERRORS = (zlib.error, zstandard.ZstdError, lzma.LZMAError, OSError, EOFError, ValueError)


class Broken(Exception):
    """A compressed stream is cut or corrupt. Everything decodable before was yielded."""


def suffix(name: str) -> str:
    """The compression suffix of a file name, or an empty string."""
    end = name[name.rfind(".") :].lower() if "." in name else ""
    return end if end in _DECODERS else ""


def pieces(file: File, start: int = 0) -> Iterator[bytes]:
    """The content from byte `start` of the decompressed stream on, as non-empty pieces of any size.

    Raises `Broken` if the stream is cut or corrupt, `InputError` where the file cannot be read.
    """
    with storage.reading(file.uri) as stream:
        if packed := suffix(file.name):
            yield from _after(start, _decompress_stream(stream, _DECODERS[packed]))
        else:
            yield from _plain(stream, start)


def _plain(stream: IO[bytes], start: int) -> Iterator[bytes]:
    if start:
        stream.seek(start)
    block = stream.read(READ_BYTES)
    for magic, packed in _MAGIC.items():
        if start == 0 and block.startswith(magic):
            raise Broken(f"the file is compressed; rename it to end with {packed}")
    while block:
        yield block
        block = stream.read(READ_BYTES)


def _decompress_stream(stream: IO[bytes], new_decoder: Callable[[], Any]) -> Iterator[bytes]:
    decoder = None
    while block := stream.read(READ_BYTES):
        for at in range(0, len(block), FEED_BYTES):
            data = block[at : at + FEED_BYTES]
            while data:
                if decoder is None:
                    decoder = new_decoder()
                elif decoder.eof:
                    data = data.lstrip(b"\0")  # padding between members, as tape and xz write it
                    if not data:
                        break
                    decoder = new_decoder()
                if piece := _feed(decoder, data):
                    yield piece
                data = decoder.unused_data
    if decoder is not None and not decoder.eof:
        raise Broken("the compressed stream is truncated")


def _feed(decoder: Any, data: bytes) -> bytes:
    try:
        return decoder.decompress(data)
    except _DECODER_ERRORS as error:
        raise Broken(f"the compressed stream is corrupt: {error}") from None


def _after(start: int, flow: Iterator[bytes]) -> Iterator[bytes]:
    """The stream without its first `start` bytes."""
    skipped = 0
    for piece in flow:
        if skipped >= start:
            yield piece
        elif skipped + len(piece) > start:
            yield piece[start - skipped :]
        skipped += len(piece)


def unpacked_bytes(file: File) -> int:
    """Estimates the decompressed size in bytes from the ratio over the first `READ_BYTES`.

    A frame header may state a size, but only its own frame's, and writers of streams leave it out.
    """
    with storage.reading(file.uri) as stream:
        head = stream.read(READ_BYTES)
    unpacked = 0
    with suppress(Broken):  # the sample ends inside the stream
        for piece in _decompress_stream(io.BytesIO(head), _DECODERS[suffix(file.name)]):
            unpacked += len(piece)
    return unpacked * file.size // max(1, len(head))


class Reader(io.RawIOBase):
    """Pieces as a file object for libraries that need one: forward only, short reads.

    `position` is the offset of the next byte, `last` the last byte read. A broken stream looks like one that
    ends, so that a library hands on what it has; `broken` then holds the reason, else an empty string.
    """

    def __init__(self, flow: Iterator[bytes]) -> None:
        self._flow, self._rest = flow, memoryview(b"")
        self.position, self.last, self.broken = 0, b"", ""

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = memoryview(self._next())
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        self.position += count
        return count

    def _next(self) -> bytes:
        try:
            piece = next(self._flow, b"")
        except Broken as broken:
            self.broken = str(broken)
            return b""
        self.last = piece[-1:] or self.last
        return piece

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """The position, for calls that ask for nothing else: FastWARC asks where its stream begins."""
        if (offset, whence) not in {(0, io.SEEK_CUR), (self.position, io.SEEK_SET)}:
            raise io.UnsupportedOperation("seek")
        return self.position
