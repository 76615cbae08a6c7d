"""Which copy stays."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest

from ctllm_ray.text.survivors import complete, of_components, of_neighbours, ranks

COLUMNS = ["complete", "original_script", "score", "chars", "date", "id"]
SCHEMA = pa.schema(
    [
        ("complete", pa.bool_()),
        ("original_script", pa.bool_()),
        ("score", pa.float32()),
        ("chars", pa.int64()),
        ("date", pa.string()),
        ("id", pa.string()),
    ]
)
BASE = (True, True, 0.5, 100, "2020-01-01", "m")


def _table(rows: list[tuple]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(COLUMNS, row, strict=True)) for row in rows], SCHEMA)


@pytest.mark.parametrize(
    ("column", "better", "worse"),
    [(0, True, False), (1, True, False), (2, 0.5, 0.4), (3, 100, 99), (4, "2020-01-01", "2020-01-02"), (5, "m", "n")],
)
def test_each_column_decides_where_those_before_it_are_equal(column: int, better: object, worse: object) -> None:
    good, bad = list(BASE), list(BASE)
    good[column], bad[column] = better, worse
    for later in range(column + 1, 6):  # the loser is better in all that comes after
        bad[later] = (True, True, 9.0, 999, "1990-01-01", "a")[later]
    assert ranks(_table([tuple(bad), tuple(good)])).tolist() == [1, 0]


def test_a_missing_value_loses_to_any() -> None:
    for column in (2, 4):
        missing = list(BASE)
        missing[column] = None
        assert ranks(_table([tuple(missing), (*BASE[:5], "z")])).tolist() == [1, 0]


def test_each_component_has_one_survivor_whatever_the_order_of_rows() -> None:
    rng = random.Random(1)
    rows = [(rng.random() < 0.5, True, rng.choice([0.1, 0.2]), rng.randrange(3), None, f"{i:03}") for i in range(200)]
    of = np.array([rng.randrange(40) for _ in rows])
    stays = of_components(of, ranks(_table(rows)))
    assert (of[stays] == of).all()
    assert (stays[stays] == stays).all()
    assert len(np.unique(stays)) == len(np.unique(of))
    turned = of_components(of[::-1], ranks(_table(rows[::-1])))
    assert (len(rows) - 1 - turned[::-1] == stays).all()


def test_a_page_leaves_only_for_a_page_that_stays_and_that_it_is_like() -> None:
    chain = np.array([0, 1, 2]), np.array([1, 2, 3])
    assert of_neighbours(*chain, np.array([0, 1, 2, 3])).tolist() == [0, 0, 2, 2]
    assert of_neighbours(*chain, np.array([3, 0, 1, 2])).tolist() == [1, 1, 1, 3]
    assert of_neighbours(*chain, np.array([1, 2, 0, 3])).tolist() == [0, 2, 2, 2]  # 1 is like both: the better one


def test_survivors_among_neighbours_keep_the_law_on_random_pairs() -> None:
    rng = np.random.default_rng(1)
    left, right, places = rng.integers(0, 200, 300), rng.integers(0, 200, 300), rng.permutation(200)
    stays = of_neighbours(left, right, places)
    pairs = {*zip(left, right, strict=True), *zip(right, left, strict=True)}
    for row, other in enumerate(stays):
        if row == other:
            assert not any(places[b] < places[row] and stays[b] == b for a, b in pairs if a == row)
        else:
            assert (row, other) in pairs
            assert stays[other] == other
            assert places[other] < places[row]
    assert (of_neighbours(right, left, places) == stays).all()


def test_no_rows_have_no_survivors() -> None:
    none = np.array([], np.int64)
    assert of_components(none, ranks(_table([]))).tolist() == []
    assert of_neighbours(none, none, ranks(_table([]))).tolist() == []


def test_a_page_is_complete_where_it_ends_a_sentence() -> None:
    texts = ["说完了。", "他说：“走吧！”\n ", "（全文完。）", "说到一半就", "", "目录\n第一章"]
    assert complete(pa.array(texts)).to_pylist() == [True, True, True, False, False, False]
