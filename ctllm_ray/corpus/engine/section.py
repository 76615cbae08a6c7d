"""What all sections of work share. A section is a module
of this package or a phase of a pass; it works on splits.

A split names its section, so that a Ray task ships names and plain values only, and `run_split` is the whole
of what it does: a plain function, the same in a test, under plain multiprocessing (the honest baseline in
benchmarks/) and under Ray. Text never leaves the process. A retried split writes the same files again.
"""

from __future__ import annotations

import importlib
import time
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, cast

from ctllm_ray.base.recipe import Recipe
from ctllm_ray.corpus.engine.splits import Split
from ctllm_ray.shards.manifest import Manifest, Shard, section_files

MARKERS = "splits"  # folder of one small JSON file per finished split
ATTEMPTS = "attempts"  # folder with one empty file per attempt at a split in this run


@dataclass(frozen=True)
class SplitWork:
    """The result of one split. `counts` are as in the manifest; `text_bytes` counts what was read."""

    counts: dict[str, int]
    text_bytes: int
    shards: list[Shard]
    files: list[dict[str, Any]] = field(default_factory=list)  # accounts of input files


@dataclass(frozen=True)
class Done:
    """The marker of a finished split; `counts` as in the manifest."""

    index: int
    file: str
    version: str
    counts: dict[str, int]
    text_bytes: int
    shards: list[Shard]
    wall_s: float
    files: list[dict[str, Any]] = field(
        default_factory=list
    )  # accounts of input files (engine/file_account.py)

    def plain(self) -> dict[str, Any]:
        """Plain values for a marker."""
        return vars(self) | {"shards": [asdict(shard) for shard in self.shards]}

    @staticmethod
    def from_plain(plain: dict[str, Any]) -> Done:
        """Converts the plain form back."""
        return Done(**plain | {"shards": [Shard(**s) for s in plain["shards"]]})


class Section(Protocol):
    """The functions of a section's module (`clean`, `tokens`),
    or of a phase of a pass (corpus/engine/phase.py)."""

    @property
    def PACKAGES(self) -> tuple[str, ...]:
        """Packages whose versions affect its bytes, in addition to those of every section."""

    @property
    def UNIT(self) -> str:
        """What its counts count: documents, keys, pairs."""

    def list_splits(self, recipe: Recipe) -> list[Split]:
        """All splits, always in the same order. Raises if the input does not exist."""

    def sources(self, recipe: Recipe) -> dict[str, str]:
        """What it is made from besides the recipe and input files: hashes by name, kept in the manifest."""

    def warm(self, recipe: Recipe) -> None:
        """Work to do in one process before many do the same, such as compiling."""

    def work(self, recipe: Recipe, folder: str, split: Split) -> SplitWork:
        """Reads one split and writes its shards."""

    def finish(self, recipe: Recipe, folder: str, finished: Manifest) -> None:
        """Called once before the manifest is written. May raise."""


def load_section(name: str, recipe: Recipe) -> Section:
    """The section of that name: a module of corpus/, or a phase of one of the recipe's passes."""
    use = name.partition("/")[0]
    if use in recipe.corpus_sections[1:]:
        passes = importlib.import_module(f"{__package__}.phase")
        return cast(Section, passes.load_pass(use, recipe).phase(name))
    return cast(Section, importlib.import_module(f"ctllm_ray.corpus.{name}"))


def run_split(recipe: Recipe, folder: str, split: Split) -> Done:
    """Runs one split of its section. Its marker, written last, says that it is finished."""
    started = time.monotonic()
    worked = load_section(split.section, recipe).work(recipe, folder, split)
    wall_s = time.monotonic() - started
    counts = dict(sorted(worked.counts.items()))
    uri, version = split.file.uri, split.file.version
    done = Done(split.index, uri, version, counts, worked.text_bytes, worked.shards, wall_s, worked.files)
    section_files(folder).write_unit(unit_name(split), done.plain())
    return done


def unit_name(split: Split) -> str:
    """The name of a split's marker."""
    return f"{split.index:05d}"
