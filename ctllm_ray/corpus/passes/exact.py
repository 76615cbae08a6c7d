"""The pass that keeps one of equal documents: equal byte
for byte, or equal after folding (`text/dedup/fold.py`) with the signs that carry meaning (`text/dedup/signs.py`).

Documents with one 128-bit digest are one document; no Bloom filter, no document lost to chance. The survivor
follows the order of `corpus/dedup/ranking.py`; a loser is `exact.duplicate`, its label names the survivor's
id, and both carry the size of their cluster. A text that folds to nothing is compared as it is.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ctllm_ray.corpus.dedup.decisions import Removal
from ctllm_ray.corpus.dedup.exact import DigestKeys, ExactSurvivors
from ctllm_ray.corpus.engine.phase import Pass

FORMS = ("texts", "conversations", "pairs")
SCORES = ("exact.cluster_size",)
LABELS = ("exact.survivor",)


def exact(
    *,
    of: Literal["raw", "folded"],
    prefer: tuple[str, ...] = (),
    partition_rows: Annotated[int, Field(gt=0)] = 4_000_000,
) -> Pass:
    """Creates the pass: keys, decisions, removal. A worker holds about 100 bytes
    per row of `partition_rows`."""
    keys = DigestKeys("exact/keys", of, tuple(prefer), partition_rows)
    return Pass(keys, ExactSurvivors("exact/fates", keys), Removal("exact"))
