"""Similarity of two texts, exactly, against sets of Python."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa

from ctllm_ray.text.dedup import text_similarity as module
from ctllm_ray.text.dedup.text_similarity import jaccard, own, verdicts
from ctllm_ray.text.kernels.codepoints import buffers

BOUNDS = {
    "sure_jaccard": 0.8,
    "min_jaccard": 0.5,
    "own_shingle_chars": 3,
    "max_own_share": 0.08,
    "max_own_run": 6,
    "slips_jaccard": 0.3,
    "max_edit_share": 0.12,
    "max_edit_run": 4,
}


def _sets(text: str, size: int) -> set[str]:
    return {text[i : i + size] for i in range(max(len(text) - size + 1, 1))} if text else set()


def test_jaccard_equals_that_of_python_sets() -> None:
    rng = random.Random(1)
    texts = [
        "",
        "",
        "天",
        "天地玄",
        *("".join(rng.choices("天地玄黄宇宙", k=rng.randrange(60))) for _ in range(40)),
    ]
    left, right = (np.array([rng.randrange(len(texts)) for _ in range(300)]) for _ in range(2))
    for size in (1, 3, 7):
        sets = [_sets(text, size) for text in texts]
        want = [
            len(sets[a] & sets[b]) / max(len(sets[a] | sets[b]), 1) for a, b in zip(left, right, strict=True)
        ]
        arguments = (*buffers(pa.array(texts)), left, right, size)
        assert np.allclose(jaccard(pa.array(texts), left, right, shingle_chars=size), want, atol=1e-6)
        assert (module._jaccard.py_func(*arguments) == module._jaccard(*arguments)).all()  # type: ignore[attr-defined]


def _alone(text: str, other: str, size: int) -> tuple[float, int]:
    """The share and the longest stretch of what no shingle of the other covers, by Python strings."""
    bare = set(range(len(text)))
    for i in range(max(len(text) - size + 1, 1)):
        if text and text[i : i + size] in _sets(other, size):
            bare -= set(range(i, i + size))
    runs = "".join("x" if i in bare else " " for i in range(len(text))).split()
    return len(bare) / max(len(text), 1), max(map(len, runs), default=0)


def test_own_equals_what_python_strings_say() -> None:
    rng = random.Random(2)
    texts = ["", "天", "天地", *("".join(rng.choices("天地玄黄宇", k=rng.randrange(40))) for _ in range(40))]
    left, right = (np.array([rng.randrange(len(texts)) for _ in range(300)]) for _ in range(2))
    for size in (1, 3, 6):
        found = own(pa.array(texts), left, right, shingle_chars=size)
        for a, b, share, run in zip(left, right, *found, strict=True):
            want = min(_alone(texts[a], texts[b], size), _alone(texts[b], texts[a], size), key=lambda w: w[0])
            assert abs(share - want[0]) < 1e-6
            assert (
                run == want[1] or _alone(texts[a], texts[b], size)[0] == _alone(texts[b], texts[a], size)[0]
            )
        interpreted = module._own.py_func(*buffers(pa.array(texts)), left, right, size)  # type: ignore[attr-defined]
        assert all((x == y).all() for x, y in zip(interpreted, found, strict=True))


def test_a_part_has_nothing_of_its_own_and_pages_of_a_template_have() -> None:
    body, template = "白日依山尽黄河入海流", "版权所有转载请注明出处本站不承担责任"
    texts = pa.array([body + template, body, "欲穷千里目更上一层楼" + template])
    share, run = own(texts, np.array([0, 0, 1]), np.array([1, 2, 2]), shingle_chars=3)
    assert share[0] == run[0] == 0
    assert run[1] == 10
    assert share[2] == 1


def test_duplicates_are_very_alike_or_alike_with_nothing_of_their_own_or_with_slips_only() -> None:
    body = "".join(chr(0x4E00 + i) for i in range(60))
    other = "".join(chr(0x5E00 + i) for i in range(60))
    long = "".join(chr(0x7000 + i) for i in range(130))
    pairs = [
        (body, body[:-1] + other[0]),  # one character in sixty: sure
        (body, body[:40]),  # a part
        (body + other[:15], body + other[15:30]),  # alike to 0.6, but each ends in its own way
        (body + other[:15], body + other[:15] + other[15:]),  # the first is a part of the second
        (
            body,
            "".join(other[i] if i % 10 == 5 else c for i, c in enumerate(body)),
        ),  # each tenth character is another
        (body, "".join("囗" if i % 10 == 5 else c for i, c in enumerate(body))),  # and cannot be read
        (body, other),
        (long + other[:10], long + other[20:]),  # little of its own in share, but a sentence of it
        (long + other[:4], long + other[20:]),  # a slip at its end, and more in the other
    ]
    texts = pa.array([text for pair in pairs for text in pair])
    left = np.arange(0, len(texts), 2)
    found = verdicts(texts, left, left + 1, shingle_chars=5, **BOUNDS)  # type: ignore[arg-type]
    assert found.duplicates.tolist() == [True, True, False, True, True, True, False, False, True]
    assert (found.similarity == jaccard(texts, left, left + 1, shingle_chars=5)).all()
