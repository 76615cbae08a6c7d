"""Slips between two texts: the fewest edits against a table of all prefixes, and what counts as a slip, by
example."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest

from ctllm_ray.text.dedup import edits as module
from ctllm_ray.text.dedup.edits import differ_in_slips
from ctllm_ray.text.kernels.codepoints import buffers

TEXT = "".join(chr(0x4E10 + 7 * i) for i in range(200))  # no character twice, and no numeral


def _fewest(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(last + (x != y), row[j] + 1, row[j - 1] + 1)
    return row[-1]


def _points(text: str) -> np.ndarray:
    return np.array([ord(c) for c in text], np.uint32)


def _is_slipped(one: str, other: str, share: float = 0.12, run: int = 4) -> bool:
    both = [
        differ_in_slips(
            pa.array(pair), np.array([0]), np.array([1]), max_edit_share=share, max_edit_run=run
        ).item()
        for pair in ([one, other], [other, one])
    ]
    assert both[0] == both[1]
    return both[0]


def _changed(text: str, places: range, to: str = "") -> str:
    """The text with the characters at these places replaced: by other ones, or all by that one."""
    return "".join((to or chr(0x8A00 + i)) if i in places else c for i, c in enumerate(text))


def test_the_fewest_edits_equal_those_of_the_table_of_all_prefixes() -> None:
    rng = random.Random(1)
    for most in (0, 3, 25):
        for _ in range(150):
            one, other = ("".join(rng.choices("天地玄黄", k=rng.randrange(25))) for _ in range(2))
            furthest = np.empty((most + 1) ** 2, np.int32)
            want = _fewest(one, other)
            found = module.edit_distance(_points(one), _points(other), most, furthest)  # type: ignore[no-untyped-call]
            assert found == (want if want <= most else -1)


def test_the_compiled_kernel_equals_the_interpreted_one() -> None:
    rng = random.Random(2)
    texts = ["", "天", *("".join(rng.choices(TEXT[:9] + "一二a", k=rng.randrange(30))) for _ in range(40))]
    left, right = (np.array([rng.randrange(len(texts)) for _ in range(400)]) for _ in range(2))
    arguments = (*buffers(pa.array(texts)), left, right, 0.8, 5)
    found = module._find_slips(*arguments)
    assert 0 < found.sum() < len(found)
    assert (module._find_slips.py_func(*arguments) == found).all()  # type: ignore[attr-defined]
    assert (module._find_slips(*arguments[:2], right, left, 0.8, 5) == found).all()


def test_scattered_slips_are_slips_until_they_are_too_many() -> None:
    assert _is_slipped(TEXT, TEXT)
    assert _is_slipped("", "")
    assert _is_slipped(TEXT, _changed(TEXT, range(5, 200, 10)))  # a tenth
    assert not _is_slipped(TEXT, _changed(TEXT, range(5, 200, 8)))  # an eighth
    assert _is_slipped(TEXT, "".join(c for i, c in enumerate(TEXT) if i % 10))  # a tenth is left out
    assert not _is_slipped(TEXT, TEXT[:170])


@pytest.mark.parametrize("length", [1, 4, 5, 9])
def test_a_stretch_is_a_slip_up_to_its_bound(length: int) -> None:
    assert _is_slipped(TEXT, _changed(TEXT, range(50, 50 + length))) == (length <= 4)
    assert _is_slipped(TEXT, TEXT[:50] + TEXT[50 + length :]) == (length <= 4)
    assert _is_slipped(TEXT, TEXT[: 200 - length]) == (length <= 4)


@pytest.mark.parametrize(
    ("one", "other"),
    [("2019", "2020"), ("sin", "cos"), ("三", "四"), ("", "7"), ("五", "5"), ("二", ""), ("壹", "贰")],
)
def test_another_number_or_latin_word_is_no_slip(one: str, other: str) -> None:
    assert not _is_slipped(TEXT[:80] + one + TEXT[80:], TEXT[:80] + other + TEXT[80:])


def test_a_numeral_that_is_misread_is_a_slip() -> None:
    assert _is_slipped(TEXT[:80] + "十" + TEXT[80:], TEXT[:80] + "土" + TEXT[80:])


def test_the_same_change_again_and_again_is_another_subject() -> None:
    width = "".join(TEXT[i : i + 20] + "宽" for i in range(0, 200, 20))
    assert not _is_slipped(width, width.replace("宽", "高"))
    assert _is_slipped(width, width.replace("宽", "高", 2))


def test_texts_with_more_edits_than_are_counted_are_not_slipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_EDITS", 3)
    arguments = (np.array([0]), np.array([1]), 0.12, 4)
    for count, want in ((3, True), (4, False)):
        texts = pa.array([TEXT, _changed(TEXT, range(5, 5 + 10 * count, 10))])
        assert module._find_slips.py_func(*buffers(texts), *arguments).item() == want  # type: ignore[attr-defined]
