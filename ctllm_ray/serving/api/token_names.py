"""Names and text offsets of tokens in log-probabilities.

A token may be a part of a character, which no text can name, and two ids may decode to one text. OpenAI
writes such bytes as `bytes:\\xe4\\xbd`; so do we, so that the likely tokens of a position stay apart.
Specials go by their name and take up no text.
"""

from __future__ import annotations

from collections.abc import Sequence

from ctllm_ray.inference.stream import spellings
from ctllm_ray.tokenizer.tokenizer import Tokenizer


class TokenNames:
    """The names and bytes of ids."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._spellings = spellings(tokenizer)
        self._specials = {id_: name for name, id_ in tokenizer.specials.items()}
        self._names: dict[
            int, str
        ] = {}  # cache of requested ids: names of partial characters are slow to make

    def name(self, id_: int) -> str:
        """The text of an id, as OpenAI writes it; empty for an id outside the vocabulary."""
        if id_ not in self._names:
            self._names[id_] = self._specials.get(id_) or self._spell(id_)
        return self._names[id_]

    def _spell(self, id_: int) -> str:
        try:
            return self.content(id_).decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in self.content(id_))

    def content(self, id_: int) -> bytes:
        """The bytes of an id; empty for a special token."""
        return self._spellings[id_] if id_ < len(self._spellings) else b""

    def offsets(self, ids: Sequence[int], start: int) -> tuple[list[int], int]:
        """For each id the offset of the character it begins in, in characters from `start`, and
        the offset after the last.

        A partial character has the offset of that character.
        """
        result, at = [], start
        for id_ in ids:
            content = self.content(id_)
            result.append(at - 1 if content and _continues(content[0]) else at)
            at += sum(not _continues(byte) for byte in content)
        return [max(at, 0) for at in result], at


def _continues(byte: int) -> bool:
    """True for a UTF-8 byte that is not the first of its character."""
    return byte & 0xC0 == 0x80
