"""Measures how much of a document is the vocabulary of
a trade: gambling, pornography, forged papers, adverts.

Sensitive words alone say nothing (encyclopaedia, law, news and medicine need them), so these measures give
density and the number of different terms, and the built-in lists keep the words of a subject (category
`topic`) apart from the phrases of those who sell it.

Bounds, with the share of 37,000 documents of clean genres (law, news, wiki, classical, poetry, essays ...)
beyond them: each of gambling, porn, loan, medical_ads, black_market, game_private_server at density 8: 0.04 %
and less, 0.1 % for all together, 0.003 % with `min_distinct: 2`; spam_ads at 40: 0.16 % (30 % of spam SMS),
with two terms 0.08 % (12 %); seo_keywords at 100 with two terms: 0.003 %, and all pages of strung keywords.
`topic` is for labels: at density 8 it marks 4 % of laws and news.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from ctllm_ray.text import lexicon
from ctllm_ray.text.kernels.codepoints import lengths


def density(texts: pa.Array, *, category: str, path: str | None = None, min_distinct: int = 1) -> np.ndarray:
    """Letters inside terms of a category, per 1000 characters of text; 0 for an empty text.

    0 also where fewer than `min_distinct` different terms occur: one word may be a name, several are a
    vocabulary. `path` is a folder of own lists, `<category>.txt`, in place of the built-in ones.
    """
    tally, at = _tally(texts, path, category)
    share = 1000 * tally.letters[:, at] / np.maximum(lengths(texts), 1)
    return np.where(tally.distinct[:, at] >= max(min_distinct, 1), share, 0)


def distinct_hits(texts: pa.Array, *, category: str, path: str | None = None) -> np.ndarray:
    """Different terms of a category that occur in the text."""
    tally, at = _tally(texts, path, category)
    return tally.distinct[:, at]


def evasion_count(texts: pa.Array, *, category: str, path: str | None = None) -> np.ndarray:
    """Disguised hits: inserted symbols, look-alike or full-width letters. Case
    and script are not a disguise."""
    tally, at = _tally(texts, path, category)
    return tally.evaded[:, at]


def _tally(texts: pa.Array, path: str | None, category: str) -> tuple[lexicon.MatchTally, int]:
    folder = path or lexicon.BUILT_IN
    return lexicon.tally(texts, folder), lexicon.load(folder).index(category)
