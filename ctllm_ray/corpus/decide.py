"""Turns scores into a decision: the first rule, in the recipe's order, that a document breaks.

The measure stage and `ctllm replay` both decide here, over the same float32 scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ctllm_ray.base.recipe_rules import Rule

#: By score or label name: float32 scores (NaN: none), labels as objects (None: none).
Columns = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Decision:
    """For each document: the index of the rule that rejects
    it (-1: kept), its value, and the broken threshold."""

    rule: np.ndarray
    value: np.ndarray
    bound: np.ndarray


def decide(rules: Sequence[Rule], columns: Columns, genres: np.ndarray) -> Decision:
    """The decision for documents with these columns and genres."""
    n = len(genres)
    first = np.full(n, -1, np.int32)
    value, bound = np.full(n, np.nan, np.float32), np.full(n, np.nan, np.float32)
    for index, rule in enumerate(rules):
        broken, limit = violations(rule, columns)
        rows = broken & rule.applies(genres) & (first < 0)
        first[rows] = index
        if not rule.is_label:
            value[rows], bound[rows] = columns[rule.score][rows], limit[rows]
    return Decision(first, value, bound)


def violations(rule: Rule, columns: Columns) -> tuple[np.ndarray, np.ndarray]:
    """Which documents break the rule, ignoring genre (boolean), and the
    threshold that each broke (float32)."""
    column = columns[rule.score]
    if not rule.is_label:
        return rule.find_violations(column.astype(np.float32))
    if rule.accept is None:
        return np.zeros(len(column), bool), np.full(len(column), np.nan, np.float32)
    return np.array([v is not None and v not in rule.accept for v in column], bool), np.full(
        len(column), np.nan, np.float32
    )


def genre(genres: Mapping[str, Sequence[Rule]], columns: Columns, n: int) -> np.ndarray:
    """The genre of each document: the first whose conditions all hold, else `prose` (array of str)."""
    out = np.full(n, "prose", object)
    open_rows = np.ones(n, bool)
    for name, conditions in genres.items():
        holds = open_rows.copy()
        for condition in conditions:
            missing = np.zeros(n, bool)
            if not condition.is_label:
                missing = np.isnan(columns[condition.score].astype(np.float32))
            holds &= ~violations(condition, columns)[0] & ~missing
        out[holds] = name
        open_rows &= ~holds
    return out.astype(str)
