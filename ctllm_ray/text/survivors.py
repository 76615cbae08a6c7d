"""Which copy stays: the first of its component under an explicit order, and never whoever happened to be crawled first.

The order (`ORDER`): a complete page over a partial one, the script it was written in over a conversion, the higher
score, the longer, the earlier crawl, the smallest id. An id is an address, so ties end there and the choice is the
same on every machine and in every partition. A missing value loses to any other.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

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


def survivors(components: np.ndarray, table: pa.Table, order: tuple[Preference, ...] = ORDER) -> np.ndarray:
    """int64[rows]: the row that stays for each row; `components` (int64) says which rows are copies of each other."""
    columns = ["component", *(name for name, _ in order)]
    named = pa.table([pa.array(components), *(table[name] for name, _ in order)], columns)
    keys = [("component", "ascending"), *order]
    ranks = pc.sort_indices(named, sort_keys=keys).to_numpy()
    new = np.ones(len(ranks), bool)
    new[1:] = components[ranks][1:] != components[ranks][:-1]
    stays = np.empty(len(ranks), np.int64)
    stays[ranks] = ranks[np.flatnonzero(new)][np.cumsum(new) - 1]
    return stays


def complete(texts: pa.Array) -> pa.Array:
    """True for each text (a string array) that ends as a page ends that was not cut."""
    return pc.match_substring_regex(texts, WHOLE)
