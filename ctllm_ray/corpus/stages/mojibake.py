"""The stage that repairs mojibake. What is detected and when it is repaired: `text/encoding/mojibake.py`.

Run it after extraction and before `normalize`: removing controls, no-break spaces or soft hyphens first would
take away bytes that the repair needs. It rejects nothing; a recipe bounds `mojibake.suspect_share`.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctllm_ray.shards import schema
from ctllm_ray.text.encoding.mojibake import Repair, repair_suspicious
from ctllm_ray.text.encoding.mojibake_scan import suspicious_rows
from ctllm_ray.text.kernels.codepoints import buffers

#: Null, or the kind and the result: `utf8_as_gbk:repaired` (completely), `:partial` (repaired, but characters
#: were lost), `:marked` (the text is unchanged).
LABELS = ("mojibake",)
#: Share of characters that are still damaged, 0 for clean text. A lost character counts its whole line if the
#: line was mojibake, else itself.
SCORES = ("mojibake.suspect_share",)


def mojibake(table: pa.Table, *, repair: bool = True) -> pa.Table:
    """The table with mojibake of live rows repaired; with `repair` false only labelled and scored."""
    live = schema.live(table)
    texts = table["text"].combine_chunks()
    flagged = live & suspicious_rows(*buffers(texts.fill_null("")))
    repairs = [_outcome(text, repair) for text in texts.filter(pa.array(flagged)).to_pylist()]
    labels = np.full(table.num_rows, None, object)
    labels[flagged] = [_label(outcome) for outcome in repairs]
    shares = np.where(live, 0.0, np.nan).astype(np.float32)
    shares[flagged] = [outcome.suspect_chars / max(1, len(outcome.text)) for outcome in repairs]
    repaired = pa.array([outcome.text for outcome in repairs], pa.string())
    table = schema.put_column(table, "text", pc.replace_with_mask(texts, pa.array(flagged), repaired))
    table = schema.put_column(table, "label.mojibake", pa.array(labels, pa.string()))
    return schema.put_column(table, "score.mojibake.suspect_share", pa.array(shares, from_pandas=True))


def _outcome(text: str, repair: bool) -> Repair:
    outcome = repair_suspicious(text)
    if repair or not outcome.is_repaired:
        return outcome
    suspect = min(len(text), outcome.restored_chars + outcome.suspect_chars)
    return Repair(text, outcome.kind, 0, suspect)


def _label(outcome: Repair) -> str | None:
    if not outcome.kind:
        return None
    if not outcome.is_repaired:
        return f"{outcome.kind}:marked"
    return f"{outcome.kind}:{'partial' if outcome.suspect_chars else 'repaired'}"
