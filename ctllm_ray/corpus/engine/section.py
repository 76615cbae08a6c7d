"""What all sections of work share: each is a module of this package, or a phase of a pass, that works splits.

A split names its section, so that a Ray task ships names and plain values only, and `run_split` is the whole
of what it does: a plain function, the same in a test, under plain multiprocessing (the honest baseline in
benchmarks/) and under Ray. Text never leaves the process. A retried split writes the same files again.
"""

from __future__ import annotations

import importlib
import time
from dataclasses import asdict, dataclass
from typing import Any, Protocol, cast

from ctllm_ray.base.recipe import Recipe
from ctllm_ray.corpus.engine.splits import Split
from ctllm_ray.shards.manifest import Shard, section_files

MARKERS = "splits"  # folder of one small JSON file per finished split
ATTEMPTS = "attempts"  # folder of one empty file for each time that a split was begun in this run


@dataclass(frozen=True)
class SplitWork:
    """What came out of one split; `counts` as in the manifest, `text_bytes` of what was read."""

    counts: dict[str, int]
    text_bytes: int
    shards: list[Shard]


@dataclass(frozen=True)
class Done:
    """What a finished split says of itself; `counts` as in the manifest."""

    index: int
    file: str
    version: str
    counts: dict[str, int]
    text_bytes: int
    shards: list[Shard]
    wall_s: float

    @staticmethod
    def from_plain(plain: dict[str, Any]) -> Done:
        """The marker that `asdict` made plain."""
        return Done(**plain | {"shards": [Shard(**s) for s in plain["shards"]]})


class Section(Protocol):
    """The functions of a section's module (`clean`, `tokens`), or of a phase of a pass
    (corpus/engine/phase.py)."""

    @property
    def PACKAGES(self) -> tuple[str, ...]:
        """Whose versions decide its bytes, beside those that every section has."""

    @property
    def UNIT(self) -> str:
        """What its counts count: documents, keys, pairs."""

    def list_splits(self, recipe: Recipe) -> list[Split]:
        """What there is to do, always in the same order. Raises where the input is not there."""

    def sources(self, recipe: Recipe) -> dict[str, str]:
        """What it is made from beside the recipe's decisions and files: hashes by name, kept in the
        manifest."""

    def warm(self, recipe: Recipe) -> None:
        """What one process does once before many do it at the same time, such as compiling."""

    def work(self, recipe: Recipe, folder: str, split: Split) -> SplitWork:
        """Reads one split and writes its shards."""

    def finish(self, recipe: Recipe, folder: str, counts: dict[str, int]) -> None:
        """Once before the manifest is written, with the counts of all splits. Raises where they may not
        stand."""


def of(name: str, recipe: Recipe) -> Section:
    """The section of that name: a module of corpus/, or a phase of one of the recipe's passes."""
    use = name.partition("/")[0]
    if use in recipe.corpus_sections[1:]:
        passes = importlib.import_module(f"{__package__}.phase")
        return cast(Section, passes.of(use, recipe).phase(name))
    return cast(Section, importlib.import_module(f"ctllm_ray.corpus.{name}"))


def run_split(recipe: Recipe, folder: str, split: Split) -> Done:
    """Works one split of its section; its marker, written last, says that it is finished."""
    started = time.monotonic()
    worked = of(split.section, recipe).work(recipe, folder, split)
    wall_s = time.monotonic() - started
    counts = dict(sorted(worked.counts.items()))
    done = Done(
        split.index, split.file.uri, split.file.version, counts, worked.text_bytes, worked.shards, wall_s
    )
    section_files(folder).write_unit(unit_name(split), asdict(done))
    return done


def unit_name(split: Split) -> str:
    """The name of a split's marker."""
    return f"{split.index:05d}"
