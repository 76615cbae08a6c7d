"""Keys of lines and the edges of pages."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from ctllm_ray.text.dedup.fold import table
from ctllm_ray.text.kernels.codepoints import buffers
from ctllm_ray.text.lines import line_keys as module
from ctllm_ray.text.lines.line_keys import at_edges, line_keys

TEXTS = ["首页\n\n 首頁 \n——\n正文，第12条。", "", "\n\n", "Ａ１\na1\nﷺ末\n第34条", "正文第12条"]


def test_lines_that_say_something_have_a_row_a_number_and_a_length() -> None:
    found = line_keys(pa.array(TEXTS), digits="keep")
    assert found.rows.tolist() == [0, 0, 0, 3, 3, 3, 3, 4]
    assert found.lines.tolist() == [0, 2, 4, 0, 1, 2, 3, 0]
    assert found.chars.tolist()[:5] == [2, 2, 6, 2, 2]


def test_keys_are_equal_where_the_folded_lines_are() -> None:
    kept, masked = (line_keys(pa.array(TEXTS), digits=digits).keys for digits in ("keep", "mask"))
    assert kept[0] == kept[1]
    assert kept[3] == kept[4]
    assert kept[2] == kept[7]
    assert len(set(kept.tolist())) == len(kept) - 3
    numbers = line_keys(pa.array(["第1条", "第234条"]), digits="mask").keys
    assert numbers[0] == numbers[1]
    assert masked[6] == numbers[0]


def test_a_slice_of_a_column_has_the_keys_that_its_rows_have() -> None:
    whole, part = (
        line_keys(pa.array(TEXTS), digits="keep"),
        line_keys(pa.array(TEXTS).slice(3), digits="keep"),
    )
    assert part.keys.tolist() == whole.keys[whole.rows >= 3].tolist()
    assert part.rows.tolist() == [0, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("page", "cost", "left"),
    [
        ("xx.oo.x.ooxx", 1, "  .oo.x.oo  "),
        ("xoxxoooxooox", 1, " o  oooxooo "),  # three against one
        ("xoxxoooxooox", 2, " oxxoooxooo "),  # a tie: the shorter
        ("oxxxoooooo", 2, "o   oooooo"),
        ("oxxoooooo", 2, "oxxoooooo"),
        ("oox", 1, "oo "),
        ("oxo", 0.5, "o o"),
        ("oxo", 1, "oxo"),
        ("xxxx", 1, "    "),
        ("oooo", 1, "oooo"),
    ],
)
def test_of_both_ends_the_stretch_goes_where_repeated_lines_outweigh_the_others_most(
    page: str, cost: float, left: str
) -> None:
    said = np.array([c != "." for c in page])
    repeated = np.array([c == "x" for c in page])[said]
    found = np.zeros(len(page), bool)
    found[said] = at_edges(np.zeros(said.sum(), np.int32), repeated, cost=cost)
    assert "".join(" " if cut else c for c, cut in zip(page, found, strict=True)) == left


def test_pages_of_a_batch_do_not_know_each_other() -> None:
    draw = np.random.default_rng(5)
    rows, repeated = np.sort(draw.integers(0, 9, 60)).astype(np.int32), draw.random(60) < 0.5
    whole = at_edges(rows, repeated, cost=1)
    for row in range(9):
        assert (at_edges(rows[rows == row], repeated[rows == row], cost=1) == whole[rows == row]).all()
    assert (module._at_edges.py_func(rows, repeated, 1.0) == whole).all()  # type: ignore[attr-defined]


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_interpreted_and_compiled_keys_agree() -> None:
    for digits in ("keep", "mask"):
        want = module._line_keys.py_func(*buffers(pa.array(TEXTS)), *table(), digits == "mask")  # type: ignore[attr-defined]
        for expected, got in zip(want, line_keys(pa.array(TEXTS), digits=digits), strict=True):
            assert expected.tolist() == got.tolist()
