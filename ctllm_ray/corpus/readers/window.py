"""A stretch of a decompressed stream that a reader of archives looks at before it takes it."""

from __future__ import annotations

from collections.abc import Iterator

from ctllm_ray.corpus.readers.decompress import Piece


class Window:
    """The bytes ahead, up to the next gap or the end of the file. `position` is that of the first of them."""

    def __init__(self, flow: Iterator[Piece]) -> None:
        self._flow, self._gap, self._ended = flow, "", False
        self.ahead, self.position = bytearray(), 0

    def fill(self, count: int) -> bool:
        """Reads until `count` bytes are ahead, or all up to the next gap or the end. False at the end of the file."""
        while len(self.ahead) < count and not self.is_complete:
            piece = next(self._flow, None)
            if piece is None:
                self._ended = True
            elif piece.gap:
                self._gap = piece.gap
            else:
                self.ahead += piece.content
        return bool(self.ahead or self._gap)

    @property
    def is_complete(self) -> bool:
        """Whether nothing follows the bytes ahead but a gap or the end of the file."""
        return self._ended or bool(self._gap)

    def take(self, count: int) -> bytes:
        """The first `count` bytes ahead; then they are passed."""
        with memoryview(self.ahead) as view:
            content = bytes(view[:count])
        del self.ahead[:count]
        self.position += len(content)
        return content

    def pass_all_but(self, count: int) -> None:
        """Passes the bytes ahead, but for the last `count` where more may follow: something may begin in them."""
        self.take(len(self.ahead) - (0 if self.is_complete else count))

    def pass_gap(self) -> str:
        """Passes the gap if no byte is before it, and returns its reason; empty if there is none."""
        if self.ahead or not self._gap:
            return ""
        reason, self._gap = self._gap, ""
        self.position += 1
        return reason
