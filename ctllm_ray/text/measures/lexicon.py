"""How much of a document is the vocabulary of a trade: gambling, pornography, forged papers, advertisement.

Sensitive words alone say nothing (encyclopaedia, law, news and medicine need them), so these measures give density and
the number of different terms, and the built-in lists keep the words of a subject (category `topic`) apart from the
phrases of those who sell it. A rule should ask for both: `density` over a bound and `distinct_hits` over another.
"""

from __future__ import annotations

from ctllm_ray.text import lexicon


def density(text: str, *, category: str, path: str | None = None) -> float:
    """Letters inside terms of a category, per 1000 characters of text; 0 for an empty text.

    `path` is a folder of own lists, `<category>.txt`, in place of the built-in ones.
    """
    folder = path or lexicon.BUILT_IN
    at = lexicon.load(folder).index(category)
    return 1000.0 * int(lexicon.tally(text, folder).letters[at]) / max(len(text), 1)


def distinct_hits(text: str, *, category: str, path: str | None = None) -> float:
    """Different terms of a category that occur in the text."""
    folder = path or lexicon.BUILT_IN
    at = lexicon.load(folder).index(category)
    return float(lexicon.tally(text, folder).distinct[at])


def evasion_count(text: str, *, category: str, path: str | None = None) -> float:
    """Hits in disguise: with inserted symbols, look-alike or full-width letters; case and script are no disguise."""
    folder = path or lexicon.BUILT_IN
    at = lexicon.load(folder).index(category)
    return float(lexicon.tally(text, folder).evaded[at])
