"""The stage that cleans text as CT-LLM's released filter does; only `map_cc_as_released` uses it.

The released program measures its bracket rule before this and everything else after it. A record without url
passes like any other (the released program loses it).
"""

from __future__ import annotations

import pyarrow as pa

from ctllm_ray.shards import schema
from ctllm_ray.text.ct_llm_released import clean


def ct_llm_released(table: pa.Table) -> pa.Table:
    """The table with cleaned texts in live rows. No row is rejected here."""
    texts = table["text"].to_pylist()
    for row in schema.live(table).nonzero()[0]:
        texts[row] = clean(texts[row])
    return schema.put_column(table, "text", pa.array(texts, pa.string()))
