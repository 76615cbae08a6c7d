"""The stage that normalizes texts. What is changed and why: `text/encoding/normalize.py`.

Run it after mojibake repair and before line rules and measures. It rejects nothing; `normalize.control_share`
lets a recipe reject pages that were full of control characters instead of trusting their repair.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctllm_ray.shards import schema
from ctllm_ray.text.encoding.normalize import normalize_texts
from ctllm_ray.text.encoding.script_conversion import Script

#: Share of code points that were control characters or invisible marks, and were removed.
SCORES = ("normalize.control_share",)


def normalize(
    table: pa.Table,
    *,
    form: Literal["NFC", "keep"] = "NFC",
    script: Script = "keep",
    width: Literal["keep", "fold"] = "keep",
    links: Literal["keep", "remove"] = "keep",
) -> pa.Table:
    """The table with normalized texts of live rows, and `score.normalize.control_share` (0..1)."""
    live = schema.live(table)
    texts = table["text"].combine_chunks()
    clean = normalize_texts(texts.filter(pa.array(live)), form=form, script=script, width=width, links=links)
    share = np.full(table.num_rows, np.nan, np.float32)
    share[live] = clean.control_share
    table = schema.put_column(table, "text", pc.replace_with_mask(texts, pa.array(live), clean.texts))
    return schema.put_column(table, "score.normalize.control_share", pa.array(share, from_pandas=True))
