"""Similarity of two texts, exactly, against sets of Python."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa

from ctllm_ray.text import similarity as module
from ctllm_ray.text.codepoints import buffers
from ctllm_ray.text.similarity import jaccard


def _sets(text: str, size: int) -> set[str]:
    return {text[i : i + size] for i in range(max(len(text) - size + 1, 1))} if text else set()


def test_jaccard_equals_that_of_python_sets() -> None:
    rng = random.Random(1)
    texts = ["", "", "天", "天地玄", *("".join(rng.choices("天地玄黄宇宙", k=rng.randrange(60))) for _ in range(40))]
    left, right = (np.array([rng.randrange(len(texts)) for _ in range(300)]) for _ in range(2))
    for size in (1, 3, 7):
        sets = [_sets(text, size) for text in texts]
        want = [len(sets[a] & sets[b]) / max(len(sets[a] | sets[b]), 1) for a, b in zip(left, right, strict=True)]
        arguments = (*buffers(pa.array(texts)), left, right, size)
        assert np.allclose(jaccard(pa.array(texts), left, right, shingle_chars=size), want, atol=1e-6)
        assert (module._jaccard.py_func(*arguments) == module._jaccard(*arguments)).all()  # type: ignore[attr-defined]
