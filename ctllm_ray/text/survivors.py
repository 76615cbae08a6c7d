"""Which copy stays: the first under an explicit order, and never whoever happened to be crawled first.

The order (`ORDER`): a complete page over a partial one, the script it was written in over a conversion, the higher
score, the longer, the earlier crawl, the smallest id. An id is an address, so ties end there and the choice is the
same on every machine and in every partition. A missing value loses to any other.

From pairs to survivors there are two ways. `of_components` keeps one page of each component: the fewest pages stay,
and a page may go for one that it is not like, at the end of a chain of others. `of_neighbours` goes through the pages
in their order, and a page leaves only for one that stays and that it is directly like: nothing is lost to chains, and
the similarity in the ledger is always that of the page and its survivor. Where all that a page is paired with has left,
it is compared with those for which they left: in a crowd, two copies of one page need not have met. All this needs the
pairs of a component in one place.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba.extending import register_jitable

from ctllm_ray.text.compiled import compiled
from ctllm_ray.text.runs import starts_of

#: A column and which of its values wins.
Preference = tuple[str, Literal["ascending", "descending"]]

#: Of pairs of rows that nobody compared so far (int64) which are copies (bool).
Alike = Callable[[np.ndarray, np.ndarray], np.ndarray]

ORDER: tuple[Preference, ...] = (
    ("complete", "descending"),
    ("original_script", "descending"),
    ("score", "descending"),
    ("chars", "descending"),
    ("date", "ascending"),
    ("id", "ascending"),
)

#: A page ends with a mark that ends a sentence, perhaps inside quotes or brackets; else it was cut, or is a list.
WHOLE = r"[。！？!?…；;｡.][”’」』）)》〉】\"'\]\s]*$"


def ranks(table: pa.Table, order: tuple[Preference, ...] = ORDER) -> np.ndarray:
    """int64[rows]: the place of each row in the order; 0 is the best."""
    ranked = pc.sort_indices(table, sort_keys=list(order)).to_numpy()
    places = np.empty(len(ranked), np.int64)
    places[ranked] = np.arange(len(ranked))
    return places


def of_components(components: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """int64[rows]: the row that stays for each row, the best of those with the same component (int64)."""
    order = np.lexsort((ranks, components))
    starts = starts_of(components[order])
    stays = np.empty(len(order), np.int64)
    stays[order] = np.repeat(order[starts], np.diff(starts, append=len(order)))
    return stays


def of_neighbours(
    left: np.ndarray, right: np.ndarray, ranks: np.ndarray, alike: Alike, settled: np.ndarray | None = None
) -> np.ndarray:
    """int64[rows]: the row that stays for each row: itself, or the best that stays among those it is paired with.

    Where none of these stays, it is the best of those that they left for, as far as the row is `alike`. `settled` are
    rows whose survivor is known (int64[rows], -1 where it is not); they must be the best of all.
    """
    first, second = np.concatenate([left, right]), np.concatenate([right, left])
    order = np.lexsort((ranks[second], ranks[first]))
    first, second = first[order], second[order]
    known = np.full(len(ranks), -1) if settled is None else settled
    tested = copies = np.empty(0, np.int64)
    while True:
        stays, asked = _of_neighbours(first, second, ranks, known, copies)
        asked = np.setdiff1d(asked, tested)
        if not len(asked):
            return stays
        true = alike(*np.divmod(asked, len(ranks)))
        tested, copies = np.union1d(tested, asked), np.union1d(copies, asked[true])


def complete(texts: pa.Array) -> pa.Array:
    """True for each text (a string array) that ends as a page ends that was not cut."""
    return pc.match_substring_regex(texts, WHOLE)


@compiled
def _of_neighbours(first, second, ranks, known, copies):
    """Survivors from pairs in both directions, sorted by the ranks of `first`, then `second`.

    Pairs that nobody compared are codes, the better row * rows + the other one: `copies` of them are some (sorted), and
    those come back that are asked for.
    """
    stays = np.where(known >= 0, known, np.arange(len(ranks)))
    asked = np.empty(len(first), np.int64)
    count = start = 0
    while start < len(first):
        row, stop = first[start], start
        while stop < len(first) and first[stop] == row:
            stop += 1
        better = start
        while better < stop and ranks[second[better]] < ranks[row]:
            better += 1
        if known[row] < 0:
            stays[row] = _beside(row, second[start:better], stays)
            lonely = stays[row] == row
            for other in second[start : better if lonely else start]:
                code = stays[other] * len(ranks) + row
                if _holds(copies, code) and (stays[row] == row or ranks[stays[other]] < ranks[stays[row]]):
                    stays[row] = stays[other]
                asked[count] = code
                count += 1
        start = stop
    return stays, asked[:count]


@register_jitable
def _beside(row, better, stays):
    """The first that stays of better rows, the best first, or the row itself."""
    for other in better:
        if stays[other] == other:
            return other
    return row


@register_jitable
def _holds(codes, code):
    place = np.searchsorted(codes, code)
    return place < len(codes) and codes[place] == code
