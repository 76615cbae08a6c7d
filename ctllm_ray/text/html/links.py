"""Removes links from running text: http(s):// and www. addresses, and bare domains, also next to Chinese
characters.

The released CT-LLM filter deletes anything of the form a.b.c.d (so "v1.2.3.4" and IP addresses vanish) and
misses domains that touch a Chinese character, because `\\b` sees no boundary there. Here:

- A link is made of ASCII and ends at the first Chinese character, CJK punctuation mark or blank; punctuation
  that closes a sentence behind it stays. Brackets that hold nothing but the link go with it.
- A bare domain needs a top-level domain from a list, in lower case (ASP.NET is no link). Some of those also
  end file names and code (main.cc, window.top, draw.io): these count only with a path, a digit, a hyphen or a
  third label.
- Version numbers, IP addresses, decimals, file names and mail addresses stay.

Cost: rows are screened by one RE2 search in Arrow; the Python expression runs on rows that may hold a link.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

_SURE = "com|cn|net|org|gov|edu|xyz|wang|ltd"
_DOUBTFUL = (
    "cc|io|me|tv|biz|top|app|co|hk|tw|mo|jp|kr|us|uk|de|fr|ru|eu|au|ca|sg|my|ws|la|pw|win|bid|pro|vip|club|site|online"
    "|shop|store|tech|mobi|asia|icu|ink|ren|bet"
)
_WITH_PATH = "info|live|dev|ai|in|link|fun|red|work"
_FRAMEWORKS = r"(?:asp|vb|ado|java|javax)\.net\b"  # what programmers write in lower case

_URL = r"[A-Za-z0-9._~:/?#@!$&'*+,;=%-]"
_REST = rf"(?:{_URL}|\({_URL}*\))*(?<![.,;:!?'*@])"
_LABEL = r"[A-Za-z0-9][A-Za-z0-9-]{0,62}\."
_START = r"(?<![A-Za-z0-9@._/\\-])"  # not inside a path, a mail address or a longer name
_END = r"(?![A-Za-z0-9_@]|[.-][A-Za-z0-9]|\([!-~])"  # nor a call in code
_PATH = rf"(?::\d{{1,5}})?(?:[/?#]{_REST})?"

_ADDRESS = rf"(?i:https?|ftp)://{_REST}"
_WWW = rf"{_START}(?i:www)\.[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+{_PATH}"
_BARE = (
    rf"{_START}(?!{_FRAMEWORKS})(?:(?:{_LABEL})+(?:{_SURE})|(?:{_LABEL}){{2,}}(?:{_DOUBTFUL})"
    rf"|(?=[a-z]*[0-9-]){_LABEL}(?:{_DOUBTFUL})|{_LABEL}(?:{_DOUBTFUL}|{_WITH_PATH})(?=/[A-Za-z0-9])){_END}{_PATH}"
)
LINK = re.compile(rf"{_ADDRESS}|{_WWW}|{_BARE}")
#: Every link contains this; RE2 and Python read it alike.
SCREEN = r"://|(?i:www)\.|[A-Za-z0-9-]\.[a-z]{2}"

_ASCII = re.compile(r"[!-~]{4,}")
_BRACKETS = {"()", "（）", "<>", "[]", "【】", "「」"}


def remove(texts: pa.Array) -> pa.Array:
    """The texts (a string array without nulls) without links; the same array if there are none."""
    suspect = pc.match_substring_regex(texts, SCREEN)
    old = texts.filter(suspect).to_pylist()
    new = [without_links(text) for text in old]
    return texts if new == old else pc.replace_with_mask(texts, suspect, pa.array(new, texts.type))


def without_links(text: str) -> str:
    """One text without links. Repeats until none is left: removing a link may form another."""
    while (shorter := _once(text)) != text:
        text = shorter
    return text


def spans(text: str) -> Iterator[tuple[int, int]]:
    """Start and stop (in characters) of each link. Only runs of visible ASCII
    with a dot or :// are searched."""
    for stretch in _ASCII.finditer(text):
        if "." in stretch[0] or "://" in stretch[0]:
            yield from (match.span() for match in LINK.finditer(text, *stretch.span()))


def _once(text: str) -> str:
    pieces, kept = [], 0
    for start, stop in spans(text):
        if start > kept and text[start - 1] + text[stop : stop + 1] in _BRACKETS:
            start, stop = start - 1, stop + 1
        pieces += [text[kept:start], _gap(text[start - 1 : start], text[stop : stop + 1])]
        kept = stop
    return "".join([*pieces, text[kept:]])


def _gap(before: str, after: str) -> str:
    """What replaces a link: a space if two words would run together, else nothing."""
    return " " if (before + after).isascii() and before.isalnum() and after.isalnum() else ""
