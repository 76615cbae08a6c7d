"""Components: union-find and rounds of stars give the same roots, however the pairs are ordered and
partitioned."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ctllm_ray.text.dedup.components import (
    Components,
    Edges,
    components,
    downward,
    large_star,
    mirror_edges,
    small_star,
)

PARTITIONS = 5


def _starred(left: np.ndarray, right: np.ndarray) -> tuple[Components, int]:
    """Components by rounds over partitions, as a cluster would run them, and the rounds that it took."""
    edges, before = downward(Edges(left, right)), None
    rounds = 0
    while before is None or not all(map(np.array_equal, before, edges)):
        before, rounds = edges, rounds + 1
        edges = _over_partitions(large_star, mirror_edges(edges))
        edges = _over_partitions(small_star, downward(edges))
    members = np.unique(np.concatenate([left, right]))
    roots = members.copy()
    roots[np.searchsorted(members, edges.first)] = edges.second
    return Components(members, roots), rounds


def _over_partitions(star: Callable[[Edges], Edges], table: Edges) -> Edges:
    """The sorted table that the star makes of each partition; a pair may come out of several."""
    parts = [star(Edges(*(c[table.first % PARTITIONS == p] for c in table))) for p in range(PARTITIONS)]
    return Edges(*np.unique(np.concatenate([np.stack(part) for part in parts], axis=1), axis=1))


def _chain(n: int) -> tuple[np.ndarray, np.ndarray]:
    names = np.random.default_rng(4).permutation(n).astype(np.int64)
    return names[:-1], names[1:]


def _random(nodes: int, edges: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(-nodes, nodes, edges), rng.integers(-nodes, nodes, edges)


def _by_hand(left: np.ndarray, right: np.ndarray) -> dict[int, int]:
    """Roots by spreading the least number until nothing changes."""
    root = {int(n): int(n) for n in np.concatenate([left, right])}
    changed = True
    while changed:
        changed = False
        for a, b in zip(left.tolist(), right.tolist(), strict=True):
            least = min(root[a], root[b])
            changed |= root[a] != least or root[b] != least
            root[a] = root[b] = least
    return root


@pytest.mark.parametrize(
    "pairs",
    [
        _random(40, 12, 1),
        _random(40, 40, 2),
        _random(40, 200, 3),
        _chain(97),
        (np.zeros(80, np.int64), np.arange(80)),
        (np.array([5, 3, 9]), np.array([5, 9, 3])),
        (np.array([], np.int64), np.array([], np.int64)),
    ],
    ids=["sparse", "middle", "dense", "chain", "star", "a pair with itself", "nothing"],
)
def test_union_find_stars_and_plain_spreading_agree(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    found, want = components(*pairs), _by_hand(*pairs)
    assert dict(zip(found.members.tolist(), found.roots.tolist(), strict=True)) == want
    starred, _ = _starred(*pairs)
    assert all(map(np.array_equal, starred, found))


def test_the_order_of_pairs_and_their_direction_change_nothing() -> None:
    left, right = _random(300, 250, 5)
    order = np.random.default_rng(6).permutation(len(left))
    assert all(map(np.array_equal, components(left, right), components(right[order], left[order])))


def test_long_chains_take_few_rounds() -> None:
    pairs = _chain(20_000)
    starred, rounds = _starred(*pairs)
    assert (starred.roots == 0).all()
    assert rounds <= 2 * np.log2(20_000)


def test_one_giant_cluster_is_one_component() -> None:
    rng = np.random.default_rng(7)
    right = np.arange(1, 1_000_000)
    left = (right * rng.random(len(right))).astype(np.int64)  # a random tree
    found = components(left, right)
    assert len(found.members) == 1_000_000
    assert not found.roots.any()
