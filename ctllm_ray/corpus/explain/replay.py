"""Shows what other thresholds would keep and drop, from stored scores alone: no text is read or measured.

The law: a replay without changes takes the decisions of the run. A page that an earlier rule dropped before a
later stage measured it has no later scores; such pages are counted, since their replay is a guess.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pydantic import ValidationError

from ctllm_ray.base.errors import RecipeError
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.base.recipe_rules import BOUNDS, Rule
from ctllm_ray.base.resolve import nearest
from ctllm_ray.corpus import decide, documents
from ctllm_ray.corpus.clean import measure_rules
from ctllm_ray.shards.manifest import Manifest

EXAMPLES = 5  # ids to show per kind of change


@dataclass(frozen=True)
class Replay:
    """Counts before and after by reject reason (including `kept`), the moves
    between them, and example ids."""

    before: Counter[str]
    after: Counter[str]
    moves: Counter[tuple[str, str]]
    examples: dict[tuple[str, str], list[str]]
    unmeasured: int  # pages whose new decision depends on scores that were not measured


def change_bounds(rules: Sequence[Rule], sets: Sequence[str]) -> list[Rule]:
    """The rules with `<rule>.<bound>=<number>` applied; `none` removes a threshold. Raises `RecipeError`."""
    out = {rule.name: rule for rule in rules}
    for text in sets:
        path, equals, value = text.partition("=")
        name, dot, bound = path.rpartition(".")
        if not equals or not dot:
            remedy = "write RULE.BOUND=NUMBER, for example document.char_count.min=50"
            raise RecipeError(
                f"this is not a threshold of a rule: {text!r}", where=f"--set {text}", remedy=remedy
            )
        if name not in out:
            raise RecipeError(f"no rule is named {name!r}", where=f"--set {text}", remedy=nearest(name, out))
        if bound not in BOUNDS:
            raise RecipeError(
                f"{bound!r} is not a threshold", where=f"--set {text}", remedy=nearest(bound, BOUNDS)
            )
        try:
            number = None if value == "none" else float(value)
            out[name] = Rule.model_validate(out[name].model_dump() | {bound: number})
        except ValueError as error:
            reason = f"{value!r} is not a number"
            if isinstance(error, ValidationError):
                reason = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise RecipeError(reason, where=f"--set {text}", remedy="give another number, or none") from None
    return list(out.values())


def replay_bounds(folder: str, finished: Manifest, recipe: Recipe, sets: Sequence[str]) -> Replay:
    """Counts what the corpus would keep and drop with other
    thresholds. Raises `RecipeError` if it has no rules.

    What the sections before rejected is asked too; what a pass dropped stays dropped.
    """
    old = measure_rules(recipe.stages)
    if not old:
        raise RecipeError(
            "the recipe has no rules to replay", where=folder, remedy="add a stage `measure` with rules"
        )
    rules = change_bounds(old, sets)
    replay = Replay(Counter(), Counter(), Counter(), {}, 0)
    unmeasured = 0
    outcome = documents.parts(folder, finished)
    for kind in ("kept", "rejected"):
        for table in documents.tables(outcome, kind, ["id", "labels", "scores", "reject"]):
            unmeasured += _replay_table(table, {r.name for r in old}, rules, replay)
    return Replay(replay.before, replay.after, replay.moves, replay.examples, unmeasured)


def _replay_table(table: pa.Table, names: set[str], rules: Sequence[Rule], replay: Replay) -> int:
    """Adds a table's pages to the counts; returns how many lack the score of some rule."""
    old = np.array([r or "kept" for r in table["reject"].to_pylist()], object)
    open_again = np.isin(old, [*names, "kept"])  # error.* and drops by other stages do not change
    columns = _columns(table, rules)
    genres = np.array([g or "prose" for g in table["labels"].combine_chunks().field("genre").to_pylist()])
    decision = decide.decide(rules, columns, genres)
    reasons = np.array([rule.name for rule in rules] + ["kept"], object)
    new = np.where(open_again, reasons[decision.rule], old)
    replay.before.update(old.tolist())
    replay.after.update(new.tolist())
    for i in np.flatnonzero(new != old):
        move = (old[i], new[i])
        replay.moves[move] += 1
        shown = replay.examples.setdefault(move, [])
        if len(shown) < EXAMPLES:
            shown.append(table["id"][int(i)].as_py())
    return int((_find_unmeasured(table, rules) & open_again & (new == "kept")).sum())


def _columns(table: pa.Table, rules: Sequence[Rule]) -> dict[str, np.ndarray]:
    scores, labels = table["scores"].combine_chunks(), table["labels"].combine_chunks()
    columns = {}
    for rule in rules:
        if rule.is_label:
            columns[rule.score] = np.array(labels.field(rule.score).to_pylist(), object)
        else:
            columns[rule.score] = scores.field(rule.score).to_numpy(zero_copy_only=False).astype(np.float32)
    return columns


def _find_unmeasured(table: pa.Table, rules: Sequence[Rule]) -> np.ndarray:
    scores = table["scores"].combine_chunks()
    values = np.zeros(table.num_rows, bool)
    for rule in rules:
        if not rule.is_label:
            values |= scores.field(rule.score).is_null().to_numpy(zero_copy_only=False)
    return values
