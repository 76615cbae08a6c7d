"""Measures of repeated character n-grams, n = 2..10, each position counted once.

Gopher (arXiv 2112.11446, table A1) counts words; Chinese has none without a segmenter, so n counts
characters, as in CT-LLM. The released CT-LLM code counts distinct characters instead of positions, which
falls as a text grows and can hardly trip (reference.md); positions do not.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ctllm_ray.text.measures.document import _ratio

Length = Annotated[int, Field(ge=2, le=10)]


def covered_share(repeats, char_ids, *, n: Length):
    """Positions covered by n-grams that occur twice or more, first occurrences included, over code points."""
    return _ratio(repeats[n, 0], len(char_ids))


def top_ngram_share(repeats, char_ids, *, n: Length):
    """Positions covered by the most frequent n-gram over code points; 0 where none occurs twice."""
    return _ratio(repeats[n, 2], len(char_ids))
