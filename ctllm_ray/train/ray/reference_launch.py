"""Computes the reference's log-probabilities on Ray: one Ray Data task per token shard
(train/data/reference_log_probs.py).

launch.py is about Ray Train, whose workers communicate; these tasks of Ray Data never do. The driver lists
the shards, a task scores one and writes it, and only a few hundred bytes return.
"""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, cast

import pyarrow as pa
import ray
import ray.data
from ray.exceptions import RayError

from ctllm_ray.base.errors import CtllmError, WorkerLost
from ctllm_ray.base.recipe import Recipe, parse_recipe
from ctllm_ray.ray_session import check_nodes
from ctllm_ray.shards.manifest import Shard
from ctllm_ray.train.data import reference_log_probs
from ctllm_ray.train.ray.worker import first_line

_RESULT = pa.schema([("part", pa.string()), ("error", pa.binary())])


def run_reference(recipe: Recipe, shards: Sequence[tuple[str, Shard]]) -> Iterator[Shard]:
    """Scores token shards on the running Ray; yields each part of the cache, unordered."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        for batch in _dataset(recipe, shards).iter_batches(batch_size=None, batch_format="pyarrow"):
            for row in cast(pa.Table, batch).to_pylist():
                if row["error"]:
                    raise pickle.loads(row["error"])
                yield Shard(**json.loads(row["part"]))
    except RayError as error:
        raise WorkerLost(
            f"scoring the pairs failed, last with {first_line(error)}",
            where=recipe.folder(reference_log_probs.SECTION),
            remedy="run the same command again; finished shards are kept. If memory ran out, give "
            "the workers more",
        ) from error


def _dataset(recipe: Recipe, shards: Sequence[tuple[str, Shard]]) -> ray.data.Dataset:
    """The lazy dataset that scores the shards: one output row each."""
    items = [{"folder": folder, "shard": json.dumps(asdict(shard))} for folder, shard in shards]
    gpus = int(recipe.resources.train.gpu)
    selector = recipe.resources.label_selector(gpus)
    check_nodes(selector)
    ray.data.DataContext.get_current().execution_options.label_selector = selector
    cores = int(ray.cluster_resources().get("CPU", 1))
    return ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        cast(Any, _work),
        fn_kwargs={"recipe": recipe.model_dump_json()},
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=recipe.resources.train.threads or max(1, cores // len(items)),
        num_gpus=gpus,
        ray_remote_args_fn=lambda: {
            "max_retries": recipe.resources.max_retries
        },  # the default is to retry forever
    )


def _work(batch: pa.Table, recipe: str) -> pa.Table:
    """Scores the shards of a batch. Errors that a user can
    fix are returned as values: raising loses their type."""
    import torch

    loaded = parse_recipe(json.loads(recipe))
    torch.set_num_threads(max(1, int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1))))
    rows: list[dict[str, Any]] = []
    for item in batch.to_pylist():
        try:
            part = reference_log_probs.work(loaded, item["folder"], Shard(**json.loads(item["shard"])))
            rows.append({"part": json.dumps(asdict(part)), "error": None})
        except CtllmError as error:
            rows.append({"part": None, "error": pickle.dumps(error)})
    return pa.Table.from_pylist(rows, schema=_RESULT)
