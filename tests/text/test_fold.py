"""Folding: what is one text under the key, what stays another, and the laws of the table."""

from __future__ import annotations

import json
import random
import unicodedata
from pathlib import Path

import opencc
import pyarrow as pa
import pytest
import zstandard

from ctllm_ray.text.dedup import fold as module
from ctllm_ray.text.dedup.fold import TABLE_END, fold, fold_text, table
from ctllm_ray.text.kernels.codepoints import buffers

TEXT = "头发发展了，台湾的后面有12.50元（含税）的 Hello 世界！"


@pytest.fixture(scope="module")
def pages(shared_data: Path) -> list[str]:
    """The first pages of a raw crawl in both scripts."""
    packed = (shared_data / "web_zh_raw" / "part-000.jsonl.zst").read_bytes()
    lines = zstandard.ZstdDecompressor().decompressobj().decompress(packed).decode().split("\n")[:800]
    return [text for line in lines if line and (text := json.loads(line).get("raw_content"))]


def _full_width(text: str) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else "\u3000" if c == " " else c for c in text)


def _repunctuated(text: str, seed: int) -> str:
    rng = random.Random(seed)
    marks = ["，", " ", "\n", "……", "", "★"]
    return "".join(rng.choice(marks) if unicodedata.category(c)[0] in "PZ" or c == "\n" else c for c in text)


def test_script_width_case_punctuation_and_space_do_not_count() -> None:
    want = fold_text(TEXT)
    for twin in [
        opencc.OpenCC("s2t").convert(TEXT),
        opencc.OpenCC("s2tw").convert(TEXT),
        _full_width(TEXT),
        TEXT.upper(),
        _repunctuated(TEXT, 1),
        f"🎉{TEXT}\ufe0f\u200b\ue123",
    ]:
        assert twin != TEXT
        assert fold_text(twin) == want


def test_other_words_and_other_numbers_count() -> None:
    for other in [
        TEXT.replace("后", "前"),
        TEXT.replace("12", "13"),
        TEXT + "吗",
        TEXT.replace("Hello", "Hallo"),
    ]:
        assert fold_text(other) != fold_text(TEXT)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("25℃ 爱™", "25c爱tm"),
        ("㎡①⑩Ⅳ", "m2110iv"),
        ("ﬁ Straße ﷺ", "fistrasseصلىاللهعليهوسلم"),
        ("٣٤ ３４", "3434"),
        ("瞭解着作", "了解着作"),
        ("𠀀\U000320b0", "𠀀\U000320b0"),
        ("。！……\u3000😀\ufffd\ue000", ""),
        ("", ""),
    ],
)
def test_cases_worked_by_hand(text: str, want: str) -> None:
    assert fold_text(text) == want


def test_masked_digits_make_one_zero_of_each_run() -> None:
    assert fold_text("价格 12.50 元，第３章", digits="mask") == "价格0元第0章"
    assert fold_text("1", digits="mask") == fold_text("１２３", digits="mask") == "0"
    assert fold_text("第三条", digits="mask") == "第三条"


@pytest.mark.parametrize("digits", ["keep", "mask"])
def test_folding_twice_is_folding_once_for_every_code_point(digits: module.Digits) -> None:
    every = pa.array([chr(point) for point in range(TABLE_END + 0x100) if not 0xD800 <= point < 0xE000])
    once = fold(every, digits=digits)
    assert fold(once, digits=digits).equals(once)


def test_canonically_equal_characters_fold_alike() -> None:
    every = [chr(point) for point in range(TABLE_END) if not 0xD800 <= point < 0xE000]
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        other = [unicodedata.normalize(form, c) for c in every]  # type: ignore[arg-type]
        assert fold(pa.array(other)).equals(fold(pa.array(every)))


def test_a_text_folds_as_its_characters_do_whatever_stands_beside_it(pages: list[str]) -> None:
    together = fold(pa.array(pages[:50]))
    assert together.to_pylist() == ["".join(fold(pa.array(list(page))).to_pylist()) for page in pages[:50]]
    assert fold(pa.array(pages[:50]).slice(7, 9)).equals(together.slice(7, 9))


@pytest.mark.parametrize("script", ["t2s", "s2t", "s2tw", "s2hk"])
def test_real_pages_and_their_twins_in_another_script_fold_alike(script: str, pages: list[str]) -> None:
    convert = opencc.OpenCC(script).convert
    twins = fold(pa.array([convert(page) for page in pages]))
    equal = [a == b for a, b in zip(twins.to_pylist(), fold(pa.array(pages)).to_pylist(), strict=True)]
    assert sum(equal) >= 0.99 * len(equal)  # the rest: phrases whose characters no table pairs


def test_real_pages_and_their_twins_in_width_and_punctuation_fold_alike(pages: list[str]) -> None:
    want = fold(pa.array(pages))
    assert fold(pa.array([_full_width(page) for page in pages])).equals(want)
    assert fold(pa.array([_repunctuated(page, i) for i, page in enumerate(pages)])).equals(want)


def test_interpreted_and_compiled_folding_agree(pages: list[str]) -> None:
    texts = pa.array([*pages[:20], "㎡" * 100 + "ﷺ" * 50, ""])
    for mask in (False, True):
        want = module._fold_batch.py_func(*buffers(texts), *table(), mask)  # type: ignore[attr-defined]
        got = module._fold_batch(*buffers(texts), *table(), mask)
        assert all((a == b).all() for a, b in zip(want, got, strict=True))


def test_no_rows_fold_to_no_rows() -> None:
    assert len(fold(pa.array([], pa.string()))) == 0
