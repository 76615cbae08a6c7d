"""Runs splits on Ray: the whole section is one fused Ray Data operator.

The driver lists the splits (Ray's own listing stage is not retried when its node dies), one task per split
does all the work, and only a marker of a few hundred bytes comes back. Functions rather than actors, so that
Ray has one operator to schedule and nothing to keep warm.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, cast

import pyarrow as pa
import ray
import ray.data

from ctllm_ray.base import storage
from ctllm_ray.base.errors import CtllmError, WorkerLost
from ctllm_ray.base.recipe import Recipe, parse_recipe
from ctllm_ray.corpus.engine import section
from ctllm_ray.corpus.engine.section import Done
from ctllm_ray.corpus.engine.splits import Split
from ctllm_ray.ray_session import check_nodes, session

_RESULT = pa.schema([("done", pa.string()), ("error", pa.binary())])


def dataset(recipe: Recipe, folder: str, splits: Sequence[Split]) -> ray.data.Dataset:
    """The lazy dataset that runs the splits: one output row per split, its `Done` as JSON."""
    # As an execution option it also affects what Ray Data requests from the autoscaler, not its tasks alone.
    ray.data.DataContext.get_current().execution_options.label_selector = recipe.resources.label_selector()
    items = [{"split": json.dumps(split.plain())} for split in splits]
    return ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        cast(Any, _work),
        fn_kwargs={"recipe": recipe.model_dump_json(), "folder": folder},
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=1,
        concurrency=min(recipe.resources.workers, len(items)) or None,
    )


def _work(batch: pa.Table, recipe: str, folder: str) -> pa.Table:
    """Runs the splits of a batch. A plain function over plain values: Ray ships nothing else.

    Errors that a user can fix are returned as values: Ray Data would keep the text of a
    raised error, but not its type.
    """
    loaded = parse_recipe(json.loads(recipe))
    rows: list[dict[str, Any]] = []
    for item in batch["split"].to_pylist():
        split = Split.from_plain(json.loads(item))
        try:
            _count_attempt(folder, split, loaded.resources.max_retries)
            rows.append({"done": json.dumps(section.run_split(loaded, folder, split).plain()), "error": None})
        except CtllmError as error:
            rows.append({"done": None, "error": pickle.dumps(error)})
    return pa.Table.from_pylist(rows, schema=_RESULT)


def _count_attempt(folder: str, split: Split, max_retries: int) -> None:
    """Raises if a split has crashed too many workers: Ray Data itself would retry it forever."""
    place = storage.join(folder, section.ATTEMPTS)
    tried = sum(name.startswith(f"{split.index:05d}-") for name in storage.list_names(place))
    if tried > max_retries:
        raise WorkerLost(
            f"processing this split crashed its worker {tried} times",
            where=f"{split.file.uri}, from {split.start} to {split.stop or 'the end'}",
            remedy="find the record that causes it, lower data.max_record_mb, or give the workers "
            "more memory",
        )
    storage.write_bytes(storage.join(place, f"{split.index:05d}-{uuid.uuid4().hex[:8]}"), b"")


def ray_for(recipe: Recipe) -> AbstractContextManager[None]:
    """A Ray session for the recipe's sections, or the one already running."""
    return session(recipe.resources.workers or os.cpu_count() or 1, recipe.resources.object_store_mb)


def run_splits(recipe: Recipe, folder: str, splits: Sequence[Split]) -> Iterator[Done]:
    """Runs the splits on Ray; yields each `Done` as it finishes, unordered."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    for name in storage.list_names(storage.join(folder, section.ATTEMPTS)):
        storage.remove(storage.join(folder, section.ATTEMPTS, name))
    with ray_for(recipe):
        check_nodes(recipe.resources.label_selector())
        for batch in dataset(recipe, folder, splits).iter_batches(batch_size=None, batch_format="pyarrow"):
            for row in cast(pa.Table, batch).to_pylist():
                if row["error"]:
                    raise pickle.loads(row["error"])
                yield Done.from_plain(json.loads(row["done"]))
