"""Connected components of pairs of similar documents.
Each component is named by its smallest document number.

Two ways to one result. `components` is a union-find in one process: 16 bytes a document and 16 a pair, 2
million pairs a second. Where pairs do not fit one process, `large_star` and `small_star` (Kiveris et
al., Connected Components in MapReduce and Beyond, 2014) are rounds over a shuffled table of pairs: each
round is a shuffle by the first column (`mirror_edges` or `downward` makes the rows to shuffle) and the
star on every partition. Large and small take turns until a round leaves the pairs as they were; then
each pair is (member, root). About log2(n) rounds on a chain of n, and two or three on what
near-duplicates look like: stars and cliques.

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
    """Every number that occurs in a pair, ascending, and the smallest number of its component (int64)."""

    members: np.ndarray
    roots: np.ndarray


class Edges(NamedTuple):
    """A table of pairs as two columns (int64)."""

    first: np.ndarray
    second: np.ndarray


def components(left: np.ndarray, right: np.ndarray) -> Components:
    """The connected components of all pairs (int64)."""
    members, places = np.unique(np.concatenate([left, right]), return_inverse=True)
    return Components(members, members[_roots(places[: len(left)], places[len(left) :], len(members))])


def mirror_edges(edges: Edges) -> Edges:
    """The rows to shuffle for a large star: every pair in both directions."""
    return Edges(np.concatenate(edges), np.concatenate([edges.second, edges.first]))


def downward(edges: Edges) -> Edges:
    """The rows to shuffle for a small star: every pair from its larger number to its smaller one."""
    return Edges(np.maximum(*edges), np.minimum(*edges))


def large_star(mirrored: Edges) -> Edges:
    """Pairs (neighbour, minimum) for the larger neighbours of
    each number. All rows of a number must be in one partition."""
    first, second = _sort_edges(mirrored)
    return _sort_edges(Edges(*_star(first, second, True)))


def small_star(downward: Edges) -> Edges:
    """Pairs (number or smaller neighbour, minimum) for each
    number. All rows of a number must be in one partition."""
    first, second = _sort_edges(downward)
    return _sort_edges(Edges(*_star(first, second, False)))


def _sort_edges(edges: Edges) -> Edges:
    """Pairs of two different numbers, sorted, without duplicates."""
    keep = edges.first != edges.second
    first, second = edges.first[keep], edges.second[keep]
    order = np.lexsort((second, first))
    first, second = first[order], second[order]
    starts = starts_of(first, second)
    return Edges(first[starts], second[starts])


@compiled
def _roots(left, right, count):
    """The smallest position in the component of each position: union-find with path halving."""
    parent = np.arange(count)
    for i in range(len(left)):
        a, b = _top(parent, left[i]), _top(parent, right[i])
        parent[max(a, b)] = min(a, b)
    for i in range(count):
        parent[i] = parent[parent[i]]  # a parent is never larger, so everything above is final
    return parent


@register_jitable
def _top(parent, i):
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@compiled
def _star(first, second, large):
    """The pairs that the sorted rows of each number produce."""
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
