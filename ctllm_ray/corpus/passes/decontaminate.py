"""The pass that removes evaluation items from the corpus:
a model must not train on what it will be tested on.

Items of named sets become an index of folded n-grams (`text/contamination.py`), so a Traditional,
re-punctuated or embedded copy is found. An item counts in a page that holds at least `min_overlap` of its
n-grams; then its stretches are cut, or the page goes. What was seen of every item stays in `seen.parquet`,
for the report and for evaluation.

Four phases: the items, file by file; their index, once; where pages hold them; what becomes of these pages.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ctllm_ray.base.recipe_training import Count, Share
from ctllm_ray.corpus.decontamination.evaluation_sets import ITEMS, EvaluationSet, ReadItems
from ctllm_ray.corpus.decontamination.item_index import INDEX, IndexItems
from ctllm_ray.corpus.decontamination.item_removal import Action, MarkItems
from ctllm_ray.corpus.decontamination.item_search import FOUND, FindItems
from ctllm_ray.corpus.engine.phase import Pass

FORMS = ("texts", "conversations", "pairs")
SCORES = ("decontaminate.overlap", "decontaminate.items")
LABELS = ("decontaminate.set", "decontaminate.hits")


def decontaminate(
    *,
    sets: tuple[EvaluationSet, ...],
    ngram_chars: Count,
    max_items: Count,
    min_overlap: Share,
    action: Action,
    min_left_chars: Annotated[int, Field(ge=0)] = 1,
) -> Pass:
    """Creates the pass. A worker maps the index, about 33 bytes per n-gram; the
    workers of a machine share it."""
    named = tuple(EvaluationSet.model_validate(part) for part in sets)
    return Pass(
        ReadItems(f"decontaminate/{ITEMS}", named),
        IndexItems(f"decontaminate/{INDEX}", named, ngram_chars, max_items),
        FindItems(f"decontaminate/{FOUND}", named, min_overlap),
        MarkItems("decontaminate", named, min_overlap, action, min_left_chars),
    )
