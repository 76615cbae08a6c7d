"""Which copy stays."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest

from ctllm_ray.text.dedup.survivors import complete, of_components, of_neighbours, ranks

COLUMNS = ["complete", "original_script", "score", "clutter", "chars", "date", "id"]
SCHEMA = pa.schema(
    [
        ("complete", pa.bool_()),
        ("original_script", pa.bool_()),
        ("score", pa.float32()),
        ("clutter", pa.int32()),
        ("chars", pa.int64()),
        ("date", pa.string()),
        ("id", pa.string()),
    ]
)
NONE = np.equal  # as a comparison of rows: no row is another one
BASE = (True, True, 0.5, 1, 100, "2020-01-01", "m")


def _table(rows: list[tuple]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(COLUMNS, row, strict=True)) for row in rows], SCHEMA)


@pytest.mark.parametrize(
    ("column", "better", "worse"),
    [
        (0, True, False),
        (1, True, False),
        (2, 0.5, 0.4),
        (3, 1, 2),
        (4, 100, 99),
        (5, "2020-01-01", "2020-01-02"),
        (6, "m", "n"),
    ],
)
def test_each_column_decides_where_those_before_it_are_equal(
    column: int, better: object, worse: object
) -> None:
    good, bad = list(BASE), list(BASE)
    good[column], bad[column] = better, worse
    for later in range(column + 1, 7):  # the loser is better in all that comes after
        bad[later] = (True, True, 9.0, 0, 999, "1990-01-01", "a")[later]
    assert ranks(_table([tuple(bad), tuple(good)])).tolist() == [1, 0]


def test_a_missing_value_loses_to_any() -> None:
    for column in (2, 5):
        missing = list(BASE)
        missing[column] = None
        assert ranks(_table([tuple(missing), (*BASE[:6], "z")])).tolist() == [1, 0]


def test_each_component_has_one_survivor_whatever_the_order_of_rows() -> None:
    rng = random.Random(1)
    rows = [
        (rng.random() < 0.5, True, rng.choice([0.1, 0.2]), 1, rng.randrange(3), None, f"{i:03}")
        for i in range(200)
    ]
    of = np.array([rng.randrange(40) for _ in rows])
    stays = of_components(of, ranks(_table(rows)))
    assert (of[stays] == of).all()
    assert (stays[stays] == stays).all()
    assert len(np.unique(stays)) == len(np.unique(of))
    turned = of_components(of[::-1], ranks(_table(rows[::-1])))
    assert (len(rows) - 1 - turned[::-1] == stays).all()


def test_a_page_leaves_only_for_a_page_that_stays_and_that_it_is_like() -> None:
    chain = np.array([0, 1, 2]), np.array([1, 2, 3])
    assert of_neighbours(*chain, np.array([0, 1, 2, 3]), NONE).tolist() == [0, 0, 2, 2]
    assert of_neighbours(*chain, np.array([3, 0, 1, 2]), NONE).tolist() == [1, 1, 1, 3]
    assert of_neighbours(*chain, np.array([1, 2, 0, 3]), NONE).tolist() == [
        0,
        2,
        2,
        2,
    ]  # 1 is like both: the better


def test_a_page_whose_neighbours_left_is_compared_with_those_for_which_they_left() -> None:
    star = np.array([1, 1, 1]), np.array([0, 2, 3])  # 1 is like all of them, and leaves for 0
    asked: list[tuple[int, int]] = []

    def alike(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        asked.extend(zip(one.tolist(), other.tolist(), strict=True))
        return other == 3

    assert of_neighbours(*star, np.arange(4), alike).tolist() == [0, 0, 2, 0]
    assert sorted(asked) == [(0, 2), (0, 3)]


def test_a_settled_row_keeps_its_survivor_and_others_may_go_for_that_one() -> None:
    pairs = np.array([0, 1, 2]), np.array([1, 3, 4])  # 1 left for 0
    stays = of_neighbours(*pairs, np.arange(5), lambda *_: np.array([True]), np.array([0, 0, 2, -1, -1]))
    assert stays.tolist() == [0, 0, 2, 0, 2]


def test_a_chain_of_pages_that_left_is_followed_page_by_page_with_every_pair_asked_for_once() -> None:
    """Each is like the one before and, but for the last, like the first."""
    count, asked = 50, list[int]()

    def alike(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        asked.extend((one * count + other).tolist())
        return (one == 0) & (other != count - 1)

    stays = of_neighbours(np.arange(count - 1), np.arange(1, count), np.arange(count), alike)
    assert stays.tolist() == [0] * (count - 1) + [count - 1]
    assert len(asked) == len(set(asked))


def test_survivors_among_neighbours_keep_the_law_on_random_pairs() -> None:
    rng = np.random.default_rng(1)
    left, right, places = rng.integers(0, 200, 300), rng.integers(0, 200, 300), rng.permutation(200)
    stays = of_neighbours(left, right, places, NONE)
    pairs = {*zip(left, right, strict=True), *zip(right, left, strict=True)}
    for row, other in enumerate(stays):
        if row == other:
            assert not any(places[b] < places[row] and stays[b] == b for a, b in pairs if a == row)
        else:
            assert (row, other) in pairs
            assert stays[other] == other
            assert places[other] < places[row]
    assert (of_neighbours(right, left, places, NONE) == stays).all()


def test_survivors_are_those_of_going_through_the_rows_in_their_order_and_asking_where_neighbours_left() -> (
    None
):
    rng = np.random.default_rng(2)
    for _ in range(40):
        left, right, places = rng.integers(0, 60, 90), rng.integers(0, 60, 90), rng.permutation(60)
        like = np.triu(rng.random((60, 60)) < 0.4)
        stays = of_neighbours(left, right, places, lambda one, other, like=like: (like | like.T)[one, other])  # type: ignore[misc]
        expected: dict[int, int] = {}
        for row in np.argsort(places).tolist():
            pairs = [*zip(left, right, strict=True), *zip(right, left, strict=True)]
            better = [int(b) for a, b in pairs if a == row and places[b] < places[row]]
            beside = [b for b in better if expected[b] == b]
            behind = [] if beside else [expected[b] for b in better if (like | like.T)[expected[b], row]]
            expected[row] = min(beside + behind, key=lambda b, places=places: places[b], default=row)  # type: ignore[misc]
        assert stays.tolist() == [expected[row] for row in range(60)]


def test_no_rows_have_no_survivors() -> None:
    none = np.array([], np.int64)
    assert of_components(none, ranks(_table([]))).tolist() == []
    assert of_neighbours(none, none, ranks(_table([])), NONE).tolist() == []


def test_a_page_is_complete_where_it_ends_a_sentence() -> None:
    texts = ["说完了。", "他说：“走吧！”\n ", "（全文完。）", "说到一半就", "", "目录\n第一章"]
    assert complete(pa.array(texts)).to_pylist() == [True, True, True, False, False, False]
