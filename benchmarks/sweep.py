"""How much sooner a sweep ends with two trials at a time than with one after another, on two cores.

    python benchmarks/sweep.py --trials 4 --tokens 40960

The same trials (a Llama of 1.8 million parameters, sequences of 256, batches of 2,048 tokens, validated at
the end) through `mixture.launch.run`, under one Ray, in three ways: one after another with one thread, one
after another with both cores as threads, and two at a time with one thread each. Clocks run over the whole of
`run`: the start of Tune's workers and their imports are inside, Ray's own start is not. The first ratio is
what running side by side gives; the second is fairer, since trials one after another would not leave a core
idle by choice.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

VOCABULARY, SEQUENCE, BATCH = 128, 256, 2048
WAYS = {
    "one after another, 1 thread": (1, 1),
    "one after another, 2 threads": (1, 2),
    "two at a time, 1 thread each": (2, 1),
}


def write_tokens(folder: Path, tokens: int) -> None:
    """A token section of two groups with held-out documents."""
    from ctllm_ray.shards import manifest
    from ctllm_ray.shards import tokens as shards
    from ctllm_ray.shards.manifest import Manifest

    draw, kind, written = np.random.default_rng(0), shards.id_type(VOCABULARY), []
    for part, count in ((shards.TRAIN, tokens // 200), (shards.HELD_OUT, 40)):
        for group, first in (("a", 8), ("b", 40)):
            ids = [
                np.concatenate([[1], draw.integers(first, 128, draw.integers(100, 300)), [2]])
                for _ in range(count)
            ]
            sizes = np.array([len(one) for one in ids], np.int32)
            names = [f"{group}/{part}/{number}" for number in range(count)]
            with shards.TokenShardWriter(str(folder), part, group, 0, kind, ()) as writer:
                writer.write(shards.table(names, ids, sizes, sizes, {}, kind))
            written += writer.shards
    rows = sum(shard.rows for shard in written)
    counts = {"in": rows, "kept": rows, "tokens": sum(shard.tokens for shard in written)}
    facts = {"tokenizer": "0" * 64, "vocab_size": str(VOCABULARY), "bos": "1", "eos": "2", "pad": "3"}
    manifest.write_manifest(
        str(folder), Manifest("tokens", "b", "1", "0" * 64, {}, [], counts, written, facts)
    )


def recipe(root: Path, tokens: Path, trials: int, each: int, concurrent: int, threads: int) -> Any:
    """A sweep over that section."""
    from ctllm_ray.base import recipe as recipes

    schedule = {"use": "wsd", "peak_rate": 0.001, "warmup_tokens": BATCH}
    plain = {
        "name": "b", "version": "1", "seed": 1, "root": str(root), "stages": [],
        "data": {"inputs": [{"use": "jsonl", "path": "nowhere/*.jsonl"}], "max_error_share": 0},
        "model": {"use": "tiny"},
        "train": {
            "objective": {"use": "pretrain"}, "tokens": each, "batch_tokens": BATCH,
            "sequence_tokens": SEQUENCE,
            "packing": "best_fit", "document_attention": True, "precision": "fp32", "block_sequences": 64,
            "schedule": schedule, "mixture": [{"shares": {"a": 1.0}}], "corpora": [str(tokens)],
            "validation": {"every_tokens": each}, "max_epochs": 100,
        },
        "sweep": {
            "trials": trials, "replicates": 1, "seed": 1, "temperature": 1.0, "concentration": 4.0,
            "model": {"use": "tiny"}, "bounds": {"a": [0, 1], "b": [0, 1]}, "weights": {"a": 0.5, "b": 0.5},
            "tokens": each, "batch_tokens": BATCH, "schedule": schedule,
        },
        "resources": {
            "object_store_mb": 100, "train": {"micro_sequences": 8},
            "sweep": {"concurrent": concurrent, "cpus": threads},
        },
    }  # fmt: skip
    return recipes.parse_recipe(plain)


def measured(folder: Path, tokens: Path, trials: int, each: int) -> dict[str, float]:
    """Seconds of each way."""
    from ctllm_ray.mixture import launch, plan

    found = {}
    for number, (way, (concurrent, threads)) in enumerate(WAYS.items()):
        planned = plan.plan_sweep(recipe(folder / str(number), tokens, trials, each, concurrent, threads))
        began = time.perf_counter()
        ended = launch.run_sweep(planned)
        found[way] = time.perf_counter() - began
        assert [trial.status for trial in ended] == ["finished"] * trials
        in_trials = sum(trial.seconds for trial in ended)
        print(
            f"{way:32} {found[way]:7.1f} s, of these in trials {in_trials:.1f} s", file=sys.stderr, flush=True
        )
    return found


def main() -> None:
    """Prints seconds and ratios as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=40_960, help="of each trial")
    given = parser.parse_args()
    from ctllm_ray.ray_session import session

    with tempfile.TemporaryDirectory() as folder, session(2, 100):
        write_tokens(Path(folder, "tokens"), 200_000)
        found = measured(Path(folder), Path(folder, "tokens"), given.trials, given.tokens)
    one, threaded, two = found.values()
    load = os.getloadavg()[1]
    ratios = {
        "two at a time / one after another": one / two,
        "... with both cores as threads": threaded / two,
    }
    print(json.dumps({"seconds": found, "ratios": ratios, "load average over 5 minutes": load}, indent=1))


if __name__ == "__main__":
    main()
