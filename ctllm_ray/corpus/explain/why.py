"""Explains why a page was kept or dropped: measures, thresholds of rules, duplicates, cuts, and the text.

A page is found by its id (an address: it names the file it came from) or by its url. Ids and urls are scanned
column by column, so a lookup reads a small part of the shards.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from ctllm_ray.base.errors import NotFound
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.base.recipe_rules import Rule
from ctllm_ray.corpus import decide, documents
from ctllm_ray.corpus.clean import genre_conditions, measure_rules
from ctllm_ray.corpus.documents import Part
from ctllm_ray.corpus.explain.page_cluster import Cluster, of_page
from ctllm_ray.shards import reader
from ctllm_ray.shards.manifest import Manifest


@dataclass(frozen=True)
class Judgement:
    """One rule on one page. `outcome` is pass, spared (its
    genre), breaks too, DROPPED IT, measured or not measured.

    For the condition of a genre it is `<genre>: holds` or `<genre>: fails`.
    """

    rule: Rule
    value: float | str | None
    outcome: str


@dataclass(frozen=True)
class PageHistory:
    """A page as its shard holds it (a DOCUMENT row), and the judgement of every rule."""

    row: dict[str, Any]
    shard: str  # section and path
    judgements: tuple[Judgement, ...]
    clusters: tuple[Cluster, ...]


def explain_page(folder: str, finished: Manifest, recipe: Recipe, key: str) -> list[PageHistory]:
    """The pages with this id or URL, kept ones first. Raises `NotFound`.

    The folder is that of the last section of documents; what the sections before rejected is searched too.
    """
    sections = documents.parts(folder, finished)
    pages = [
        _judge_page(row, shard, recipe, tuple(of_page(sections, row))) for row, shard in _find(sections, key)
    ]
    if not pages:
        raise NotFound(
            f"no page has the id or URL {key!r}",
            where=folder,
            remedy="check the id, for example crawl/part-000.jsonl.zst#1234, or the URL",
        )
    return pages


def _find(parts: list[Part], key: str) -> Iterator[tuple[dict[str, Any], str]]:
    for kind in ("kept", "rejected"):
        for uri, path in documents.shards(parts, kind):
            for number, keys in enumerate(reader.shard_tables(uri, ["id", "url"])):
                hits = pc.or_kleene(pc.equal(keys["id"], key), pc.equal(keys["url"], key))
                rows = np.flatnonzero(hits.to_numpy().astype(bool) & hits.is_valid().to_numpy())
                if len(rows):
                    whole = reader.shard_table(uri, number)
                    yield from ((row, path) for row in whole.take(rows).to_pylist())


def _judge_page(
    row: dict[str, Any], shard: str, recipe: Recipe, clusters: tuple[Cluster, ...]
) -> PageHistory:
    genre = np.array([row["labels"].get("genre") or "prose"])
    judgements = [
        Judgement(rule, _value(rule, row), _outcome(rule, row, genre))
        for rule in measure_rules(recipe.stages)
    ]
    for name, rule in genre_conditions(recipe.stages):
        value = _value(rule, row)
        judgements.append(
            Judgement(rule, value, f"{name}: {'fails' if value is None or _breaks(rule, value) else 'holds'}")
        )
    return PageHistory(row, shard, tuple(judgements), clusters)


def _value(rule: Rule, row: dict[str, Any]) -> float | str | None:
    return row["scores"].get(rule.score, row["labels"].get(rule.score))


def _breaks(rule: Rule, value: float | str) -> bool:
    kind = object if isinstance(value, str) else np.float32
    broken, _ = decide.violations(rule, {rule.score: np.array([value], kind)})
    return bool(broken[0])


def _outcome(rule: Rule, row: dict[str, Any], genre: np.ndarray) -> str:
    value = _value(rule, row)
    if value is None:
        return "not measured"
    if not rule.decides:
        return "measured"
    if not _breaks(rule, value):
        return "pass"
    if not rule.applies(genre)[0]:
        return f"spared: {genre[0]}"
    return "DROPPED IT" if row["reject"] == rule.name else "breaks too"
