"""Damages clean texts: wrong decoding, markup residue, control characters, repetition, injected lines.

Mojibake is made by really decoding with the wrong codec, so it has exactly the holes that real
mojibake has. Each function takes a clean text and a seeded random generator; the clean text stays in
`stock` to compare a repair with.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

_SENTENCE = re.compile(r"[^。！？\n]+[。！？]+[”」』]?")
_CONTROLS = (
    "\x00",
    "\x01",
    "\x07",
    "\x08",
    "\x0b",
    "\x0c",
    "\x1b",
    "\x7f",
    "\u200b",
    "\u200e",
    "\ufeff",
    "\u00ad",
)
_INJECTED = (
    "澳门新葡京娱乐场_注册送58元_真人百家乐官网 www.xpj5858.example",
    "最新菠菜平台推荐，首存送100%，加薇信 bocai6868",
    "幸运飞艇全天计划，导师带你稳赚，QQ 群 100000088",
    "无抵押贷款，黑户可做，当天放款，电话 170-0000-0011",
)
_TAGS = (
    '<p style="text-indent:2em;line-height:1.75;">{}</p>',
    "<div class=&quot;content&quot;><span>{}</span><br />",
    '{}&nbsp;&nbsp;<a href="javascript:void(0)" target="_blank" onclick="share()">分享</a>',
    '<td><img src="/upload/2019/05.jpg" alt="" />{}</td></tr>',
    "&lt;strong&gt;{}&lt;/strong&gt;&amp;nbsp;",
    "{}<!--[if gte mso 9]><xml><w:WordDocument></w:WordDocument></xml><![endif]-->",
)


def mojibake_utf8_as_gbk(text: str, _random: random.Random) -> str:
    """Those sentences whose UTF-8 bytes are also valid GB18030, read as such (浣犲ソ): exactly reversible."""
    return _reversible(text, "utf-8", "gb18030")


def mojibake_utf8_as_gbk_lossy(text: str, _random: random.Random) -> str:
    """The whole text's UTF-8 bytes read as GBK, replacement characters where that fails: cannot be undone."""
    return text.encode().decode("gbk", errors="replace")


def mojibake_gbk_as_latin1(text: str, _random: random.Random) -> str:
    """GB18030 bytes read as Latin-1 (ÄãºÃ): exactly reversible."""
    return _misread(text, "gb18030", "latin-1")


def mojibake_utf8_as_latin1(text: str, _random: random.Random) -> str:
    """UTF-8 bytes read as Latin-1 (ä½\xa0å¥½): exactly reversible."""
    return _misread(text, "utf-8", "latin-1")


def mojibake_big5_as_gbk(text: str, _random: random.Random) -> str:
    """Those sentences whose Big5 bytes are also valid GB18030, read as such (斕疑): exactly reversible."""
    return _reversible(text, "big5", "gb18030")


def mojibake_ghosts(text: str, _random: random.Random) -> str:
    """锟斤拷: GBK read as UTF-8, then its U+FFFD written as UTF-8 and read as GBK: nothing is left to repair."""
    return text.encode("gb18030").decode("utf-8", errors="replace").encode().decode("gbk", errors="replace")


def mojibake_paragraph(text: str, _random: random.Random) -> str:
    """A clean text with its second paragraph as UTF-8 read as Latin-1."""
    lines = text.split("\n")
    lines[1] = _misread(lines[1], "utf-8", "latin-1")
    return "\n".join(lines)


def html_residue(text: str, random: random.Random) -> str:
    """Tags, entities and comments left around every paragraph."""
    return "\n".join(random.choice(_TAGS).format(line) for line in text.split("\n"))


def control_characters(text: str, random: random.Random) -> str:
    """A control or invisible character after about every twelfth character."""
    return "".join(c + random.choice(_CONTROLS) if random.random() < 1 / 12 else c for c in text)


def repeated_line(text: str, random: random.Random) -> str:
    """One sentence of the text, forty lines long."""
    return "\n".join([random.choice(_SENTENCE.findall(text))] * 40)


def repeated_block(text: str, _random: random.Random) -> str:
    """The first two paragraphs eight times over: what a broken template prints."""
    return "\n".join(text.split("\n")[:2] * 8)


def repeated_phrase(text: str, random: random.Random) -> str:
    """A phrase of seven characters two hundred times without a line break."""
    start = random.randrange(len(text) - 7)
    return text[start : start + 7].replace("\n", "") * 200


def injected_lines(text: str, random: random.Random) -> str:
    """A clean text with two lines of spam between its paragraphs; cutting the lines repairs it."""
    lines = text.split("\n")
    for line in random.sample(_INJECTED, 2):
        lines.insert(random.randint(1, len(lines)), line)
    return "\n".join(lines)


def _reversible(text: str, written: str, read: str) -> str:
    """Runs of one to three sentences, one per line, that survive
    encoding with one codec and strict decoding with another.

    Runs, because two-byte codecs pair up bytes across sentences. Without the last full stop, because 82, its
    third byte in UTF-8, starts a pair that the line's end breaks off: there every such page has U+FFFD.
    """
    lines = []
    for paragraph in text.split("\n"):
        sentences = _SENTENCE.findall(paragraph)
        while sentences:
            runs = {count: "".join(sentences[:count]).rstrip("。") for count in (3, 2, 1)}
            count = next((count for count, run in runs.items() if _fits(run, written, read)), 0)
            if count:
                lines.append(_misread(runs[count], written, read))
            del sentences[: count or 1]
    return "\n".join(lines)


def _fits(text: str, written: str, read: str) -> bool:
    try:
        _misread(text, written, read)
    except UnicodeError:
        return False
    return True


def _misread(text: str, written: str, read: str) -> str:
    """The text as a browser shows it. Raises `UnicodeError` if it would show U+FFFD.

    Browsers read a lone 80 as the euro sign in GBK, which Python's codec refuses.
    """
    content = text.encode(written)
    if read != "gb18030":
        return content.decode(read)
    shown, i = [], 0
    while i < len(content):
        size = 1 if content[i] <= 0x80 else 2
        shown.append("€" if content[i] == 0x80 else content[i : i + size].decode(read))
        i += size
    return "".join(shown)


DEFECTS: dict[str, Callable[[str, random.Random], str]] = {
    defect.__name__: defect
    for defect in (
        mojibake_utf8_as_gbk, mojibake_utf8_as_gbk_lossy, mojibake_gbk_as_latin1, mojibake_utf8_as_latin1,
        mojibake_big5_as_gbk, mojibake_ghosts, mojibake_paragraph, html_residue, control_characters,
        repeated_line, repeated_block, repeated_phrase, injected_lines,
    )
}  # fmt: skip
