"""What became of the bytes and records of an input file: the account of one split's part of it.

Bytes are counted as they are stored. Read and lost bytes of all splits of a file add up to its size: readers
count what they decode and the gaps that they cannot decode, each on its own. Of what was decoded, the bytes of
records that could not be read are lost too (in proportion, where the file is compressed).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

#: Reasons kept for each file; the counts hold all.
REASONS = 5


@dataclass
class FileAccount:
    """Counts of one file, or of a split's part of it."""

    decoded: int = 0  # stored bytes that were read
    gaps: int = 0  # stored bytes that could not be decoded
    content: int = 0  # bytes after decompression
    unread: int = 0  # of these, in records that could not be read
    records: Counter[str] = field(default_factory=Counter)  # by outcome: read, error.<kind>, skipped.<why>
    missing: int | None = None  # records known to be there that never came; None: not known
    damage: list[str] = field(default_factory=list)  # why bytes could not be read
    unfinished: bool = False  # the file could not be read to its end
    repaired: Counter[str] = field(
        default_factory=Counter
    )  # records in which something was replaced, by kind

    def count(self, gap: str, stored: int, content: int, *, to_end: bool = False) -> None:
        """Counts stored bytes: read, with the bytes after decompression; or lost, where `gap` says why, up to the end
        of the file if `to_end`."""
        if gap:
            self.gaps += stored
            self.unfinished |= to_end
            self.damage += [gap] if gap not in self.damage and len(self.damage) < REASONS else []
        else:
            self.decoded += stored
            self.content += content

    @property
    def bytes_lost(self) -> int:
        """Stored bytes of gaps and of records that could not be read."""
        return self.gaps + self.decoded * min(self.unread, self.content) // max(1, self.content)

    def plain(self) -> dict[str, Any]:
        """Plain values for a marker. What is empty is left out."""
        lost = self.bytes_lost
        counts = {
            "bytes_read": self.decoded + self.gaps - lost,
            "bytes_lost": lost,
            "records": self.records.total(),
        }
        more = {
            "unread": {key: n for key, n in sorted(self.records.items()) if key != "read"},
            "gaps": self.gaps,
            "damage": self.damage,
            "unfinished": self.unfinished,
            "repaired": dict(self.repaired),
        }
        known = {} if self.missing is None else {"missing": self.missing}
        return counts | known | {key: value for key, value in more.items() if value}
