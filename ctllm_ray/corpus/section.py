"""One section of work on one split: read, run every stage, write kept and rejected shards, leave a marker.

This is the whole of what a Ray task does, and it is a plain function: the same code runs in a test, under plain
multiprocessing (the honest baseline in benchmarks/) and under Ray. Text never leaves the process. A retried split
writes the same files again.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from ctllm_ray.base import resolve, storage
from ctllm_ray.base.recipe import Recipe, Stage
from ctllm_ray.base.rules import Rule
from ctllm_ray.corpus import splits
from ctllm_ray.corpus.splits import Split
from ctllm_ray.shards import schema
from ctllm_ray.shards.manifest import Shard
from ctllm_ray.shards.writer import ShardWriter

MARKERS = "splits"  # folder of one small JSON file per finished split
ATTEMPTS = "attempts"  # folder of one empty file for each time that a split was begun in this run


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


def run_split(recipe: Recipe, folder: str, split: Split) -> Done:
    """Works one split of a section; its marker, written last, says that it is finished."""
    started = time.monotonic()
    document = document_schema(recipe.stages)
    counts: Counter[str] = Counter({"in": 0, "kept": 0})
    text_bytes = 0
    with (
        ShardWriter(folder, "kept", split.index, document) as kept,
        ShardWriter(folder, "rejected", split.index, document) as rejected,
    ):
        for raw in splits.read(split):
            table = run_stages(recipe.stages, schema.working(raw, split.input))
            text_bytes += _text_bytes(table)
            counts.update(_counts(table))
            packed = schema.pack(table, document)
            passed = pc.is_null(packed["reject"])
            kept.write(packed.filter(passed))
            rejected.write(_sampled(packed.filter(pc.invert(passed)), recipe))
    shards = [*kept.shards, *rejected.shards]
    done = Done(
        split.index, split.file.uri, split.file.version, dict(sorted(counts.items())), text_bytes, shards,
        time.monotonic() - started,
    )  # fmt: skip
    storage.write_json(marker(folder, split.index), asdict(done))
    return done


def marker(folder: str, index: int) -> str:
    """Where the marker of a split stands."""
    return storage.join(folder, MARKERS, f"{index:05d}.json")


def run_stages(stages: tuple[Stage, ...], table: pa.Table) -> pa.Table:
    """A WORKING table after all stages: the same rows in the same order."""
    for stage in stages:
        function: Callable[..., pa.Table] = resolve.resolve(resolve.STAGES, stage.use)
        rows = table.num_rows
        table = function(table, **(stage.model_extra or {}))
        assert table.num_rows == rows, f"stage {stage.use} changed the number of rows"
    # a page whose bytes no stage turned into text (a recipe without `extract`) must not pass as kept
    left = pc.is_null(table["text"]).to_numpy()
    return schema.reject(table, left, "error.no_text", np.full(table.num_rows, np.nan, np.float32), math.nan)


def warm(recipe: Recipe) -> None:
    """Runs the stages over one tiny page: compiles kernels into the disk cache before many workers want them."""
    row = {"id": "warm#0", "text": "天地玄黄，宇宙洪荒。", "url": "http://warm.example/", "reject": None}
    table = pa.Table.from_pylist([row], schema=schema.RAW)
    run_stages(recipe.stages, schema.working(table, "warm"))


def document_schema(stages: tuple[Stage, ...]) -> pa.Schema:
    """The DOCUMENT schema of a recipe: a score or label for each thing that its stages add."""
    scores: dict[str, None] = {}
    labels: dict[str, None] = {}
    for stage in stages:
        scores |= dict.fromkeys(resolve.declared(resolve.STAGES, stage.use, "SCORES"))
        labels |= dict.fromkeys(resolve.declared(resolve.STAGES, stage.use, "LABELS"))
    for rule in every_rule(stages):
        if rule.score not in labels:
            (labels if rule.is_label else scores)[rule.score] = None
    if any(stage.use == "measure" for stage in stages):
        labels["genre"] = None
    return schema.document(tuple(scores), tuple(labels))


def every_rule(stages: tuple[Stage, ...]) -> list[Rule]:
    """The rules of all measure stages in order, then the conditions of their genres."""
    return measure_rules(stages) + [condition for _, condition in genre_conditions(stages)]


def measure_rules(stages: tuple[Stage, ...]) -> list[Rule]:
    """The rules that decide, of all measure stages in order."""
    return [Rule.model_validate(rule) for part in _measure_options(stages) for rule in part["rules"]]


def genre_conditions(stages: tuple[Stage, ...]) -> list[tuple[str, Rule]]:
    """(genre, condition) of all measure stages in order."""
    genres = [genre for part in _measure_options(stages) for genre in part["genres"]]
    return [(genre["name"], Rule.model_validate(rule)) for genre in genres for rule in genre["conditions"]]


def _measure_options(stages: tuple[Stage, ...]) -> list[dict[str, Any]]:
    return [stage.model_extra or {} for stage in stages if stage.use == "measure"]


def _counts(table: pa.Table) -> dict[str, int]:
    found = {"in": table.num_rows}
    for item in pc.value_counts(table["reject"].combine_chunks()).to_pylist():
        found["kept" if item["values"] is None else f"reject:{item['values']}"] = item["counts"]
    return found


def _text_bytes(table: pa.Table) -> int:
    return sum(pc.sum(pc.binary_length(table[name])).as_py() or 0 for name in ("text", "raw"))


def _sampled(table: pa.Table, recipe: Recipe) -> pa.Table:
    """The rejected pages with the text of all but the recipe's share left out, chosen by a hash of the id."""
    share = recipe.data.rejected_text_share
    if share >= 1 or table.num_rows == 0:
        return table
    hashes = [xxhash.xxh3_64_intdigest(i.encode(), recipe.seed) for i in table["id"].to_pylist()]
    keep = pa.array(np.array(hashes, np.uint64) < np.uint64(share * (2**64 - 1)))
    text = pc.if_else(keep, table["text"].combine_chunks(), pa.scalar(None, pa.string()))
    return schema.put(table, "text", text)
