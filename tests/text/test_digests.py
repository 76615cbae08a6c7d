"""Digests: what they are, and which rows share one."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import xxhash

from ctllm_ray.text.dedup.digests import digests, first_rows, folded_digests
from ctllm_ray.text.dedup.fold import fold

TEXTS = ["天下大势", "", "分久必合", "天下大势", "a" * 5000, ""]


def test_a_digest_is_xxh3_128_of_the_bytes() -> None:
    want = [xxhash.xxh3_128_intdigest(text.encode()) for text in TEXTS]
    assert [int(high) << 64 | int(low) for high, low in digests(pa.array(TEXTS))] == want
    assert (digests(pa.array(TEXTS).slice(2, 3)) == digests(pa.array(TEXTS))[2:5]).all()
    assert digests(pa.array([], pa.string())).shape == (0, 2)


def test_first_rows_names_the_first_of_equal_keys() -> None:
    assert first_rows(digests(pa.array(TEXTS))).tolist() == [0, 1, 2, 0, 4, 1]
    halves = np.array([[1, 2], [1, 3], [2, 2], [1, 2]], np.uint64)  # one half alone is no match
    assert first_rows(halves).tolist() == [0, 1, 2, 0]
    assert first_rows(np.empty((0, 2), np.uint64)).tolist() == []


def test_folded_digests_see_through_script_and_marks_and_keep_texts_of_marks_apart() -> None:
    texts = pa.array(["頭髮，", "头发！", "😀", "😭", "😀", ""])
    assert first_rows(folded_digests(texts, fold(texts))).tolist() == [0, 0, 2, 3, 2, 5]
