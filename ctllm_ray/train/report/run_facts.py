"""Reads all facts of a run from storage: its records, its checkpoints, and its data.

Reading only: nothing of the run is changed, and it may be
going on. What a page or a table shows is made from this.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ctllm_ray.base import storage
from ctllm_ray.base.decisions import fingerprint
from ctllm_ray.base.errors import CtllmError, NotFound
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.base.recipe_training import Train
from ctllm_ray.train.checkpoint.run_state import RunState
from ctllm_ray.train.tracking import records
from ctllm_ray.train.tracking.records import Event, StepRecord

if TYPE_CHECKING:
    from ctllm_ray.train.data.batches import Batches
    from ctllm_ray.train.data.corpora import Corpora

MOST_ROWS = 20_000_000  # rows to count again at most: about a minute


@dataclass(frozen=True)
class Save:
    """A written checkpoint; `kept` says whether it still exists."""

    step: int
    tokens: int
    bytes: int
    stall_s: float
    workers: int
    kept: bool


@dataclass(frozen=True)
class Taken:
    """What a phase took from a group."""

    group: str
    planned: float  # share of sequences
    realised: float
    targets: int
    padding: int
    epochs: float  # targets from the run's start to the phase's end, divided by `whole`
    whole: int  # targets of the group


@dataclass(frozen=True)
class PhaseTaken:
    """A phase of the mixture as it happened: batches [first, last)."""

    first: int
    last: int
    groups: tuple[Taken, ...]


@dataclass(frozen=True)
class RunFacts:
    """The current state of a run."""

    recipe: Recipe
    folder: str
    steps: list[StepRecord]
    events: list[Event]
    validation: list[dict[str, Any]]
    state: RunState | None  # of the newest undamaged checkpoint
    checkpoint: str  # its folder
    saves: list[Save]
    phases: list[PhaseTaken]
    unaccounted: str  # why the phases could not be counted; empty if they were
    data: list[dict[str, Any]]  # generations of DATA.json
    fingerprint: str  # of the recipe's decisions

    @property
    def train(self) -> Train:
        """The recipe's section `train`."""
        return self.recipe.training()[1]

    @property
    def total_tokens(self) -> int:
        """Positions of the whole run, in whole batches."""
        return -(-self.train.tokens // self.train.batch_tokens) * self.train.batch_tokens


def collect_facts(recipe: Recipe) -> RunFacts:
    """The facts of a recipe's run. Raises `NotFound` if it has
    no step yet, `RecipeError` if the recipe has no run."""
    recipe.training()  # raises if there is no run
    folder = recipe.folder("train")
    steps = records.read_steps(folder)
    if not steps:
        raise NotFound(
            "this run has not recorded a step yet", where=folder, remedy="run `ctllm train` with this recipe"
        )
    events = records.read_events(folder)
    state, where = _newest(folder)
    phases, unaccounted = _phases(recipe, state.batch if state else steps[-1].batch + 1)
    return RunFacts(
        recipe,
        folder,
        steps,
        events,
        records.read_validation(folder),
        state,
        where,
        list(_saves(folder, steps, events)),
        phases,
        unaccounted,
        _generations(folder),
        fingerprint(recipe.decisions("train")),
    )


def _newest(folder: str) -> tuple[RunState | None, str]:
    from ctllm_ray.train.checkpoint import checkpoint  # torch takes seconds to import

    try:
        result = checkpoint.newest(folder)
    except CtllmError:
        return None, ""
    return result.state, result.folder


def _saves(folder: str, steps: list[StepRecord], events: list[Event]) -> Iterator[Save]:
    from ctllm_ray.train.checkpoint import checkpoint

    here = set(checkpoint.steps(folder))
    tokens = {record.step: record.tokens for record in steps}
    workers = 0
    last: dict[int, Save] = {}
    for event in events:
        workers = int(event.facts.get("workers", workers))
        if event.kind == "checkpoint":
            size, stall_s = int(event.facts.get("bytes", 0)), float(event.facts.get("stall_s", 0))
            last[event.step] = Save(
                event.step, tokens.get(event.step, 0), size, stall_s, workers, event.step in here
            )
    yield from (last[step] for step in sorted(last))


def _generations(folder: str) -> list[dict[str, Any]]:
    path = storage.join(folder, "DATA.json")
    return storage.read_json(path)["generations"] if storage.exists(path) else []


def _phases(recipe: Recipe, batch: int) -> tuple[list[PhaseTaken], str]:
    """What each phase took up to a batch, or why that is unknown: the shards may have been moved."""
    from ctllm_ray.train.data.batches import Batches
    from ctllm_ray.train.data.corpora import open_corpora

    _, train = recipe.training()
    if batch * (train.batch_tokens // train.sequence_tokens) > MOST_ROWS:
        return [], f"> {MOST_ROWS:,} rows"
    unhashed = recipe.resources.train.model_copy(update={"verify_shards": False})
    recipe = recipe.model_copy(update={"resources": recipe.resources.model_copy(update={"train": unhashed})})
    try:
        corpora = open_corpora(recipe, batch=batch, rank=1, world=2)  # rank 0 would write DATA.json
        return list(_read_phases(train, Batches(recipe, corpora), corpora, batch)), ""
    except CtllmError as error:
        return [], error.what


def _whole(corpora: Corpora) -> dict[str, int]:
    """The targets of each group: all ids of a document except BOS."""
    results: dict[str, int] = {}
    for generation in corpora.generations:
        for corpus in generation.corpora:
            for shard in corpus.shards:
                results[shard.group] = results.get(shard.group, 0) + shard.tokens - shard.rows
    return results


def _read_phases(train: Train, batches: Batches, corpora: Corpora, stop: int) -> Iterator[PhaseTaken]:
    whole, first = _whole(corpora), corpora.branch.batch
    so_far: dict[str, int] = {}
    for phase in train.mixture:
        last = stop if phase.until_tokens is None else min(stop, phase.until_tokens // train.batch_tokens)
        if last <= first:
            continue
        account = batches.account(first, last)
        rows = sum(part.rows for part in account.values())
        results = []
        for group, part in sorted(account.items()):
            so_far[group] = so_far.get(group, 0) + part.targets
            if part.rows or phase.shares.get(group):
                epochs = so_far[group] / max(1, whole.get(group, 0))
                shares = phase.shares.get(group, 0.0), part.rows / rows
                results.append(Taken(group, *shares, part.targets, part.padding, epochs, whole.get(group, 0)))
        yield PhaseTaken(first, last, tuple(results))
        first = last
