"""Detects the language of a document and its share, with CLD2 or any fastText model.

CLD2 (github.com/CLD2Owners/cld2, Apache-2.0; pycld2 ships its tables) is the default because it comes with
the package, tells Simplified from Traditional, and calls a few characters `un` instead of guessing. It reads
a fixed sample: three windows, from the head, the middle and the tail, so that its price does not grow with
the document (25 us a document; on whole texts it runs at 19 MB/s). A fastText model (lid.176, OpenLID,
GlotLID) is named by its path.

CT-LLM's filter keeps what any language scores 0.4 in, whatever the language (docs/reference/ct-llm.md). Here `label`
says which, and `score` is the share of the language that one expects. Measured on documents of 50 characters
and more: classical prose and law are all `zh` or `zh-Hant`, poetry 99.7 % (shorter poems 96.5 %, the rest
`un`). Pages of code score low, so a bound of 0.2 suits: it loses 0.7 % of Chinese documents (7 % of technical
articles) and drops all English, 99.6 % of code and 90 % of keyboard mash.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import pycld2

from ctllm_ray.base.errors import InputError, RecipeError

CLD2 = "cld2"
UNKNOWN = "un"

#: CLD2 rejects these as invalid: control characters and noncharacters. Surrogates cannot be encoded at all.
_NONCHARACTERS = "".join(chr(plane * 0x10000 + last) for plane in range(17) for last in (0xFFFE, 0xFFFF))
_INVALID = re.compile(f"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufdd0-\ufdef\ud800-\udfff{_NONCHARACTERS}]")
_KANA = re.compile("[\u3040-\u30ff\uff66-\uff9f]")

#: ISO 639-3 and fastText's scripts to the labels used here; other labels stay as the model spells them.
_LABELS = {
    "zho": "zh",
    "cmn": "zh",
    "eng": "en",
    "jpn": "ja",
    "kor": "ko",
    "fra": "fr",
    "deu": "de",
    "rus": "ru",
}
#: Labels that count as the expected language: what Chinese text is called, classical and regional written
#: forms too.
_FAMILIES = {"zh": {"zh", "zh-Hant", "lzh", "yue", "wuu", "hak", "nan", "gan"}}


def label(text: str, *, model: str = CLD2, sample_chars: int = 600) -> str:
    """The main language: zh, zh-Hant, en, ja ...; `un` if the text is too short or too mixed to tell.

    `model` is "cld2" or the path of a fastText model; `sample_chars` characters are read, 0 for all.
    """
    return _shares(text, model, sample_chars)[0][0]


def score(text: str, *, model: str = CLD2, expect: str = "zh", sample_chars: int = 600) -> float:
    """How much of the text is in the expected language, 0
    to 1: share of bytes (CLD2) or probability (fastText).

    For `expect` zh the Simplified, Traditional, classical and regional labels count together.
    """
    family = _FAMILIES.get(expect, {expect})
    return min(1.0, sum(share for name, share in _shares(text, model, sample_chars) if name in family))


@lru_cache(maxsize=2)
def _shares(text: str, model: str, sample_chars: int) -> tuple[tuple[str, float], ...]:
    """Labels with their shares, largest first, at least one. The last texts are cached: `label`
    and `score` cost one call."""
    part = _sample(text, sample_chars)
    return _by_cld2(part) if model == CLD2 else _by_fasttext(part, model)


def _sample(text: str, chars: int) -> str:
    """Head, middle and tail of a text, a third of `chars` each; the whole text if it is
    shorter, or if `chars` is 0."""
    if chars <= 0 or len(text) <= chars:
        return text
    width = max(chars // 3, 1)
    middle = (len(text) - width) // 2
    return f"{text[:width]}\n{text[middle : middle + width]}\n{text[-width:]}"


def _by_cld2(text: str) -> tuple[tuple[str, float], ...]:
    try:
        _, _, languages = pycld2.detect(text.encode(), isPlainText=True)
    except (
        pycld2.error,
        UnicodeEncodeError,
        # it rejects control characters and noncharacters: they are rare, so search for them only after a failure
    ):
        _, _, languages = pycld2.detect(_INVALID.sub(" ", text).encode(), isPlainText=True)
    result = tuple((code, percent / 100) for _, code, percent, _ in languages if code != UNKNOWN)
    if not result or (
        result[0][0] == "ja" and not _KANA.search(text)
    ):  # it mistakes short Chinese titles for Japanese
        return ((UNKNOWN, 0.0), *result)
    return result


def _by_fasttext(text: str, path: str) -> tuple[tuple[str, float], ...]:
    line = " ".join(text.split())
    # The public predict() of fasttext 0.9.3 breaks with numpy 2; the binding below it gives plain pairs.
    result = _load(path).f.predict(line + "\n", 10, 0.0, "strict") if line else []
    return tuple((_plain(name), share) for share, name in result) or ((UNKNOWN, 0.0),)


def _plain(name: str) -> str:
    """zh for __label__zho_Hans, zh-Hant for __label__cmn_Hant, en for __label__eng_Latn."""
    language, _, script = name.removeprefix("__label__").partition("_")
    language = _LABELS.get(language, language)
    return "zh-Hant" if language == "zh" and script == "Hant" else language


@cache
def _load(path: str) -> Any:
    try:
        import fasttext
    except ImportError:
        remedy = "pip install 'ctllm-ray[fasttext]', or use the model \"cld2\""
        raise RecipeError(
            "a fastText model is set but fasttext is not installed", where=path, remedy=remedy
        ) from None
    if not Path(path).is_file():
        raise InputError(
            "the language model does not exist",
            where=path,
            remedy='set `model` to a fastText .bin or .ftz file, or to "cld2"',
        )
    try:
        return fasttext.load_model(path)
    except ValueError as error:
        raise InputError(
            f"the file is not a fastText model: {error}", where=path, remedy="download the model again"
        ) from None
