"""The pass that cuts lines which many pages of a host, or many hosts, repeat. The page stays.

Three phases: `counts` counts the lines and the pages of every host, `bounds` finds the lines that repeat
often enough, the last one cuts them where they stand at the edges of a page (`text/lines/line_keys.py` has
the rule and why). Each cut is in `cuts`, so text and ledger together hold every line of the page. A paragraph
that repeats is lines that repeat.

Run it after `near`. If a site shows one article under ten addresses, every line of it repeats; after its
copies are removed, only template lines repeat. docs/calibration.md explains the thresholds of zh_web.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ctllm_ray.base.recipe_training import Share
from ctllm_ray.corpus.boilerplate.line_bounds import BOUNDS, SelectRepeatedLines
from ctllm_ray.corpus.boilerplate.line_counts import COUNTS, CountLines, LineReading
from ctllm_ray.corpus.boilerplate.line_removal import RemoveLines
from ctllm_ray.corpus.engine.phase import Pass
from ctllm_ray.text.dedup.fold import Digits

SCORES = ("boilerplate.cut_share",)

Count = Annotated[int, Field(gt=0)]


def boilerplate(
    *,
    min_pages: Annotated[int, Field(ge=2)],
    min_share: Share,
    min_hosts: Annotated[int, Field(ge=2)] | None = None,
    own_line_cost: Annotated[float, Field(gt=0)] | None = None,
    min_chars: Count = 1,
    digits: Digits = "keep",
    min_left_chars: Count = 1,
    keep_first: bool = False,
    partition_rows: Count = 4_000_000,
) -> Pass:
    """Creates the pass: counts, thresholds, removal. A worker holds about 140 bytes
    per row of `partition_rows`."""
    reading = LineReading(digits, min_chars)
    counting = CountLines(f"boilerplate/{COUNTS}", reading, partition_rows)
    bounding = SelectRepeatedLines(f"boilerplate/{BOUNDS}", counting, min_pages, min_hosts)
    return Pass(
        counting,
        bounding,
        RemoveLines("boilerplate", reading, bounding, min_share, own_line_cost, min_left_chars, keep_first),
    )
