"""Recipes with passes over small crawls, and what is to be asked of their sections."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from ctllm_ray.base import recipe
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.corpus import documents, pipeline
from ctllm_ray.corpus.engine import section
from ctllm_ray.corpus.engine.section import Done
from ctllm_ray.corpus.engine.splits import Split
from ctllm_ray.shards import manifest, reader

EXACT: dict[str, Any] = {"use": "exact", "of": "folded"}
NEAR: dict[str, Any] = {  # the bounds of zh_web
    "use": "near",
    "of": "folded",
    "shingle_chars": 5,
    "bands": 32,
    "rows": 4,
    "min_chars": 60,
    "reach": 8,
    "min_agreement": 0.35,
    "verify": {
        "min_jaccard": 0.5,
        "sure_jaccard": 0.8,
        "own_shingle_chars": 3,
        "max_own_share": 0.08,
        "max_own_run": 6,
        "slips_jaccard": 0.35,
        "max_edit_share": 0.12,
        "max_edit_run": 4,
    },
    "survivors": "neighbours",
}


def write_crawl(folder: Path, files: Sequence[Sequence[str | dict[str, Any]]]) -> Path:
    """A folder of jsonl files of these pages: texts, or whole records."""
    folder.mkdir(exist_ok=True)
    for number, pages in enumerate(files):
        rows = [page if isinstance(page, dict) else {"text": page} for page in pages]
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        (folder / f"{number}.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def over(crawl: Path, root: Path, passes: Sequence[dict[str, Any]], **overrides: object) -> Recipe:
    """A recipe that keeps every page and then makes these passes."""
    plain = {
        "name": "copies",
        "version": "1",
        "seed": 1,
        "root": str(root),
        "data": {
            "inputs": [{"use": "jsonl", "path": f"{crawl}/*.jsonl", "date": "date"}],
            "max_error_share": 0.1,
        },
        "stages": [],
        "passes": list(passes),
        "resources": {"workers": 2, "object_store_mb": 100},
    }
    return recipe.parse_recipe(plain | overrides)


def rows(of: Recipe, kind: str, section: str = "") -> list[dict[str, Any]]:
    """The kept or rejected documents of a section, by default of the last."""
    folder = of.folder(section or of.corpus)
    return [
        row
        for _, table in reader.tables(folder, manifest.read_manifest(folder), kind)
        for row in table.to_pylist()
    ]


def texts(of: Recipe) -> list[str]:
    return [row["text"] for row in rows(of, "kept")]


def hashes(of: Recipe, section: str) -> dict[str, str]:
    """SHA-256 of every shard on disk."""
    folder = Path(of.folder(section))
    files = [*folder.glob("kept/*"), *folder.glob("rejected/*")]
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def conserved(of: Recipe) -> None:
    """Documents are conserved in every section and over all of them, and none stands in two places."""
    folder = of.folder(of.corpus)
    found = documents.parts(folder, manifest.read_manifest(folder))
    for part in found:
        gone = [*part.finished.rejects().values(), *part.finished.count_skipped().values()]
        assert part.finished.counts["in"] == part.finished.counts["kept"] + sum(gone)
    for before, after in pairwise(found):
        assert before.finished.counts["kept"] == after.finished.counts["in"]
    ids = [
        i
        for kind in ("kept", "rejected")
        for t in documents.tables(found, kind, ["id"])
        for i in t["id"].to_pylist()
    ]
    assert len(ids) == len(set(ids)) == documents.merge_sections(found).documents


def shaken_to_the_end(shaken: Recipe, units: slice) -> list[tuple[str, int]]:
    """The units worked, each twice, by drivers that die after those that `units` chooses of what is left."""
    worked: list[tuple[str, int]] = []

    def dying(recipe: Recipe, folder: str, splits: Sequence[Split]) -> Iterator[Done]:
        for split in splits[units]:
            worked.append((split.section, split.index))
            section.run_split(recipe, folder, split)  # what a killed worker had written stays
            yield section.run_split(recipe, folder, split)
        raise KeyboardInterrupt

    for _ in range(200):
        try:
            pipeline.prepare(shaken, dying)
            break
        except KeyboardInterrupt:
            continue
    return worked
