"""Shows two texts side by side around their first difference, in shared and unshared pieces.

What is compared is characters, and Latin words and numbers as a whole: Chinese has no spaces, and a word that
differs in one letter is another word. Only a window of each text is compared (`difflib`, at worst 40 ms for
two windows), so what comes of it is an excerpt, not a distance.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby

LEAD_CHARS = 40  # shown before the first difference
WINDOW_CHARS = 320
CHANCE_UNITS = 3  # fewer between two differences are equal by chance: 的 and 了 stand in every sentence

_UNIT = re.compile(r"[A-Za-z0-9]+|.", re.DOTALL)


@dataclass(frozen=True)
class Excerpt:
    """A stretch of a text: pieces of it, each with whether
    only this text has it, and what is left out around it."""

    before_chars: int
    pieces: tuple[tuple[str, bool], ...]
    after_chars: int


@dataclass(frozen=True)
class _Stretch:
    """What stands in one place of both windows."""

    differs: bool
    sides: tuple[str, str]


def side_by_side(one: str, other: str) -> tuple[Excerpt, Excerpt]:
    """An excerpt of each text, from shortly before the
    first difference; the beginning where they are equal."""
    start = 0 if one == other else max(0, _first_difference(one, other) - LEAD_CHARS)
    windows = [text[start : start + WINDOW_CHARS] for text in (one, other)]
    goes_on = [len(text) > start + WINDOW_CHARS for text in (one, other)]
    units = [_units(window, cut) for window, cut in zip(windows, goes_on, strict=True)]
    stretches = _without_overhang(list(_stretches(*units)), goes_on)
    return _excerpt(one, start, stretches, 0), _excerpt(other, start, stretches, 1)


def _first_difference(one: str, other: str) -> int:
    differing = (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differing, min(len(one), len(other)))


def _units(window: str, cut: bool) -> list[str]:
    """The units of a window to compare. A word at the end of the window may be cut in two."""
    result = _UNIT.findall(window)
    return result[:-1] if cut and len(result[-1]) > 1 and len(result) > 1 else result


def _stretches(left: Sequence[str], right: Sequence[str]) -> Iterator[_Stretch]:
    """The units from first to last, as alternating equal and different stretches."""
    opcodes = SequenceMatcher(None, left, right, autojunk=False).get_opcodes()
    last = len(opcodes) - 1

    def differs(numbered: tuple[int, tuple[str, int, int, int, int]]) -> bool:
        number, (tag, start, stop, _, _) = numbered
        return tag != "equal" or (0 < number < last and stop - start < CHANCE_UNITS)

    for different, group in groupby(enumerate(opcodes), differs):
        blocks = [block for _, block in group]
        (_, i, _, j, _), (_, _, k, _, m) = blocks[0], blocks[-1]
        yield _Stretch(different, ("".join(left[i:k]), "".join(right[j:m])))


def _without_overhang(stretches: list[_Stretch], goes_on: Sequence[bool]) -> list[_Stretch]:
    """Drops a last stretch that one text seems to lack but has behind its window."""
    if not (stretches and stretches[-1].differs):
        return stretches
    lacking = (not side for side in stretches[-1].sides)
    return stretches[:-1] if any(map(operator.and_, lacking, goes_on)) else stretches


def _excerpt(text: str, start: int, stretches: Sequence[_Stretch], side: int) -> Excerpt:
    pieces = tuple((each.sides[side], each.differs) for each in stretches if each.sides[side])
    return Excerpt(start, pieces, len(text) - start - sum(len(piece) for piece, _ in pieces))
