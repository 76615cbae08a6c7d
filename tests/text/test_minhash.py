"""Signatures: datasketch's, bit for bit; estimates within their interval; the fate of short texts."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest
from datasketch import LeanMinHash, MinHash, MinHashLSH

from ctllm_ray.text.dedup import minhash as module
from ctllm_ray.text.dedup.bands import band_keys, find_candidates
from ctllm_ray.text.dedup.minhash import EMPTY, affine, shingle_hash, signatures
from ctllm_ray.text.dedup.text_similarity import agreement, jaccard
from ctllm_ray.text.kernels.codepoints import buffers

HAN = "".join(chr(0x4E00 + i) for i in range(600))


def _text(rng: random.Random, size: int) -> str:
    return "".join(rng.choices(HAN, k=size))


def _shingles(text: str, size: int) -> list[str]:
    return [text[i : i + size] for i in range(max(len(text) - size + 1, 1))] if text else []


def _theirs(text: str, size: int, permutations: int, seed: int) -> MinHash:
    made = MinHash(num_perm=permutations, seed=seed, scheme="affine32", hashfunc=shingle_hash)
    for shingle in _shingles(text, size):
        made.update(shingle)
    return made


@pytest.fixture(scope="module")
def texts() -> list[str]:
    rng = random.Random(1)
    return [
        "",
        "天",
        "天下大",
        "天下大势分",
        "𠀀𠀁天下大势",
        "a b-c" * 9,
        *(_text(rng, n) for n in (13, 14, 90, 700)),
    ]


@pytest.mark.parametrize(
    ("size", "permutations", "seed"), [(5, 128, 1), (13, 117, 1), (1, 16, 42), (24, 256, 7)]
)
def test_signatures_are_those_of_datasketch(
    texts: list[str], size: int, permutations: int, seed: int
) -> None:
    ours = signatures(pa.array(texts), shingle_chars=size, permutations=permutations, seed=seed)
    for text, values, count in zip(texts, *ours, strict=True):
        assert (values == _theirs(text, size, permutations, seed).hashvalues).all()
        assert count == len(_shingles(text, size))


def test_interpreted_and_compiled_signatures_agree(texts: list[str]) -> None:
    arguments = (*buffers(pa.array(texts[:-1])), *affine(16, 1), 5)
    want = module._signature_batch.py_func(*arguments)  # type: ignore[attr-defined]
    got = module._signature_batch(*arguments)
    assert all((a == b).all() for a, b in zip(want, got, strict=True))


def test_the_lsh_and_the_lean_sketches_of_datasketch_work_on_our_signatures() -> None:
    rng = random.Random(2)
    base = _text(rng, 400)
    pages = [base, base[:390] + _text(rng, 10), _text(rng, 400)]
    values = signatures(pa.array(pages), shingle_chars=5).values
    lean = [LeanMinHash(seed=1, hashvalues=row, scheme="affine32") for row in values]
    index = MinHashLSH(num_perm=128, params=(9, 13))
    for i, sketch in enumerate(lean):
        index.insert(i, sketch)
    assert sorted(index.query(_theirs(base, 5, 128, 1))) == [0, 1]
    packed = bytearray(lean[0].bytesize())
    lean[0].serialize(packed)
    assert LeanMinHash.deserialize(packed) == lean[0]
    assert lean[0].jaccard(lean[1]) == agreement(values, np.array([0]), np.array([1]))[0]
    assert find_candidates(band_keys(values, bands=9, rows=13)[:, 0], reach=8) == ([0], [1])


def test_the_estimate_lies_around_the_exact_similarity() -> None:
    rng = random.Random(3)
    pages = []
    for _ in range(400):
        base = _text(rng, 300)
        cut = rng.randrange(300)
        pages += [base, base[:cut] + _text(rng, 300 - cut)]
    array, left = pa.array(pages), np.arange(0, 800, 2)
    exact = jaccard(array, left, left + 1, shingle_chars=5)
    estimate = agreement(signatures(array, shingle_chars=5).values, left, left + 1)
    deviation = np.sqrt(exact * (1 - exact) / 128)
    known = deviation > 0
    off = (estimate - exact)[known] / deviation[known]
    assert abs(np.mean(estimate - exact)) < 3 * 0.044 / np.sqrt(400)  # unbiased: three standard errors
    assert 0.85 < np.std(off) < 1.15  # as wide as 128 independent draws
    assert np.abs(off).max() < 5


def test_texts_shorter_than_a_shingle_agree_where_they_are_equal_and_nowhere_else() -> None:
    made = signatures(pa.array(["天下", "天下", "天上", "天", "", ""]), shingle_chars=5)
    same = agreement(made.values, np.array([0, 0, 0]), np.array([1, 2, 3]))
    assert same[0] == 1
    assert max(same[1:]) < 0.1
    assert made.shingles.tolist() == [1, 1, 1, 1, 0, 0]
    assert (made.values[4:] == EMPTY).all()


def test_signatures_of_a_slice_are_the_slice_of_signatures(texts: list[str]) -> None:
    whole, part = (
        signatures(a, shingle_chars=5).values for a in (pa.array(texts), pa.array(texts).slice(3, 4))
    )
    assert (whole[3:7] == part).all()
    assert signatures(pa.array([], pa.string()), shingle_chars=5).values.shape == (0, 128)
