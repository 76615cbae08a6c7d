"""Decodes ids to text while they arrive: only complete characters, and nothing that may begin a stop string.

A Chinese character is one piece or up to four byte pieces, and an emoji often comes in parts. Each piece
stands for bytes, so an incremental UTF-8 decoder makes the text: it works per id, never on the whole answer
again. Invalid UTF-8 becomes U+FFFD, as in `Tokenizer.decode`: inside the text as soon as it is certain, at
the end for an incomplete character.

`Tokenizer.decode` of the whole answer gives the same text but for two things: tokenizers that put a space
before each text drop it where they begin to decode, and an answer is not the beginning; and SentencePiece has
a U+FFFD for each byte of a broken character where UTF-8's own rule has one for all.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from functools import lru_cache

from ctllm_ray.token_bytes import list_piece_bytes
from ctllm_ray.tokenizer import metaspace
from ctllm_ray.tokenizer.tokenizer import Tokenizer


@lru_cache(maxsize=4)
def spellings(tokenizer: Tokenizer) -> list[bytes]:
    """The bytes of each id; empty for special tokens."""
    spelled = [surface.removeprefix(b"\xff") for surface in list_piece_bytes(tokenizer.pieces)]
    for id_ in tokenizer.specials.values():
        spelled[id_] = b""
    return spelled


@lru_cache(maxsize=4)
def _unescapes(tokenizer: Tokenizer) -> bool:
    return metaspace.unescapes(tokenizer)


class TextStream:
    """The text of one answer. `stopped` becomes true at a stop string; nothing follows it."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self.stopped = False
        self._spellings = spellings(tokenizer)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._unescapes, self._escape = (
            _unescapes(tokenizer),
            "",
        )  # the first character of an escape, held back
        self._stop = [text for text in stop if text]
        self._held = ""  # possibly the beginning of a stop string

    def push(self, ids: Sequence[int]) -> str:
        """The text that is certain after these ids; often empty."""
        data = b"".join(self._spellings[id_] for id_ in ids if id_ < len(self._spellings))
        return "" if self.stopped else self._certain(self._unescape(self._decoder.decode(data)))

    def finish(self) -> str:
        """The remaining text, after the last id."""
        if self.stopped:
            return ""
        last = self._unescape(self._decoder.decode(b"", final=True)) + self._escape
        certain = self._certain(last)
        rest, self._held = self._held, ""
        return certain + rest

    def _unescape(self, text: str) -> str:
        if not self._unescapes:
            return text
        text = self._escape + text
        whole = text.removesuffix(metaspace.ESCAPE)
        self._escape = text[len(whole) :]
        return metaspace.unescape(whole)

    def _certain(self, text: str) -> str:
        text = self._held + text
        ends = [(at + len(stop), at) for stop in self._stop if (at := text.find(stop)) >= 0]
        if ends:  # the one completed first, as if characters had arrived one by one
            self.stopped, self._held = True, ""
            return text[: min(ends)[1]]
        certain = len(text) - self._open(text)
        self._held = text[certain:]
        return text[:certain]

    def _open(self, text: str) -> int:
        """The number of final characters that may begin a stop string."""
        longest = max(map(len, self._stop), default=1) - 1
        sizes = range(min(longest, len(text)), 0, -1)
        return next((size for size in sizes if any(stop.startswith(text[-size:]) for stop in self._stop)), 0)
