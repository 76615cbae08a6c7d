"""Which copy stays: the first under an explicit order, and never whoever happened to be crawled first.

The order (`ORDER`): a complete page over a partial one, the script it was written in over a conversion, the higher
score, the longer, the earlier crawl, the smallest id. An id is an address, so ties end there and the choice is the
same on every machine and in every partition. A missing value loses to any other.

From pairs to survivors there are two ways. `of_components` keeps one page of each component: the fewest pages stay,
and a page may go for one that it is not like, at the end of a chain of others. `of_neighbours` goes through the pages
in their order, and a page leaves only for one that stays and that it is directly like: nothing is lost to chains, and
the similarity in the ledger is always that of the page and its survivor. It needs the pairs of a component in one
place.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctllm_ray.text.compiled import compiled
from ctllm_ray.text.runs import starts_of

#: A column and which of its values wins.
Preference = tuple[str, Literal["ascending", "descending"]]

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


def of_neighbours(left: np.ndarray, right: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """int64[rows]: the row that stays for each row: itself, or the best that stays among those it is paired with."""
    first, second = np.concatenate([left, right]), np.concatenate([right, left])
    order = np.lexsort((ranks[second], ranks[first]))
    stays: np.ndarray = _of_neighbours(first[order], second[order], ranks)
    return stays


def complete(texts: pa.Array) -> pa.Array:
    """True for each text (a string array) that ends as a page ends that was not cut."""
    return pc.match_substring_regex(texts, WHOLE)


@compiled
def _of_neighbours(first, second, ranks):
    """Survivors from pairs in both directions, sorted by the ranks of `first`, then `second`."""
    stays = np.arange(len(ranks))
    for i in range(len(first)):
        row, other = first[i], second[i]
        if stays[row] == row and ranks[other] < ranks[row] and stays[other] == other:
            stays[row] = other
    return stays
