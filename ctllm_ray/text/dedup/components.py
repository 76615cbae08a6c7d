"""Connected components of pairs: documents that are alike, directly or through others, under their least
number.

Two ways to one result. `components` is a union-find in one process: 16 bytes a document and 16 a pair, 2
million pairs a second. Where pairs do not fit one process, `large_star` and `small_star` (Kiveris et al.,
Connected Components in MapReduce and Beyond, 2014) are rounds over a shuffled table of pairs: each round is a
shuffle by the first column (`mirror_edges` or `downward` makes the rows to shuffle) and the star on every
partition. Large and small take turns until a round leaves the pairs as they were; then each pair is (member,
root). About log2(n) rounds on a chain of n, and two or three on what near-duplicates look like: stars and
cliques.

Numbers are any int64; the root of a component is the least of its members, so the result depends neither on
the order of the pairs nor on how they were partitioned.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba.extending import register_jitable

from ctllm_ray.text.kernels.compiled import compiled
from ctllm_ray.text.kernels.runs import starts_of


class Components(NamedTuple):
    """Every number that is in a pair, rising, and the least number of its component (int64)."""

    members: np.ndarray
    roots: np.ndarray


class Edges(NamedTuple):
    """Two columns (int64) of a table of pairs."""

    first: np.ndarray
    second: np.ndarray


def components(left: np.ndarray, right: np.ndarray) -> Components:
    """The components of all pairs (int64)."""
    members, places = np.unique(np.concatenate([left, right]), return_inverse=True)
    return Components(members, members[_roots(places[: len(left)], places[len(left) :], len(members))])


def mirror_edges(edges: Edges) -> Edges:
    """The rows that a large star is shuffled by: every pair in both directions."""
    return Edges(np.concatenate(edges), np.concatenate([edges.second, edges.first]))


def downward(edges: Edges) -> Edges:
    """The rows that a small star is shuffled by: every pair from its greater number to its lesser one."""
    return Edges(np.maximum(*edges), np.minimum(*edges))


def large_star(mirrored: Edges) -> Edges:
    """Pairs (neighbour, least of all) for the greater neighbours of each number; all rows of a number must be
    here."""
    first, second = _sort_edges(mirrored)
    return _sort_edges(Edges(*_star(first, second, True)))


def small_star(downward: Edges) -> Edges:
    """Pairs (number or lesser neighbour, least of all) for each number; all rows of a number must be here."""
    first, second = _sort_edges(downward)
    return _sort_edges(Edges(*_star(first, second, False)))


def _sort_edges(edges: Edges) -> Edges:
    """The pairs of two different numbers, sorted, each once."""
    keep = edges.first != edges.second
    first, second = edges.first[keep], edges.second[keep]
    order = np.lexsort((second, first))
    first, second = first[order], second[order]
    starts = starts_of(first, second)
    return Edges(first[starts], second[starts])


@compiled
def _roots(left, right, count):
    """The least place of each place's component: union-find, the lesser root on top, paths halved on the way
    up."""
    parent = np.arange(count)
    for i in range(len(left)):
        a, b = _top(parent, left[i]), _top(parent, right[i])
        parent[max(a, b)] = min(a, b)
    for i in range(count):
        parent[i] = parent[parent[i]]  # a parent is never greater, so what is above is done already
    return parent


@register_jitable
def _top(parent, i):
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@compiled
def _star(first, second, large):
    """The pairs that the sorted rows of each number become."""
    to, least = np.empty(2 * len(first), np.int64), np.empty(2 * len(first), np.int64)
    n = start = 0
    while start < len(first):
        centre = first[start]
        root = min(centre, second[start])  # the rows are sorted: the first neighbour is the least
        end = start
        while end < len(first) and first[end] == centre:
            if not large or second[end] > centre:
                to[n], least[n] = second[end], root
                n += 1
            end += 1
        if not large:
            to[n], least[n] = centre, root
            n += 1
        start = end
    return to[:n], least[:n]
