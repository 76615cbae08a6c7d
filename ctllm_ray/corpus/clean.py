"""The clean section: reads a part of the raw input, runs every stage, and writes kept and rejected shards."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from ctllm_ray.base import resolve
from ctllm_ray.base.errors import InputError
from ctllm_ray.base.recipe import Recipe, StagePart
from ctllm_ray.base.recipe_rules import Rule
from ctllm_ray.corpus.engine import splits
from ctllm_ray.corpus.engine.file_account import FileAccount
from ctllm_ray.corpus.engine.losses import check_losses
from ctllm_ray.corpus.engine.section import SplitWork
from ctllm_ray.corpus.engine.splits import Split
from ctllm_ray.corpus.readers import input_forms
from ctllm_ray.shards import schema
from ctllm_ray.shards.manifest import Manifest
from ctllm_ray.shards.tokens import Form
from ctllm_ray.shards.writer import ShardWriter

PACKAGES = ("numba", "opencc", "resiliparse", "trafilatura", "pycld2")
UNIT = "documents"


def list_splits(recipe: Recipe) -> list[Split]:
    """The splits of the recipe's input files. Raises `InputError` if there are none."""
    if not recipe.data.inputs:
        raise InputError(
            "the recipe has no inputs",
            where="data.inputs",
            remedy="set 'data.inputs=[{use: ..., path: ...}]'",
        )
    return splits.list_splits(recipe.data)


def sources(recipe: Recipe) -> dict[str, str]:
    """Nothing besides the recipe and its files; for conversations, how stages read turns."""
    return input_forms.READ_AS if recipe.stages and input_forms.has_turns(recipe) else {}


def work(recipe: Recipe, folder: str, split: Split) -> SplitWork:
    """Reads a part of the raw input; writes its kept and rejected shards."""
    document, form = document_schema(recipe), input_forms.inputs(recipe)[split.input]
    counts: Counter[str] = Counter({"in": 0, "kept": 0})
    text_bytes, files = 0, list[dict[str, Any]]()
    with (
        ShardWriter(folder, "kept", split.index, document) as kept,
        ShardWriter(folder, "rejected", split.index, document) as rejected,
    ):
        for raw in _read_files(split, counts, files):
            table = run_stages(recipe.stages, schema.working(raw, split.input), form)
            text_bytes += _text_bytes(table)
            counts.update(counts_of(table))
            packed = schema.pack(table, document)
            passed = pc.is_null(packed["reject"])
            kept.write(packed.filter(passed))
            rejected.write(sample_rejects(packed.filter(pc.invert(passed)), recipe))
    return SplitWork(dict(counts), text_bytes, [*kept.shards, *rejected.shards], files)


def _read_files(split: Split, counts: Counter[str], files: list[dict[str, Any]]) -> Iterator[pa.Table]:
    """RAW tables of documents of all files of a split; those of small files joined. Skipped records go into `counts`,
    the account of each file into `files`."""
    held, held_bytes = list[pa.Table](), 0
    for one in split.each_file():
        for table in splits.read_split(one):
            held.append(_count_records(table, one.account, counts))
            held_bytes += held[-1].nbytes
            if not split.more or held_bytes >= split.limits.batch_bytes:
                yield pa.concat_tables(held, promote_options="default").combine_chunks()
                held, held_bytes = [], 0
        files.append({"input": one.input, "name": one.file.name} | one.account.plain())
    if held:
        yield pa.concat_tables(held, promote_options="default").combine_chunks()


def _count_records(table: pa.Table, account: FileAccount, counts: Counter[str]) -> pa.Table:
    """Counts what became of each record of a RAW table; returns the table without those that are skipped."""
    if table["reject"].null_count == table.num_rows:
        account.records["read"] += table.num_rows
        return table
    outcomes = pc.fill_null(table["reject"].combine_chunks(), "read")
    for item in pc.value_counts(outcomes).to_pylist():
        kind = item["values"] if item["values"].startswith(("error.", "skipped.")) else "read"
        account.records[kind] += item["counts"]
        if kind.startswith("skipped."):
            counts.update({"in": item["counts"], kind: item["counts"]})
    skipped = pc.starts_with(outcomes, "skipped.")
    return table.filter(pc.invert(skipped)) if pc.any(skipped).as_py() else table


def finish(recipe: Recipe, folder: str, finished: Manifest) -> None:
    """Raises if more was lost than the recipe allows, or an input has no documents (engine/losses.py)."""
    check_losses(recipe, folder, finished)


def run_stages(stages: tuple[StagePart, ...], table: pa.Table, form: Form = "texts") -> pa.Table:
    """The WORKING table after all stages, with the same rows in the same order.

    Of conversations stages see what is said, and change nothing (corpus/readers/input_forms.py).
    """
    texts = table["text"]
    table = input_forms.readable(table, form)
    for stage in stages:
        function: Callable[..., pa.Table] = resolve.resolve(resolve.STAGES, stage.use)
        rows = table.num_rows
        table = function(table, **(stage.model_extra or {}))
        assert table.num_rows == rows, f"stage {stage.use} changed the number of rows"
    # A page whose bytes no stage decoded (a recipe without `extract`) must not count as kept.
    left = pc.is_null(table["text"]).to_numpy()
    table = table if form == "texts" else schema.put_column(table, "text", texts.combine_chunks())
    return schema.reject(table, left, "error.no_text", np.full(table.num_rows, np.nan, np.float32), math.nan)


def warm(recipe: Recipe) -> None:
    """Runs the stages on a tiny page, so that kernels are compiled once before many workers need them."""
    row = {"id": "warm#0", "text": "天地玄黄，宇宙洪荒。", "url": "http://warm.example/", "reject": None}
    table = pa.Table.from_pylist([row], schema=schema.RAW)
    run_stages(recipe.stages, schema.working(table, "warm"))


def document_schema(recipe: Recipe) -> pa.Schema:
    """The DOCUMENT schema of a recipe: one score or label for each that its sources and stages add."""
    stages = recipe.stages
    scores: dict[str, None] = {}
    labels: dict[str, None] = {}
    for part in recipe.data.inputs:
        scores |= dict.fromkeys(resolve.declared_names(resolve.SOURCES, part.use, "SCORES"))
    for stage in stages:
        scores |= dict.fromkeys(resolve.declared_names(resolve.STAGES, stage.use, "SCORES"))
        labels |= dict.fromkeys(resolve.declared_names(resolve.STAGES, stage.use, "LABELS"))
    for rule in every_rule(stages):
        if rule.score not in labels:
            (labels if rule.is_label else scores)[rule.score] = None
    if any(stage.use == "measure" for stage in stages):
        labels["genre"] = None
    return schema.document(tuple(scores), tuple(labels))


def every_rule(stages: tuple[StagePart, ...]) -> list[Rule]:
    """The rules of all measure stages in order, then the conditions of genres."""
    return measure_rules(stages) + [condition for _, condition in genre_conditions(stages)]


def measure_rules(stages: tuple[StagePart, ...]) -> list[Rule]:
    """The rules of all measure stages that decide, in order."""
    return [Rule.model_validate(rule) for part in _measure_options(stages) for rule in part["rules"]]


def genre_conditions(stages: tuple[StagePart, ...]) -> list[tuple[str, Rule]]:
    """(genre, condition) of all measure stages in order."""
    genres = [genre for part in _measure_options(stages) for genre in part["genres"]]
    return [(genre["name"], Rule.model_validate(rule)) for genre in genres for rule in genre["conditions"]]


def _measure_options(stages: tuple[StagePart, ...]) -> list[dict[str, Any]]:
    return [stage.model_extra or {} for stage in stages if stage.use == "measure"]


def counts_of(table: pa.Table) -> dict[str, int]:
    """Document counts by outcome, as in the manifest."""
    counts = {"in": table.num_rows}
    for item in pc.value_counts(table["reject"].combine_chunks()).to_pylist():
        counts["kept" if item["values"] is None else f"reject:{item['values']}"] = item["counts"]
    return counts


def _text_bytes(table: pa.Table) -> int:
    return sum(schema.utf8_bytes(table[name]) for name in ("text", "raw"))


def sample_rejects(table: pa.Table, recipe: Recipe) -> pa.Table:
    """The rejected pages. Only a share set in the recipe, chosen by a hash of the id, keeps its text."""
    share = recipe.data.rejected_text_share
    if share >= 1 or table.num_rows == 0:
        return table
    hashes = [xxhash.xxh3_64_intdigest(i.encode(), recipe.seed) for i in table["id"].to_pylist()]
    keep = pa.array(np.array(hashes, np.uint64) < np.uint64(share * (2**64 - 1)))
    text = pc.if_else(keep, table["text"].combine_chunks(), pa.scalar(None, pa.string()))
    return schema.put_column(table, "text", text)
