"""Decodes the bytes of a page: finds the real charset, how sure that is, and what the evidence was.

The ladder: byte order mark, HTTP header, <meta> or XML declaration, then the bytes themselves. Headers lie,
so a declaration is a prior and not a verdict: each candidate charset decodes a sample of the page,
`likelihood` says how much the result reads like Chinese, undecodable bytes cost, a declaration earns
`DECLARED` and the host's country `HOST`; the best sum wins. A page that says gbk and is UTF-8, or says
Latin-1 and is Chinese, comes out right; so does one that says nothing. Labels widen as in the WHATWG Encoding
Standard: gb2312 and gbk mean GB18030, big5 means Big5-HKSCS, latin-1 means windows-1252.

Cost: declared, valid UTF-8 is one strict decode (about 1 GB/s). Otherwise the ASCII is left out (it reads the
same in every candidate) and at most `SAMPLE_BYTES` of the rest are tried.
"""

from __future__ import annotations

import codecs
import math
import re
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

from ctllm_ray.text.encoding.likelihood import likelihood

Evidence = Literal["bom", "http", "meta", "score", "ascii"]

SAMPLE_BYTES = (
    32 << 10
)  # of non-ASCII content, half from the start, half from the middle: about 10,000 characters
HEAD_BYTES = 4 << 10  # where a declaration is searched; HTML requires it in the first 1024
#: So many two-byte sequences without an error prove UTF-8: GB text passes each with a chance of 1 in 5.
CERTAIN_SEQUENCES = 12

# In units of `likelihood`: the right charset of a Chinese page has 1 to 3, a wrong one less than 0.
DECLARED = 0.8
HOST = 0.2
ERROR_COST = 12.0  # times the share of bytes that do not decode
STRUCTURE = 0.35  # for each valid UTF-8 sequence, up to CERTAIN_SEQUENCES
CLEAR = 1.5  # at this score of a Chinese candidate, foreign ones are not tried
FOREIGN_COST = 0.5  # other legacy charsets need a clear lead or a declaration to beat the Chinese ones

_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_WIDER = {
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "hz": "hz",
    "big5": "big5hkscs",
    "cp950": "big5hkscs",
    "iso8859-1": "cp1252",
    "ascii": "cp1252",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "utf-8-sig": "utf-8",
    "utf-16": "utf-16-le",
}
_CHINESE = ("gb18030", "big5hkscs")
_FOREIGN = ("cp1252", "cp932", "euc_jp", "cp949")
_HTTP = re.compile(r"charset\s*=\s*[\"']?\s*([\w.:+-]+)", re.IGNORECASE)
_META = re.compile(
    rb"<meta[^>]{0,300}?charset\s*=\s*[\"']?\s*([\w.:+-]+)|<\?xml[^>]{0,100}?encoding\s*=\s*[\"']([\w.:+-]+)",
    re.IGNORECASE,
)
_HOST = re.compile(r"^\w+://[^/?#]*?\.(tw|hk|mo|cn)(?::\d+)?(?:[/?#]|$)", re.IGNORECASE)


@dataclass(frozen=True)
class DecodedText:
    """A page's text, the Python name of its charset, the confidence (0 to 1),
    and the evidence that decided."""

    text: str
    charset: str
    confidence: float
    evidence: Evidence


def decode(raw: bytes, content_type: str | None, url: str | None = None) -> DecodedText:
    """Decodes a page and explains the choice of charset. Never raises: undecodable bytes become U+FFFD.

    `content_type` is the HTTP header, charset parameter included, where there is one.
    """
    for bom, charset in _BOMS:
        if raw.startswith(bom):
            text = raw[len(bom) :].decode(charset, "replace")
            return DecodedText(text, charset, 1.0 - _lost_share(text), "bom")
    hints = _hints(raw, content_type)
    if raw.isascii() and not {"hz", "utf-16-le", "utf-16-be"} & set(hints):
        return DecodedText(raw.decode("ascii"), "utf-8", 1.0, "ascii")
    return _as_utf8(raw, hints) or _by_score(raw, hints, url)


def _hints(raw: bytes, content_type: str | None) -> dict[str, Evidence]:
    """Declared charsets and where each was declared, most trusted first."""
    hints: dict[str, Evidence] = {}
    if content_type and (header := _HTTP.search(content_type)):
        hints[_canonical(header[1])] = "http"
    for match in _META.finditer(raw[:HEAD_BYTES]):
        hints.setdefault(_canonical((match[1] or match[2]).decode("ascii", "replace")), "meta")
    hints.pop("", None)
    return hints


@cache
def _canonical(label: str) -> str:
    """Python's name of the charset that browsers use for a label; empty for an unknown label."""
    try:
        info = codecs.lookup(
            label.strip().lower().replace("x-", "", 1) if label.lower().startswith("x-") else label
        )
    except LookupError:
        return ""
    return _WIDER.get(info.name, info.name) if info._is_text_encoding else ""


def _as_utf8(raw: bytes, hints: dict[str, Evidence]) -> DecodedText | None:
    """The page as UTF-8 if its structure leaves no doubt; None if the score must decide."""
    try:
        text, lost = raw.decode("utf-8"), 0.0
    except UnicodeDecodeError as error:
        if error.reason != "unexpected end of data":
            return None
        text, lost = raw[: error.start].decode("utf-8"), 0.02  # cut within the last character
    declared = hints.get("utf-8")
    # a two-byte sequence makes 1 byte more than characters, a longer one 2 or 3
    if declared is None and len(raw) - len(text) < CERTAIN_SEQUENCES:
        return None
    return DecodedText(text, "utf-8", 1.0 - lost, declared or "score")


def _by_score(raw: bytes, hints: dict[str, Evidence], url: str | None) -> DecodedText:
    """The candidate with the highest sum of likelihood and priors."""
    sample = _sample(raw)
    expected = _expected_charset(url)

    def score(charset: str) -> float:
        return _score(sample, charset) + DECLARED * (charset in hints) + HOST * (charset == expected)

    scores = {charset: score(charset) for charset in dict.fromkeys([*hints, "utf-8", *_CHINESE])}
    if max(scores.values()) < CLEAR:
        scores |= {charset: score(charset) for charset in _FOREIGN}
    best, second = sorted(scores, key=scores.__getitem__, reverse=True)[:2]
    text = raw.decode(best, "replace")
    if best == "utf-8" and text.endswith("�"):
        text = text.rstrip("�")
    return DecodedText(
        text, best, _confidence(scores[best] - scores[second], len(sample), text), hints.get(best, "score")
    )


def _expected_charset(url: str | None) -> str:
    """The usual charset of the host's country before UTF-8; empty if the URL does not tell."""
    match = _HOST.match(url or "")
    return "" if match is None else "gb18030" if match[1].lower() == "cn" else "big5hkscs"


def _score(sample: bytes, charset: str) -> float:
    """The likelihood of the sample in a charset, minus the cost of its undecodable bytes."""
    text = sample.decode(charset, "replace")
    valid = text.replace("�", "")
    errors = (len(text) - len(valid)) / max(1, len(sample))
    prior = -FOREIGN_COST if charset not in ("utf-8", *_CHINESE) else 0.0
    if charset == "utf-8" and not errors:
        prior = STRUCTURE * min(CERTAIN_SEQUENCES, len(sample) - len(text))
    return likelihood(valid) - ERROR_COST * errors + prior


def _sample(raw: bytes) -> bytes:
    """Non-ASCII bytes from the start and the middle, each with the next byte: it may be
    the second half of a pair."""
    data = np.frombuffer(raw, np.uint8)
    keep = data >= 0x80
    keep[1:] |= keep[:-1].copy()
    beyond = data[keep]
    if len(beyond) <= SAMPLE_BYTES:
        return beyond.tobytes()
    # No character spans these bytes: a byte below 0x30 (space, line end) is never a second byte.
    starts = np.flatnonzero((data >= 0x80) & np.concatenate(([True], data[:-1] < 0x30)))
    middle = starts[np.searchsorted(starts, len(raw) // 2) - 1] if len(starts) else 0
    half = SAMPLE_BYTES // 2
    return beyond[:half].tobytes() + b"\n" + data[middle:][keep[middle:]][:half].tobytes()


def _confidence(margin: float, sample_bytes: int, text: str) -> float:
    """Confidence: 0.5 for a tie, rising towards 1 with margin and evidence, lowered by losses."""
    weight = min(1.0, math.sqrt(sample_bytes / 200))
    return max(0.0, 1.0 - 0.5 * math.exp(-2.0 * margin * weight) - _lost_share(text))


def _lost_share(text: str) -> float:
    """Ten times the share of U+FFFD among the characters, at most 0.5: one per
    ten characters ruins a page."""
    return min(0.5, 10.0 * text.count("�") / max(1, len(text)))
