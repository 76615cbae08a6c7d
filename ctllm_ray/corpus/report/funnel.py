"""The funnel of a corpus: reject counts in the order in which stages, rules and passes act.

A document is charged to the first rule that it fails, so the steps can be subtracted one after another and
what is left after the last one is what was kept. It needs the manifest alone and costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from ctllm_ray.base.recipe_rules import Rule
from ctllm_ray.shards.manifest import Manifest


@dataclass(frozen=True)
class FunnelStep:
    """One drop reason: `dropped` documents are charged to it, `left` remain after it."""

    rule: str
    dropped: int
    left: int


@dataclass(frozen=True)
class FunnelGroup:
    """Consecutive steps of one family (the part of their names before the first dot)."""

    family: str
    steps: tuple[FunnelStep, ...]

    @property
    def dropped(self) -> int:
        """Documents charged to the group."""
        return sum(step.dropped for step in self.steps)

    @property
    def left(self) -> int:
        """Documents that remain after the last step of the group."""
        return self.steps[-1].left


def rules_of(recipe: Mapping[str, Any]) -> tuple[Rule, ...]:
    """The rules of a resolved recipe's measure stages, in order.

    They were checked when the section ran; checking again
    would refuse a section whose measures were renamed since.
    """
    stages = [stage for stage in recipe.get("stages", ()) if stage["use"] == "measure"]
    return tuple(Rule.model_construct(**rule) for stage in stages for rule in stage.get("rules") or ())


def funnel(manifest: Manifest) -> tuple[FunnelGroup, ...]:
    """The steps from all documents to the kept ones: read errors first, then stages and passes in order."""
    left, steps = manifest.documents, []
    rejects = manifest.rejects()
    for rule in _order(manifest.recipe, rejects):
        left -= rejects.get(rule, 0)
        steps.append(FunnelStep(rule, rejects.get(rule, 0), left))
    families = groupby(steps, key=lambda step: step.rule.partition(".")[0])
    return tuple(FunnelGroup(family, tuple(each)) for family, each in families)


def _order(recipe: Mapping[str, Any], rejects: Mapping[str, int]) -> Iterator[str]:
    """Every rule that can drop and every actual drop reason, each once, in order."""
    deciding = {rule.name for rule in rules_of(recipe) if rule.decides}
    waiting = dict.fromkeys(name for name in rejects if name not in deciding)
    yield from _take_family(waiting, "error")
    for stage in recipe.get("stages", ()):
        if stage["use"] == "measure":
            for rule in rules_of({"stages": [stage]}):
                if rule.name in deciding:
                    deciding.discard(rule.name)
                    yield rule.name
        else:
            yield from _take_family(waiting, stage["use"].partition(".")[0])
    for part in recipe.get("passes", ()):
        yield from _take_family(waiting, part["use"]) or [part["use"]]  # also a pass that dropped nothing
    yield from waiting


def _take_family(waiting: dict[str, None], family: str) -> list[str]:
    """Removes the remaining reasons of a family, and returns them."""
    members = [name for name in waiting if name.partition(".")[0] == family]
    for name in members:
        del waiting[name]
    return members
