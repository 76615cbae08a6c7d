"""The stage that turns raw pages into text: decodes the charset, then extracts HTML, a feed or plain text.

It works on rows whose `text` is null and whose `raw` is set; rows that came with text pass untouched. After
success `raw` is null: only records that could not be read keep their bytes. A page without main text gets the
text "", which the recipe's length rule then rejects with a reason that `why` can show.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctllm_ray.corpus.readers.page_types import MAGIC
from ctllm_ray.shards import schema
from ctllm_ray.text.encoding import charset
from ctllm_ray.text.html import feeds, main_content
from ctllm_ray.text.html.main_content import Engine, ExtractedPage

LABELS = ("charset",)
SCORES = ("charset.confidence",)

_NOT_TEXT = re.compile(
    r"\s*(?:image|audio|video|font)/|\s*application/(?:pdf|zip|gzip|msword|x-shockwave|vnd\.)", re.I
)
_TAG = re.compile(r"<(?:!doctype|html|head|body|div|p|br|table|span|a|h[1-6]|title|meta|ul|article)\b", re.I)
_SNIFFED_CHARS = 4096
_NO_PAGE = ExtractedPage("", "")


@dataclass(frozen=True)
class _Outcome:
    """The result of one row: a page with its charset, or the name of an error and no page."""

    page: ExtractedPage
    charset: str | None = None
    confidence: float | None = None
    error: str | None = None


def extract(
    table: pa.Table,
    *,
    engine: Engine = "stretches",
    max_page_bytes: int = 16 << 20,
    error_raw_bytes: int = 4096,
) -> pa.Table:
    """The table with text, title and charset of its raw pages.

    Rejects: `error.page_too_large` above `max_page_bytes`, `error.not_text` for images, PDF and the like, and
    `error.extraction` where the extractor fails; these rows keep the first `error_raw_bytes` of `raw`.
    """
    waiting = pc.and_(pc.and_(table["reject"].is_null(), table["text"].is_null()), table["raw"].is_valid())
    rows = np.flatnonzero(waiting.to_numpy())
    pages = table.select(["raw", "content_type", "url"]).take(rows).to_pylist()
    outcomes = {
        int(row): _outcome(page["raw"], page["content_type"], page["url"], engine, max_page_bytes)
        for row, page in zip(rows, pages, strict=True)
    }
    return _with_charset(_fill_columns(table, outcomes, error_raw_bytes) if outcomes else table, outcomes)


def _outcome(
    raw: bytes, content_type: str | None, url: str | None, engine: Engine, max_page_bytes: int
) -> _Outcome:
    if len(raw) > max_page_bytes:
        return _Outcome(_NO_PAGE, error="error.page_too_large")
    if raw.startswith(MAGIC) or _NOT_TEXT.match(content_type or ""):
        return _Outcome(_NO_PAGE, error="error.not_text")
    decoded = charset.decode(raw, content_type, url)
    try:
        page = _page(decoded.text, content_type or "", engine)
    except (KeyboardInterrupt, SystemExit):
        raise
    except (
        BaseException
    ):  # a page must never stop a run, whatever a library raises: a Rust panic is not an Exception
        return _Outcome(_NO_PAGE, decoded.charset, decoded.confidence, "error.extraction")
    return _Outcome(page, decoded.charset, decoded.confidence)


def _page(text: str, content_type: str, engine: Engine) -> ExtractedPage:
    if "text/plain" in content_type.lower():
        return ExtractedPage("", text)
    if feeds.is_feed(text):
        return feeds.extract(text)
    if "html" in content_type.lower() or _TAG.search(text[:_SNIFFED_CHARS]):
        return main_content.extract(text, engine=engine)
    return feeds.extract(text) if "xml" in content_type.lower() else ExtractedPage("", text)


def _fill_columns(table: pa.Table, outcomes: dict[int, _Outcome], error_raw_bytes: int) -> pa.Table:
    """The table with the columns of extracted rows: text, title, raw and reject."""
    columns = {name: table[name].to_pylist() for name in ("text", "title", "reject")}
    read, failed = np.zeros((2, table.num_rows), bool)
    for row, outcome in outcomes.items():
        if outcome.error:
            failed[row], columns["reject"][row] = True, outcome.error
        else:
            read[row], columns["text"][row] = True, outcome.page.text
            columns["title"][row] = columns["title"][row] or outcome.page.title or None
    for name, values in columns.items():
        table = schema.put_column(table, name, pa.array(values, table.schema.field(name).type))
    raw = table["raw"].combine_chunks()
    raw = pc.if_else(pa.array(read), pa.scalar(None, pa.binary()), raw)  # first: this step frees memory
    if failed.any():
        raw = pc.if_else(pa.array(failed), pc.binary_slice(raw, 0, error_raw_bytes), raw)
    return schema.put_column(table, "raw", raw)


def _with_charset(table: pa.Table, outcomes: dict[int, _Outcome]) -> pa.Table:
    row_outcomes = [outcomes.get(row, _Outcome(_NO_PAGE)) for row in range(table.num_rows)]
    table = schema.put_column(
        table, "label.charset", pa.array([o.charset for o in row_outcomes], pa.string())
    )
    return schema.put_column(
        table, "score.charset.confidence", pa.array([o.confidence for o in row_outcomes], pa.float32())
    )
