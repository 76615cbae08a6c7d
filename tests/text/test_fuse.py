"""The fused kernel: compiled equals interpreted, and each view agrees with a plain definition of it."""

from __future__ import annotations

import math
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ctllm_ray.base.resolve import MEASURES, names, resolve
from ctllm_ray.text.kernels import characters, codepoints, fuse, views

SAMPLES = [
    "",
    "。",
    "\n\n\n",
    "天地玄黄，宇宙洪荒。日月盈昃，辰宿列张。",
    "白日依山尽，黄河入海流。\n欲穷千里目，更上一层楼。",
    "“好的。”他说，“明天见。”\n\n他走了……",
    "哈哈哈哈哈哈哈哈哈哈",
    "A𠀀B😀C\u200d\ufeff\x00\ue000 １２３ 123",
    "第一条 为了规范市场秩序，制定本法。\n第二条　本法自公布之日起施行。",
    "• 首页\n• 新闻\n• 更多",
    "これは日本語の文章です。漢字もあります。",
    "同一段话反复出现。" * 30,
]


def kernel_lines() -> tuple[fuse.Line, ...]:
    found: list[fuse.Line] = []
    for name in names(MEASURES):
        if not fuse.is_kernel(name):
            continue
        wants_n = (
            "n" in resolve(MEASURES, name).__kwdefaults__ or {}
            if resolve(MEASURES, name).__kwdefaults__
            else False
        )
        wants_n = wants_n or "n" in resolve(MEASURES, name).__annotations__
        found += [(name, (("n", n),)) for n in range(2, 11)] if wants_n else [(name, ())]
    return tuple(found)


def points(text: str) -> np.ndarray:
    return np.array([ord(c) for c in text], np.uint32)


def random_texts(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    alphabet = "的一是了我不人在他有这个上们来到时大地为子中你说生国年着就那和要，。！？\n 　abcXYZ019𠀀😀“”"
    return ["".join(draw.choices(alphabet, k=draw.randrange(0, 400))) for _ in range(count)]


def test_compiled_equals_interpreted() -> None:
    lines = kernel_lines()
    texts = pa.array(SAMPLES + random_texts(20, 1))
    reference = np.zeros((len(texts), len(lines)), np.float32)
    with np.errstate(over="ignore"):
        fuse.interpret(lines)(*codepoints.buffers(texts), characters.table(), reference)
    np.testing.assert_allclose(fuse.measure(texts, lines), reference, rtol=1e-6, equal_nan=True)


def test_an_empty_document_measures_without_error_and_is_finite_or_nan_only_where_said() -> None:
    lines = kernel_lines()
    values = dict(zip([name for name, _ in lines], fuse.measure(pa.array([""]), lines)[0], strict=True))
    assert {name for name, value in values.items() if math.isnan(value)} == {"script.traditional_share"}


def test_decode_then_encode_is_the_identity_on_utf8() -> None:
    for text in [*SAMPLES, *random_texts(30, 2)]:
        data = text.encode()
        decoded = codepoints.decode(np.frombuffer(data, np.uint8), 0, len(data))
        assert decoded.tolist() == [ord(c) for c in text]
        out = np.zeros(len(data) + 4, np.uint8)
        stop = codepoints.encode(decoded, out, 0)
        assert out[:stop].tobytes() == data


def test_a_sliced_arrow_array_measures_as_the_whole() -> None:
    texts = pa.array(SAMPLES)
    lines: tuple[fuse.Line, ...] = (("document.char_count", ()),)
    assert fuse.measure(texts.slice(3, 4), lines)[:, 0].tolist() == [len(t) for t in SAMPLES[3:7]]


def covered_by_definition(text: str, n: int) -> tuple[int, int, int]:
    grams = [text[i : i + n] for i in range(len(text) - n + 1)]
    counts = Counter(grams)
    covered = {k for i, g in enumerate(grams) if counts[g] > 1 for k in range(i, i + n)}
    return len(covered), max(counts.values(), default=0), sum(1 for _ in covered)


@pytest.mark.parametrize("seed", range(5))
def test_repeats_count_each_covered_position_once(seed: int) -> None:
    for text in [*random_texts(20, seed), "天地玄黄" * 9 + "宇宙", "啊" * 50]:
        if len(text) < 2:
            continue
        with np.errstate(over="ignore"):
            found = views.repeats(views.char_ids(points(text)))
        for n in range(2, 11):
            covered, top, _ = covered_by_definition(text, n)
            assert found[n, 0] == covered, (text, n)
            if top > 1:
                assert found[n, 1] == top, (text, n)


def test_top_ngram_covers_its_positions_once() -> None:
    with np.errstate(over="ignore"):
        found = views.repeats(views.char_ids(points("啊" * 50 + "好的呢")))
    assert found[2].tolist() == [50, 49, 50]


def test_real_documents_agree_with_the_definition_of_coverage(shared_data: Path) -> None:
    import orjson
    import zstandard

    raw = (
        zstandard.ZstdDecompressor()
        .stream_reader((shared_data / "web_zh_raw/part-003.jsonl.zst").open("rb"))
        .read()
    )
    records = [orjson.loads(line).get("raw_content") for line in raw.splitlines()[:400]]
    texts = [t for t in records if t and len(t) > 200][:60]
    lines: tuple[fuse.Line, ...] = tuple(("repetition.covered_share", (("n", n),)) for n in (2, 5, 10))
    values = fuse.measure(pa.array(texts), lines)
    for text, row in zip(texts, values, strict=True):
        expected = [covered_by_definition(text, n)[0] / len(text) for n in (2, 5, 10)]
        np.testing.assert_allclose(row, expected, rtol=1e-6)


def test_windowed_entropy_does_not_grow_with_length() -> None:
    page = "".join(chr(0x4E00 + (i * 7919) % 600) for i in range(256))
    short, long = (views.windows(views.char_ids(points(page * k))) for k in (1, 8))
    np.testing.assert_allclose(short, long, rtol=1e-9)


def test_windows_of_a_short_text_are_the_entropy_of_the_text() -> None:
    counts = Counter("春眠不觉晓处处闻啼鸟")
    entropy = -sum(c / 10 * math.log(c / 10) for c in counts.values())
    np.testing.assert_allclose(views.windows(views.char_ids(points("春眠不觉晓处处闻啼鸟"))), [entropy, 0.9])
