"""Converts the pieces of a vocabulary to the text bytes they stand for, from their spelling alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_BYTE = re.compile(r"^<0x([0-9A-Fa-f]{2})>$")
_METASPACE = "▁"


def list_piece_bytes(pieces: Sequence[str]) -> list[bytes]:
    """The UTF-8 bytes of each piece; for a byte piece `<0xE4>` its spelling and a mark.

    SentencePiece writes a space as ▁, byte-level BPE maps every byte to a character of its own.
    """
    table = _byte_level() if _is_byte_level(pieces) else {}
    return [_surface(piece, table) for piece in pieces]


def _surface(piece: str, table: Mapping[str, int]) -> bytes:
    if table and all(character in table for character in piece):
        data = bytes(table[character] for character in piece)
        return data if data.isascii() or not _is_partial(data) else _mark_bytes(data)
    if byte := _BYTE.match(piece):
        return _mark_bytes(bytes.fromhex(byte[1]))
    return piece.replace(_METASPACE, " ").encode("utf-8", "surrogatepass")


def _mark_bytes(data: bytes) -> bytes:
    r"""Marks bytes that are not text by themselves. \xff never
    occurs in UTF-8, so no other piece is spelt like this."""
    return b"\xff" + data


def _is_partial(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return True
    return False


def _is_byte_level(pieces: Sequence[str]) -> bool:
    """True if the pieces use byte-level BPE's alphabet: a space is Ġ, and ▁ is not one of its letters."""
    return any(piece.startswith("Ġ") for piece in pieces) and not any(
        piece.startswith(_METASPACE) for piece in pieces
    )


def _byte_level() -> dict[str, int]:
    """Characters of GPT-2's byte-level BPE for bytes: printable ones stay, others move to U+0100 and up."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(0x100 + rank): byte for rank, byte in enumerate(others)}
