"""Orders are bijections, look random, and rows that join disturb nothing that was consumed."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest

from ctllm_ray.shards.order import Joined, Stream, key, permute

SIZES = [1, 2, 3, 4, 5, 7, 13, 63, 64, 65, 101, 127, 128, 129, 1000, 4095, 4096, 4097, 10007, 65537]


def whole(rows: int, seed: int) -> np.ndarray:
    return permute(np.arange(rows), rows, seed)


@pytest.mark.parametrize("rows", SIZES)
def test_every_row_stands_at_exactly_one_place(rows: int) -> None:
    for seed in (0, 1, 2**64 - 1):
        assert np.array_equal(np.sort(whole(rows, seed)), np.arange(rows))


def test_a_place_looked_up_alone_is_the_same_as_among_all() -> None:
    order = whole(1000, 7)
    assert [int(permute(np.array([i]), 1000, 7)[0]) for i in range(0, 1000, 37)] == order[::37].tolist()


def test_places_beyond_two_to_the_thirty_two_are_rows_too() -> None:
    rows = 5 * 10**10
    found = permute(np.arange(rows - 10_000, rows), rows, 3)
    assert len(np.unique(found)) == 10_000
    assert found.min() >= 0
    assert found.max() < rows


def test_the_orders_of_two_seeds_agree_as_often_as_chance_has_it() -> None:
    """Fixed points of one order against another: 1 expected over any n, at most 8 with probability 1 -
    1e-6."""
    orders = [whole(10_007, key(seed, "web", epoch)) for seed in (1, 2) for epoch in (0, 1)]
    for i in range(4):
        for j in range(i):
            assert (orders[i] == orders[j]).sum() <= 8


@pytest.mark.parametrize("rows", [3, 4, 5])
def test_all_orders_of_a_few_rows_are_equally_frequent(rows: int) -> None:
    """Chi-square over n! cells, 200 seeds a cell; bound at mean + 5 standard deviations."""
    cells = dict.fromkeys(permutations(range(rows)), 0)
    trials = 200 * len(cells)
    for seed in range(trials):
        cells[tuple(whole(rows, key("small", seed)).tolist())] += 1
    chi = sum((n - 200) ** 2 / 200 for n in cells.values())
    freedom = len(cells) - 1
    assert abs(chi - freedom) < 5 * math.sqrt(2 * freedom)


@pytest.mark.parametrize("rows", [1000, 1023, 4097])
def test_place_and_row_are_independent(rows: int) -> None:
    """A 16 x 16 table of place against row over 60 seeds: chi-square within 5 standard deviations of its
    mean."""
    table = np.zeros((16, 16))
    for seed in range(60):
        order = whole(rows, key("table", seed))
        np.add.at(table, (np.arange(rows) * 16 // rows, order * 16 // rows), 1)
    margin = np.bincount(np.arange(rows) * 16 // rows) / rows
    expected = np.outer(margin, margin) * rows * 60
    chi = ((table - expected) ** 2 / expected).sum()
    freedom = 15 * 15  # margins are fixed
    assert abs(chi - freedom) < 5 * math.sqrt(2 * freedom)


def test_neighbours_are_sent_to_unrelated_rows() -> None:
    """Correlation of row at i with row at i + lag: within 5 / sqrt(n) of zero."""
    order = whole(50_000, 11).astype(float)
    for lag in (1, 2, 7, 223, 224):  # 224 is the side of the grid
        assert abs(np.corrcoef(order[:-lag], order[lag:])[0, 1]) < 5 / math.sqrt(50_000)


def test_a_key_tells_lists_of_parts_apart() -> None:
    assert len({key("a", "bc"), key("ab", "c"), key("abc"), key("a", "b", "c")}) == 4


def test_each_epoch_of_a_stream_has_every_row_once_in_another_order() -> None:
    stream = Stream(5, "web", [Joined(0, 101)])
    epochs = stream.rows(np.arange(303)).reshape(3, 101)
    assert all(np.array_equal(np.sort(epoch), np.arange(101)) for epoch in epochs)
    assert (epochs[0] == epochs[1]).sum() < 10


@pytest.mark.parametrize("start", [0, 1, 50, 99, 100, 101, 250, 300])
def test_rows_that_join_leave_the_past_and_come_once_in_the_running_epoch(start: int) -> None:
    before = Stream(5, "web", [Joined(0, 100)])
    after = Stream(5, "web", [Joined(0, 100), Joined(start, 140)])
    assert np.array_equal(after.rows(np.arange(start)), before.rows(np.arange(start)))
    begun = start // 100 * 100
    rest = (140 - start % 100) if start % 100 else 0
    epoch = after.rows(np.arange(begun, start + rest))
    assert np.array_equal(np.sort(epoch), np.arange(140) if rest else [])
    following = after.rows(np.arange(start + rest, start + rest + 280)).reshape(2, 140)
    assert all(np.array_equal(np.sort(e), np.arange(140)) for e in following)


def test_old_and_new_rows_are_mixed_in_the_rest_of_the_epoch() -> None:
    stream = Stream(5, "web", [Joined(0, 1000), Joined(500, 1500)])
    rest = stream.rows(np.arange(500, 1500))
    assert 180 < (rest[:500] >= 1000).sum() < 320  # 250 expected, standard deviation about 8


def test_rows_may_join_again_and_again() -> None:
    """Three appends, two of them within one epoch's rest, and one that brings nothing."""
    joins = [Joined(0, 100), Joined(30, 130), Joined(60, 150), Joined(70, 150), Joined(400, 200)]
    stream = Stream(9, "books", joins)
    assert np.array_equal(np.sort(stream.rows(np.arange(150))), np.arange(150))
    assert np.array_equal(np.sort(stream.rows(np.arange(150, 300))), np.arange(150))
    assert np.array_equal(np.sort(stream.rows(np.arange(300, 500))), np.arange(200))
    assert np.array_equal(np.sort(stream.rows(np.arange(500, 700))), np.arange(200))
    for count in range(1, 5):
        end = joins[count].start
        older = Stream(9, "books", joins[:count])
        assert np.array_equal(stream.rows(np.arange(end)), older.rows(np.arange(end)))


def test_epochs_are_counted_when_their_first_row_is_consumed() -> None:
    stream = Stream(9, "books", [Joined(0, 100), Joined(130, 150)])
    assert [stream.epochs_begun(n) for n in (0, 1, 100, 101, 130, 131, 250, 251, 400, 401)] == [
        0, 1, 1, 2, 2, 2, 2, 3, 3, 4,
    ]  # fmt: skip


def test_streams_of_two_groups_and_of_two_seeds_differ() -> None:
    rows = [
        Stream(seed, name, [Joined(0, 500)]).rows(np.arange(500))
        for seed, name in ((1, "a"), (1, "b"), (2, "a"))
    ]
    assert all((rows[i] == rows[j]).sum() <= 8 for i in range(3) for j in range(i))
