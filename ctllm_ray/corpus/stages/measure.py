"""The stage that measures every document, assigns its genre, and rejects those that break a rule.

Code-point measures run in one fused kernel over the text column, measures of `texts` over the column in one
call, and measures of a `text` or `url` string row by row. All rules are measured for every live document,
whatever an earlier rule said: that is what replay and the report need.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, BeforeValidator, ConfigDict

from ctllm_ray.base.recipe_rules import Rule
from ctllm_ray.base.resolve import MEASURES, check_options, names, resolve
from ctllm_ray.corpus import decide
from ctllm_ray.shards import schema
from ctllm_ray.text.kernels import fuse

FORMS = ("texts", "conversations", "pairs")


class Genre(BaseModel):
    """A genre and its conditions, written as rules."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    conditions: list[Rule]


def _in_order(genres: Any) -> Any:
    """A list of genres from the recipe's mapping. Their order decides, so it is part of the fingerprint."""
    if not isinstance(genres, dict):
        return genres
    return [{"name": name, "conditions": conditions} for name, conditions in genres.items()]


Genres = Annotated[tuple[Genre, ...], BeforeValidator(_in_order)]


def measure(table: pa.Table, *, rules: list[Rule], genres: Genres = ()) -> pa.Table:
    """The table with one score or label per measure, the genre, and `reject` if a rule is broken.

    `genres` maps a genre to conditions written as rules; the first genre whose conditions all hold is the
    document's. A stage without genres uses those of an earlier stage.
    """
    plan = plan_of(json.dumps([rules, genres]))
    rows = schema.live(table)
    part = table.filter(pa.array(rows))
    columns = _measure_part(part, plan)
    has_genre = "label.genre" in table.column_names and not plan.genres
    row_genres = _earlier(part, "genre") if has_genre else decide.genre(plan.genres, columns, part.num_rows)
    decision = decide.decide(plan.rules, columns, row_genres)
    for name, values in columns.items():
        kind = "label" if values.dtype == object else "score"
        table = schema.put_column(table, f"{kind}.{name}", _spread_rows(values, rows))
    if not has_genre:
        table = schema.put_column(table, "label.genre", _spread_rows(row_genres.astype(object), rows))
    return _mark_rejects(table, plan, decision, rows)


@dataclass(frozen=True)
class MeasurePlan:
    """The rules and genres of a measure stage, and the measures they need."""

    rules: tuple[Rule, ...]
    genres: dict[str, tuple[Rule, ...]]
    kernel: dict[str, fuse.Line]  # score -> compiled measure
    columns: dict[str, Callable[[pa.Array], np.ndarray]]  # score -> measure of the whole column of texts
    texts: dict[str, Callable[[str], Any]]  # score or label -> measure of one text
    urls: dict[str, Callable[[str], Any]]
    labels: frozenset[str]  # those with labels as values
    earlier: tuple[str, ...]  # scores and labels added by the source or an earlier stage

    @property
    def every(self) -> tuple[Rule, ...]:
        """Rules and genre conditions."""
        return (*self.rules, *(rule for conditions in self.genres.values() for rule in conditions))


@cache
def plan_of(text: str) -> MeasurePlan:
    """The plan of a stage's options. The options are JSON, so that one process makes the plan once."""
    rules, genres = json.loads(text)
    plan = MeasurePlan(
        tuple(Rule.model_validate(r) for r in rules),
        {genre["name"]: tuple(Rule.model_validate(r) for r in genre["conditions"]) for genre in genres},
        {}, {}, {}, {}, frozenset(), (),
    )  # fmt: skip
    earlier, labels = [], set()
    for rule in plan.every:
        if rule.use not in names(MEASURES):
            earlier.append(rule.score)
            continue
        function = resolve(MEASURES, rule.use)
        if fuse.reads(function) == ["http_status"]:  # the source's own score, under the name of the measure
            earlier.append(rule.score)
            continue
        options = check_options(function, rule.options, f"rule {rule.name!r}")
        if fuse.is_kernel(rule.use):
            plan.kernel[rule.score] = (rule.use, tuple(options.items()))
        else:
            target = {"texts": plan.columns, "text": plan.texts, "url": plan.urls}[fuse.reads(function)[0]]
            target[rule.score] = partial(function, **options)
            labels |= {rule.score} if rule.is_label else set()
    return replace(plan, labels=frozenset(labels), earlier=tuple(earlier))


def _measure_part(part: pa.Table, plan: MeasurePlan) -> dict[str, np.ndarray]:
    """Every score (float32) and label (object) of the plan for the rows of a table."""
    texts = part["text"].combine_chunks()
    values = fuse.measure(texts, tuple(plan.kernel.values()))
    columns: dict[str, np.ndarray] = {name: values[:, i] for i, name in enumerate(plan.kernel)}
    for name, function in plan.columns.items():
        columns[name] = function(texts).astype(np.float32)
    for group, column in [(plan.texts, "text"), (plan.urls, "url")]:
        columns |= _by_row(group, part[column].to_pylist(), plan.labels) if group else {}
    for name in plan.earlier:
        columns[name] = _earlier(part, name)
    return columns


def _by_row(
    group: dict[str, Callable[[str], Any]], values: list[str | None], labels: frozenset[str]
) -> dict[str, np.ndarray]:
    """Measures of strings, document by document: they share a cache of the last document."""
    measured: dict[str, list] = {name: [] for name in group}
    for value in values:
        for name, function in group.items():
            measured[name].append(None if value is None else function(value))
    return {name: _column(items, name in labels) for name, items in measured.items()}


def _column(items: list, label: bool) -> np.ndarray:
    return (
        np.array(items, object)
        if label
        else np.array([np.nan if i is None else i for i in items], np.float32)
    )


def _earlier(part: pa.Table, name: str) -> np.ndarray:
    if f"label.{name}" in part.column_names:
        return np.array(part[f"label.{name}"].to_pylist(), object)
    if f"score.{name}" not in part.column_names:
        return np.full(part.num_rows, np.nan, np.float32)
    return part[f"score.{name}"].to_numpy().astype(np.float32)


def _spread_rows(values: np.ndarray, rows: np.ndarray) -> pa.Array:
    """The values of the live rows as a column of the whole table, null elsewhere."""
    index = np.cumsum(rows) - 1
    kind = pa.string() if values.dtype == object else pa.float32()
    return pc.take(pa.array(values, kind), pa.array(index, pa.int32(), mask=~rows))


def _mark_rejects(
    table: pa.Table, plan: MeasurePlan, decision: decide.Decision, rows: np.ndarray
) -> pa.Table:
    """The table with `reject`, its value and its threshold for live rows that a rule rejects."""
    reasons = np.array([rule.name for rule in plan.rules] + [None], object)[decision.rule]
    for column, values in [
        ("reject", reasons),
        ("reject_value", decision.value),
        ("reject_bound", decision.bound),
    ]:
        spread = _spread_rows(values, rows)
        spread = (
            spread
            if column == "reject"
            else pc.if_else(pc.is_nan(spread), pa.scalar(None, pa.float32()), spread)
        )
        table = schema.put_column(
            table, column, pc.if_else(pa.array(rows), spread, table[column].combine_chunks())
        )
    return table
