"""Finds which evaluation items the recipe's corpus contained before the pass `decontaminate` removed them.

An item is known by its file, whose SHA-256 must be the one that the pass read, and by its row; of several
sets of one file the greatest overlap counts. Where the recipe has no such pass, or it is not finished, or it
did not read the file, nothing is known of an item, and nothing is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ctllm_ray.base import storage
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.evaluate.scoring.item_results import Item
from ctllm_ray.shards import manifest

USE = "decontaminate"


@dataclass(frozen=True)
class Contamination:
    """The largest overlap of each searchable item, by its address; from `bound` on it counts."""

    overlap: Mapping[str, float]
    bound: float
    sha256: str  # of the table

    def plain(self) -> dict[str, Any]:
        """Plain values that identify it."""
        return {"sha256": self.sha256, "min_overlap": self.bound}


NOTHING = Contamination({}, 1.0, "")


def folder_of(recipe: Recipe) -> str:
    """The absolute folder of the recipe's pass; empty if it has none."""
    return storage.absolute(recipe.folder(USE)) if USE in recipe.corpus_sections else ""


def read_contamination(folder: str, files: Mapping[str, str]) -> Contamination:
    """What a finished pass says about the items in files (SHA-256 by name); `NOTHING` if it says nothing."""
    if not folder or not manifest.is_finished(folder):
        return NOTHING
    from ctllm_ray.corpus.decontamination import seen_items  # imports numba

    finished, rows = manifest.read_manifest(folder), seen_items.read_seen_items(folder).to_pylist()
    read = {
        key.removeprefix("set:"): sha256
        for key, sha256 in finished.provenance.items()
        if key.startswith("set:")
    }
    overlap: dict[str, float] = {}
    for row in rows:
        name = row["item"].rpartition("#")[0]
        if row["ngrams"] and name in files and read[f"{row['set']}/{name}"] == files[name]:
            overlap[row["item"]] = max(row["overlap"], overlap.get(row["item"], 0.0))
    if not overlap:
        return NOTHING
    [options] = [part for part in finished.recipe["passes"] if part["use"] == USE]
    return Contamination(
        overlap, options["min_overlap"], storage.size_and_sha256(storage.join(folder, seen_items.FILE))[1]
    )


def mark_items(items: Sequence[Item], contamination: Contamination) -> list[Item]:
    """The items with their overlap."""
    return [replace(item, seen_overlap=contamination.overlap.get(_address(item.item))) for item in items]


def _address(item: str) -> str:
    """The row of an item: questions about one text (C3) have a number after it."""
    name, _, row = item.rpartition("#")
    return f"{name}#{row.partition('.')[0]}"
