"""Bands: who meets whom, how often, and what others who come later cannot change."""

from __future__ import annotations

import numpy as np
import pytest

from ctllm_ray.text.dedup import bands as module
from ctllm_ray.text.dedup.bands import (
    Pairs,
    band_keys,
    compute_share_probability,
    distinct,
    find_candidates,
    select_most_similar,
)


def _set(pairs: Pairs) -> set[tuple[int, int]]:
    return set(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True))


def test_pairs_worked_by_hand() -> None:
    keys = np.array([7, 3, 7, 7, 9, 3, 7], np.uint64)
    assert _set(find_candidates(keys, reach=9)) == {(0, 2), (0, 3), (2, 3), (0, 6), (2, 6), (3, 6), (1, 5)}
    assert _set(find_candidates(keys, reach=2)) == {(0, 2), (0, 3), (2, 3), (0, 6), (2, 6), (1, 5)}
    assert _set(find_candidates(keys[:0], reach=2)) == set()


def test_later_documents_change_no_pair_of_earlier_ones() -> None:
    keys = np.random.default_rng(1).integers(0, 9, 300).astype(np.uint64)
    for reach in (1, 3, 1000):
        before, after = (
            _set(find_candidates(keys[:200], reach=reach)),
            _set(find_candidates(keys, reach=reach)),
        )
        assert {pair for pair in after if pair[1] < 200} == before


def test_a_million_copies_make_pairs_by_the_million_and_no_more() -> None:
    assert len(find_candidates(np.zeros(1_000_000, np.uint64), reach=4).left) == 4_000_000 - 10


def test_keys_are_equal_where_a_band_is_and_bands_do_not_mix() -> None:
    rows = np.random.default_rng(2).integers(0, 2**32, (3, 12), np.uint32)
    rows[1, :4] = rows[0, :4]
    rows[2, 4:8] = rows[0, :4]  # the values of another band
    keys = band_keys(rows, bands=3, rows=4)
    assert len(np.unique(keys)) == 8
    assert keys[0, 0] == keys[1, 0]
    assert (module._keys.py_func(rows, 3, 4) == keys).all()  # type: ignore[attr-defined]


def test_more_rows_than_permutations_are_refused() -> None:
    with pytest.raises(ValueError, match="need 130 permutations; the signatures have 128"):
        band_keys(np.zeros((1, 128), np.uint32), bands=10, rows=13)


def test_documents_meet_as_often_as_the_formula_says() -> None:
    rng = np.random.default_rng(3)
    left = rng.integers(0, 2**32, (20_000, 32), np.uint32)
    right = np.where(rng.random(left.shape) < 0.7, left, left + np.uint32(1))
    met = (band_keys(left, bands=8, rows=4) == band_keys(right, bands=8, rows=4)).any(axis=1).mean()
    assert met == pytest.approx(
        compute_share_probability(0.7, bands=8, rows=4), abs=0.01
    )  # three standard errors
    assert compute_share_probability(0.8, bands=9, rows=13) == pytest.approx(
        0.399, abs=0.001
    )  # CT-LLM's, by its authors' formula


def test_distinct_pairs_stand_once_and_sorted() -> None:
    bands = [
        find_candidates(np.array(keys, np.uint64), reach=4) for keys in ([1, 1, 2], [5, 5, 5], [1, 2, 1])
    ]
    assert [column.tolist() for column in distinct(bands)] == [[0, 0, 1], [1, 2, 2]]


def test_of_a_crowd_the_most_alike_and_the_best_are_left() -> None:
    pairs = Pairs(np.array([0, 1, 2, 3, 0, 3]), np.array([4, 4, 4, 4, 5, 5]))
    alike = np.array([0.5, 0.9, 0.6, 0.9, 0.4, 0.5], np.float32)
    ranks = np.array([7, 5, 3, 4, 7, 4])
    assert select_most_similar(pairs, alike, ranks, reach=1).tolist() == [
        False,
        False,
        True,
        True,
        False,
        True,
    ]  # of ties the better
    assert select_most_similar(pairs, alike, ranks, reach=2).tolist() == [False, True, True, True, True, True]
    assert (
        select_most_similar(Pairs(pairs.left[:0], pairs.right[:0]), alike[:0], ranks[:0], reach=2).tolist()
        == []
    )
