"""Plans a sweep: its mixtures and the recipe of each trial, from the recipe and the token shards alone.

A trial is an ordinary training run with its own recipe: the sweep's model, tokens, batch and schedule, one
mixture, a seed, and everything else from `train`. Its folder is
`<sweep>/trials/<number>[-<replicate>]/train`. Epoch limits apply to the run that the mixture is chosen for: a
share that would repeat a small group too often in `train.tokens` is not tried, though a short trial would not
notice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import xxhash

from ctllm_ray.base import storage
from ctllm_ray.base.decisions import fingerprint
from ctllm_ray.base.errors import RecipeError
from ctllm_ray.base.recipe import Recipe, parse_recipe
from ctllm_ray.base.recipe_sweep import Sweep
from ctllm_ray.base.recipe_training import Train
from ctllm_ray.base.resolve import nearest
from ctllm_ray.mixture import simplex
from ctllm_ray.mixture.simplex import Region
from ctllm_ray.shards.manifest import Manifest
from ctllm_ray.shards.tokens import HELD_OUT, TRAIN
from ctllm_ray.train.data import corpora

TRIALS = "trials"


@dataclass(frozen=True)
class SweepPlan:
    """A planned sweep. `mixtures` are the trials' shares by group, in order; `caps`
    the maximum share by epochs."""

    recipe: Recipe
    sweep: Sweep
    region: Region
    token_shares: dict[str, float]
    caps: dict[str, float]
    mixtures: tuple[dict[str, float], ...]
    domains: tuple[str, ...]  # groups of held-out documents
    data: str  # fingerprint of all shards

    @property
    def folder(self) -> str:
        """The folder of the sweep."""
        return self.recipe.folder("sweep")

    @property
    def runs(self) -> list[tuple[int, int]]:
        """All trainings as (mixture, replicate): first each mixture once, then the replicates."""
        return [
            (number, again) for again in range(self.sweep.replicates) for number in range(self.sweep.trials)
        ]

    def trial(self, number: int, replicate: int = 0) -> Recipe:
        """The recipe of a trial: training on one mixture."""
        return _trial(self.recipe, self.sweep, number, replicate, self.mixtures[number])

    def decisions(self) -> dict:
        """What the trials depend on, except their number, as plain values."""
        trial = self.trial(0).decisions("train")
        trial["train"] = {key: value for key, value in trial["train"].items() if key != "mixture"}
        region = self.region
        counts = zip(region.groups, region.least, region.most, strict=True)
        return {
            "trial": trial,
            "seeds": "each run has its own",
            "mixtures": self.sweep.model_dump(mode="json", include={"seed", "temperature", "concentration"}),
            "bounds": {name: [least, most] for name, least, most in counts},
            "block_sequences": region.block,
            "data": self.data,
        }


def plan_sweep(recipe: Recipe) -> SweepPlan:
    """The sweep of a recipe. Raises `CtllmError` if it is impossible; each error says what to change."""
    _, train = recipe.training()
    sweep = recipe.sweep
    if sweep is None:
        raise RecipeError("the recipe has no sweep", remedy="add the section `sweep`")
    if train.validation is None:
        raise RecipeError(
            "a sweep needs held-out documents to compare trials", remedy="add the section `train.validation`"
        )
    own = corpora.read_sections(recipe.token_folders())
    held_out = corpora.validation_sections(recipe, own)
    targets = _targets(own)
    domains = tuple(corpora.held_out(held_out))
    _check_names("sweep.bounds", sweep.bounds, tuple(targets))
    _check_names("sweep.weights", sweep.weights, domains)
    caps = {name: _cap(train, sweep, name, targets[name]) for name in sweep.bounds}
    region = simplex.region(sweep.bounds, caps, train.block_sequences)
    whole = sum(targets[name] for name in sweep.bounds)
    token_shares = {name: targets[name] / whole for name in sorted(sweep.bounds)}
    mixtures = _mixtures(sweep, region, token_shares)
    return SweepPlan(recipe, sweep, region, token_shares, caps, mixtures, domains, _data({**own, **held_out}))


def _targets(sections: Mapping[str, Manifest]) -> dict[str, int]:
    """Targets of one epoch of each group."""
    targets: dict[str, int] = {}
    for section in sections.values():
        for shard in section.of_kind(TRAIN):
            targets[shard.group] = targets.get(shard.group, 0) + shard.tokens - shard.rows
    return targets


def _check_names(where: str, named: Mapping[str, object], known: Sequence[str]) -> None:
    for name in named:
        if name not in known:
            raise RecipeError(f"group {name!r} does not exist", where=where, remedy=nearest(name, known))


def _cap(train: Train, sweep: Sweep, name: str, targets: int) -> float:
    """The maximum share of a group that its epochs allow, less one row for rounding in the last block."""
    batches = math.ceil(max(train.tokens, sweep.tokens) / train.batch_tokens)
    rows = batches * train.batch_tokens // train.sequence_tokens
    epochs = train.epoch_caps.get(name, train.max_epochs)
    return min(1.0, max(0.0, epochs * targets / train.sequence_tokens - 1) / rows)


def _mixtures(
    sweep: Sweep, region: Region, token_shares: Mapping[str, float]
) -> tuple[dict[str, float], ...]:
    """The token shares first, as close as the bounds allow, then the other mixtures of the design."""
    first = simplex.nearest(region, token_shares)
    middle = simplex.middle(region, token_shares, sweep.temperature)
    others = (
        counts
        for counts in simplex.mixtures(region, middle, sweep.concentration, sweep.seed)
        if counts.tolist() != first.tolist()
    )
    design = [first, *islice(others, sweep.trials - 1)]
    if len(design) < sweep.trials:
        raise RecipeError(
            f"the bounds allow only {len(design)} different mixtures in a block of "
            f"{region.block} sequences, not {sweep.trials}",
            where="sweep.trials",
            remedy="use fewer trials, wider bounds, or more train.block_sequences",
        )
    return tuple(region.shares(counts) for counts in design)


def _data(sections: Mapping[str, Manifest]) -> str:
    """SHA-256 (hexadecimal) over groups and hashes of all training and held-out
    shards, independent of location."""
    shards = {
        kind: sorted(
            [shard.group, shard.sha256] for section in sections.values() for shard in section.of_kind(kind)
        )
        for kind in (TRAIN, HELD_OUT)
    }
    return fingerprint(shards)


def run_name(number: int, replicate: int) -> str:
    """The folder name of a run: `0003`, `0003-1`, ..."""
    return f"{number:04d}-{replicate}" if replicate else f"{number:04d}"


def _run_seed(recipe: Recipe, number: int, replicate: int) -> int:
    """The seed of a run's weights and order.

    Each has its own. Under one seed for all, what the order and the weights happen to favour moves with the
    mixture, and a law fits that as well as the truth: the order of mixtures is then right to the last place,
    and another under the next seed.
    """
    if (number, replicate) == (0, 0):
        return recipe.train_seed
    return xxhash.xxh3_64_intdigest(f"{recipe.train_seed}/{number}/{replicate}".encode()) % 2**31


def _trial(recipe: Recipe, sweep: Sweep, number: int, replicate: int, shares: Mapping[str, float]) -> Recipe:
    """One process, one mixture, validated at the end. All paths are absolute,
    since a worker runs elsewhere."""
    plain = recipe.model_dump(mode="json")
    train, part, width = plain["train"], plain["sweep"], recipe.resources.sweep
    folders = [storage.absolute(folder) for folder in recipe.token_folders()]
    validated = [storage.absolute(recipe.locate(folder)) for folder in train["validation"]["corpora"]]
    train |= {key: part[key] for key in ("tokens", "batch_tokens", "schedule")} | {
        "run": "",
        "seed": _run_seed(recipe, number, replicate),
        "branch_from": "",
        "corpora": folders,
        "mixture": [{"shares": dict(shares)}],
        "epoch_caps": {name: cap for name, cap in train["epoch_caps"].items() if name in shares},
        "validation": train["validation"] | {"every_tokens": sweep.tokens, "corpora": validated},
    }
    resources = plain["resources"]["train"] | {
        "workers": 1,
        "gpu": width.gpus > 0,
        "threads": width.cpus,
        "stepper": "torch",
        "offload": False,
        "keep": 1,
        "keep_every_tokens": 0,
        "trackers": [],
    }
    changed = {
        "name": TRIALS,
        "version": run_name(number, replicate),
        "root": storage.absolute(recipe.folder("sweep")),
        "model": _locate_path(recipe, part["model"]),
        "tokenizer": plain["tokenizer"] and _locate_path(recipe, plain["tokenizer"]),
        "train": train,
        "sweep": None,
        "resources": plain["resources"] | {"train": resources},
    }
    return parse_recipe(plain | changed, "sweep")


def _locate_path(recipe: Recipe, part: dict[str, Any]) -> dict[str, Any]:
    """A section of a recipe with its path made absolute, if it has one."""
    return part | {"path": part["path"] and storage.absolute(recipe.locate(part["path"]))}
