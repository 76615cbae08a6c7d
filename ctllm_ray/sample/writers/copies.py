"""The edits that make planted near-copies: what mirrors, scrapers and republishers do to a page.

Each function takes a text and a seeded random generator and returns the edited text. A deduplication should
find all of them; each breaks another naive key (exact hash, script, width, punctuation, contained passage).
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from functools import cache

import opencc

_HAN = re.compile(r"[一-鿿]")
_SENTENCE = re.compile(r"[^。！？!?\n]+[。！？!?]+[”」』]?")
#: Share of Han characters that `typos` replaces: what a careless retyping or light OCR leaves.
TYPO_SHARE = 0.03
_TO_HALF_WIDTH = str.maketrans("，。：；？！（）“”‘’", ",.:;?!()\"\"''")
_TO_FULL_WIDTH = {
    code: code + 0xFEE0 for code in (*range(0x30, 0x3A), *range(0x41, 0x5B), *range(0x61, 0x7B))
}
_ADS = (
    "【推荐阅读】手机看新闻更方便，扫描下方二维码下载客户端，天天领红包！",
    "（本文由热心网友上传，版权归原作者所有，如有侵权请联系我们删除）",
    "关注公众号“每日一读”，回复“资料”，免费领取 100G 学习大礼包。",
)


def exact(text: str, _random: random.Random) -> str:
    """The same text: it will stand under another url."""
    return text


def typos(text: str, random: random.Random) -> str:
    """3 % of the Han characters replaced by other characters of the same text."""
    places = [m.start() for m in _HAN.finditer(text)]
    pool = sorted({text[i] for i in places})
    characters = list(text)
    for i in random.sample(places, max(1, round(len(places) * TYPO_SHARE))):
        characters[i] = random.choice([c for c in pool if c != characters[i]])
    return "".join(characters)


def sentence_dropped(text: str, random: random.Random) -> str:
    """One sentence from the middle left out."""
    sentences = list(_SENTENCE.finditer(text))[1:-1]
    dropped = random.choice(sentences)
    return text[: dropped.start()] + text[dropped.end() :]


def script_changed(text: str, _random: random.Random) -> str:
    """The other script: Traditional where the text is Simplified, Simplified where it is Traditional."""
    traditional, simplified = (_converter(config).convert(text) for config in ("s2t", "t2s"))
    return max(
        traditional, simplified, key=lambda other: sum(a != b for a, b in zip(text, other, strict=False))
    )


def ad_inserted(text: str, random: random.Random) -> str:
    """An advertisement line between two paragraphs and one at the end."""
    lines = text.split("\n")
    first, last = random.sample(_ADS, 2)
    lines.insert(max(1, len(lines) // 2), first)
    return "\n".join([*lines, last])


def width_changed(text: str, _random: random.Random) -> str:
    """Punctuation in ASCII, digits and Latin letters in full width."""
    return text.translate(_TO_HALF_WIDTH | _TO_FULL_WIDTH)


@cache
def _converter(config: str) -> opencc.OpenCC:
    return opencc.OpenCC(config)


EDITS: dict[str, Callable[[str, random.Random], str]] = {
    edit.__name__: edit
    for edit in (exact, typos, sentence_dropped, script_changed, ad_inserted, width_changed)
}
