"""Runs one section from start to end, through crashes: the driver's side, the same for every section.

A section's folder holds PLAN.json (the decisions and the splits, written first), one marker per finished
split, the shards, and MANIFEST.json (written last). Finished: only the manifest is read. Begun: the splits
without a marker are worked. Other decisions under the same version: stop and name what changed.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import yaml

from ctllm_ray.base import provenance, storage
from ctllm_ray.base.decisions import fingerprint
from ctllm_ray.base.errors import InputError, StorageError, VersionConflict
from ctllm_ray.base.recipe import CLEAN, Recipe, Section
from ctllm_ray.base.storage import File
from ctllm_ray.corpus.engine import section
from ctllm_ray.corpus.engine.input_files import list_input_files
from ctllm_ray.corpus.engine.losses import NAMED
from ctllm_ray.corpus.engine.progress import SectionProgress
from ctllm_ray.corpus.engine.section import Done, unit_name
from ctllm_ray.corpus.engine.splits import Split, list_input
from ctllm_ray.shards import manifest
from ctllm_ray.shards.manifest import RUNS, Manifest, section_files

#: Runs splits and yields each one's `Done`: Ray in production, a plain loop in tests and baselines.
Runner = Callable[[Recipe, str, Sequence[Split]], Iterable[Done]]


def complete(name: Section, recipe: Recipe, run: Runner, progress: SectionProgress) -> Manifest:
    """Finishes a section and returns its manifest. Raises `CtllmError`."""
    folder = recipe.folder(name)
    if manifest.is_finished(folder):
        finished = manifest.read_manifest(folder)
        check_same(finished, recipe, section.load_section(name, recipe).sources(recipe))
        if name == CLEAN:
            _name_late_files(finished, recipe, progress)
        return finished
    splits = _plan_splits(name, recipe, folder)
    try:
        done = _work_splits(name, recipe, splits, run, progress)
    except StorageError:
        if not manifest.is_finished(folder):
            raise
        # The same command was running twice: the other one finished and deleted what this one wrote.
        return manifest.read_manifest(folder)
    finished = _manifest(name, recipe, splits, done)
    section.load_section(name, recipe).finish(recipe, folder, finished)
    manifest.write_manifest(folder, finished)
    _sweep(folder, finished)
    return finished


def _name_late_files(finished: Manifest, recipe: Recipe, progress: SectionProgress) -> None:
    """Says which files came under the patterns of the inputs after the section was made."""
    read = {(file["input"], file["name"]) for file in finished.inputs}
    late = []
    for part in recipe.data.inputs:
        with suppress(InputError):  # a finished section does not need its input
            late += [f"{part.name}/{f.name}" for f in list_input(part) if (part.name, f.name) not in read]
    if late:
        more = f" and {len(late) - NAMED:,} more" if len(late) > NAMED else ""
        progress.note(
            f"files that came after {recipe.name} {recipe.version} was begun are not in it "
            f"({len(late):,}: {', '.join(late[:NAMED])}{more}); give the recipe another `version` to read them"
        )


def _work_splits(
    name: Section, recipe: Recipe, splits: Sequence[Split], run: Runner, progress: SectionProgress
) -> list[Done]:
    """The `Done` of every split in order, after running those without a marker."""
    folder = recipe.folder(name)
    done = _markers(folder, splits)
    left = [split for split in splits if split.index not in done]
    reused = len(done)
    progress.start(splits, list(done.values()), section.load_section(name, recipe).UNIT)
    started, clock = datetime.now(UTC), time.monotonic()
    if left:
        section.load_section(name, recipe).warm(recipe)
        try:
            for item in run(recipe, folder, left):
                if len(done) == reused:  # the clock excludes compiling and the start of Ray
                    clock = time.monotonic() - item.wall_s
                done[item.index] = item
                progress.advance(item)
        finally:
            progress.stop()
    section_files(folder).require_units([unit_name(split) for split in splits])
    _log_run(folder, started, time.monotonic() - clock, [done[s.index] for s in left], reused)
    return [done[split.index] for split in splits]


def check_same(finished: Manifest, recipe: Recipe, sources: dict[str, str]) -> None:
    """Raises `VersionConflict` if a finished section has other decisions, or was made from something else."""
    folder = recipe.folder(finished.section)
    _check_decisions(finished.recipe, recipe.decisions(finished.section), folder)
    then = {key: finished.provenance.get(key, "") for key in sources}
    section_files(folder).check_unchanged(
        then,
        sources,
        "the inputs of this section changed since it was made",
        remedy="restore them, or delete this section's folder and run the same command again",
    )


def _check_decisions(old: dict[str, Any], new: dict[str, Any], folder: str) -> None:
    section_files(folder).check_unchanged(
        old,
        new,
        "the recipe changed since this version was begun",
        remedy="give the recipe another `version`, or restore these fields",
    )


def _plan_splits(name: Section, recipe: Recipe, folder: str) -> list[Split]:
    """The splits of the section, equal to those at its start. Raises if decisions or input files changed."""
    begun = section_files(folder).read_begun()
    if begun:
        _check_decisions(begun["decisions"], recipe.decisions(name), folder)
    splits = section.load_section(name, recipe).list_splits(recipe)
    plain = [split.plain() for split in splits]
    if begun and begun["splits"] != plain:
        before = [Split.from_plain(split) for split in begun["splits"]]
        if name == CLEAN and _files(before) == _files(splits):
            return before  # the same files, cut by another version of this program
        raise VersionConflict(
            f"the input files changed since this version was begun: {_first_difference(before, splits)}",
            where=folder,
            remedy="restore the files, or give the recipe another `version`",
        )
    if not begun:
        section_files(folder).begin({"decisions": recipe.decisions(name), "splits": plain})
        resolved = yaml.safe_dump(recipe.model_dump(mode="json"), allow_unicode=True, sort_keys=False)
        storage.write_bytes(storage.join(recipe.folder("recipe.yaml")), resolved.encode())
    return splits


def _first_difference(old: Sequence[Split], new: Sequence[Split]) -> str:
    changed = {file.uri for file in set(_files(old)) ^ set(_files(new))}
    return ", ".join(sorted(changed)[:3]) or "they are split differently"


def _files(splits: Sequence[Split]) -> list[File]:
    """The files of splits in order, each once."""
    return list(dict.fromkeys(file for split in splits for file in split.files))


def _markers(folder: str, splits: Sequence[Split]) -> dict[int, Done]:
    """The `Done` of finished splits, by index."""
    files = section_files(folder)
    names = set(files.list_units())
    return {
        split.index: Done.from_plain(files.read_unit(unit_name(split)))
        for split in splits
        if unit_name(split) in names
    }


def _manifest(name: Section, recipe: Recipe, splits: Sequence[Split], done: Sequence[Done]) -> Manifest:
    counts: Counter[str] = Counter({"in": 0, "kept": 0})
    for item in done:
        counts.update(item.counts)
    return Manifest(
        section=name,
        name=recipe.name,
        version=recipe.version,
        fingerprint=fingerprint(recipe.decisions(name)),
        recipe=recipe.decisions(name),
        inputs=list_input_files(splits, done),
        counts=dict(sorted(counts.items())),
        shards=[shard for item in done for shard in item.shards],
        provenance=provenance.of_code(section.load_section(name, recipe).PACKAGES)
        | section.load_section(name, recipe).sources(recipe),
    )


def _sweep(folder: str, finished: Manifest) -> None:
    """Deletes files of killed writers: a split that was run again wrote to the same folders."""
    written = {shard.path.rpartition("/")[0] for shard in finished.shards}
    for part in (*sorted(written), section.MARKERS, section.ATTEMPTS):
        for name in storage.list_names(storage.join(folder, part)):
            if name.startswith(storage.TEMPORARY) or part == section.ATTEMPTS:
                storage.remove(storage.join(folder, part, name))


def _log_run(folder: str, started: datetime, wall_s: float, worked: Sequence[Done], reused: int) -> None:
    """Appends a line to RUNS.jsonl: what this run did, and how fast. The manifest has no times."""
    path = storage.join(folder, RUNS)
    line = {
        "started": started.isoformat(timespec="seconds"),
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "wall_s": round(wall_s, 3),
        "splits_done": len(worked),
        "splits_reused": reused,
        "documents": sum(d.counts["in"] for d in worked),
        "text_bytes": sum(d.text_bytes for d in worked),
        "worker_s": round(sum(d.wall_s for d in worked), 3),
    }
    before = storage.read_bytes(path) if storage.exists(path) else b""
    storage.write_bytes(path, before + json.dumps(line).encode() + b"\n")
