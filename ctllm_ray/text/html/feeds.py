"""Converts RSS and Atom feeds to text: title and body of each item.

Bodies are HTML fragments inside XML, so each goes through the HTML parser, without the search for a main
part: an item is all body. Broken XML, and XML that is not a feed, gives the text of the document with its
tags removed. Entity bombs are refused by expat itself, and then the document counts as broken.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree import ElementTree

from resiliparse.extract.html2text import extract_plain_text

from ctllm_ray.text.html.main_content import ExtractedPage

_DECLARATION = re.compile(r"^\s*<\?xml[^>]*\?>")
# Possessive throughout: with backtracking, a page that begins with comments cost more here than in
# extraction.
_START = re.compile(
    r"\s*+(?:(?:<\?[^>]*+>|<!--(?:(?!-->).)*+-->|<!DOCTYPE[^>]*+>)\s*+)*+<(?:rss|feed|rdf:RDF)\b", re.I | re.S
)
_BODIES = ("encoded", "content", "description", "summary")  # most complete first


def is_feed(text: str) -> bool:
    """Whether a document's root element is RSS, RDF or Atom."""
    return bool(_START.match(text[:2000]))


def extract(text: str) -> ExtractedPage:
    """The feed's title and the text of its items, one paragraph a line."""
    try:
        root = ElementTree.fromstring(_DECLARATION.sub("", text).strip())
    except ElementTree.ParseError:
        return ExtractedPage("", _plain(text))
    items = [element for element in root.iter() if _name(element) in {"item", "entry"}]
    if not items:
        return ExtractedPage("", _plain(text))
    channel = next((e for e in root.iter() if _name(e) == "title"), None)
    lines = [line for item in items for line in _item(item)]
    return ExtractedPage(((channel.text if channel is not None else "") or "").strip(), "\n".join(lines))


def _item(item: ElementTree.Element) -> Iterator[str]:
    parts = {_name(child): child for child in item}
    if (title := parts.get("title")) is not None and title.text:
        yield from _plain(title.text).split("\n")
    body = next((parts[name] for name in _BODIES if name in parts), None)
    if body is not None:
        yield from _plain(body.text or "".join(body.itertext())).split("\n")


def _plain(fragment: str) -> str:
    """The non-empty lines of an HTML fragment's text."""
    text = extract_plain_text(fragment, alt_texts=False, list_bullets=False)
    return "\n".join(line.strip() for line in text.split("\n") if line.strip())


def _name(element: ElementTree.Element) -> str:
    return str(element.tag).rpartition("}")[2]
