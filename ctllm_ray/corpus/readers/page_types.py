"""Which Content-Types of the web are pages, and what the others are called where they are counted."""

from __future__ import annotations

import re

_PAGES = re.compile(
    r"text/(?:x?html?|plain|xml|x-server-parsed-html)|x?html?|application/(?:(?:[\w.-]+\+)?xml|xhtml)"
)
_UNKNOWN = {"", "application/octet-stream", "binary/octet-stream", "application/unknown", "unknown/unknown",
            "application/x-unknown", "content/unknown", "unknown", "*/*", "none", "null"}  # fmt: skip
_KNOWN = ("css", "javascript", "json", "pdf", "zip", "flash")
_TYPE = re.compile(r"[\s\"']*([\w.+*-]+(?:/[\w.+*-]+)?)")
#: How files of other kinds begin: PDF, images, archives, documents of Office.
MAGIC = (
    b"%PDF-",
    b"\x89PNG",
    b"GIF8",
    b"\xff\xd8\xff",
    b"PK\x03\x04",
    b"\x1f\x8b\x08",
    b"Rar!",
    b"\xd0\xcf\x11\xe0",
)
_BINARY = (*MAGIC, b"\x1f\x8b", b"RIFF", b"\x00\x00\x01\x00", b"OggS", b"ID3", b"FWS", b"CWS", b"wOF", b"\x7fELF",
           b"MZ\x90")  # fmt: skip
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_SNIFFED_BYTES = 1024


def skipped_as(content_type: str, content: bytes) -> str:
    """Why content of that type is no page; empty if it is one. Where the type says nothing, the bytes decide.

    Types are taken as the web writes them: parameters after a blank, lists, quotes, `html` alone.
    """
    match = _TYPE.match(content_type)
    kind = match[1].lower() if match else ""
    if kind in _UNKNOWN:
        return "not_text" if _is_binary(content) else ""
    if _PAGES.fullmatch(kind) and "svg" not in kind:
        return ""
    major, _, minor = kind.partition("/")
    if major in ("image", "audio", "video", "font"):
        return major
    return next((name for name in _KNOWN if name in minor), "other_type")


def _is_binary(content: bytes) -> bool:
    first = content[:_SNIFFED_BYTES]
    return first.startswith(_BINARY) or (b"\0" in first and not first.startswith(_UTF16))
