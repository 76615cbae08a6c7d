"""jsonl.zst to shards: one process, two plain processes, Ray with one worker and with two, in one run.

    python benchmarks/end_to_end.py '../shared/data/web_zh_raw/part-*.jsonl.zst' --text raw_content --copies 4

The four runners work the same splits with the same function; workers are started and kernels compiled before
the clock starts. MB/s count the UTF-8 of the unpacked jsonl.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import ray
import zstandard

from ctllm_ray.base import recipe as recipes
from ctllm_ray.base import storage
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.corpus import clean
from ctllm_ray.corpus.engine import launch, section, splits
from ctllm_ray.corpus.engine.splits import Split
from ctllm_ray.ray_session import session


def work(job: tuple[dict[str, Any], str, dict[str, Any]]) -> dict[str, Any]:
    plain, folder, split = job
    return section.run_split(recipes.parse_recipe(plain), folder, Split.from_plain(split)).plain()


def warm(plain: dict[str, Any]) -> int:
    clean.warm(recipes.parse_recipe(plain))
    return multiprocessing.current_process().pid or 0


def alone(recipe: Recipe, folder: str, work_list: Sequence[Split]) -> float:
    clean.warm(recipe)
    started = time.perf_counter()
    for split in work_list:
        section.run_split(recipe, folder, split)
    return time.perf_counter() - started


def plain_processes(workers: int) -> Callable[[Recipe, str, Sequence[Split]], float]:
    def run(recipe: Recipe, folder: str, work_list: Sequence[Split]) -> float:
        plain = recipe.model_dump(mode="json")
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            pool.map(warm, [plain] * workers, chunksize=1)
            started = time.perf_counter()
            for _ in pool.imap_unordered(work, [(plain, folder, split.plain()) for split in work_list]):
                pass
            return time.perf_counter() - started

    return run


def on_ray(workers: int) -> Callable[[Recipe, str, Sequence[Split]], float]:
    def run(recipe: Recipe, folder: str, work_list: Sequence[Split]) -> float:
        recipe = recipe.model_copy(
            update={"resources": recipe.resources.model_copy(update={"workers": workers})}
        )
        with session(workers, recipe.resources.object_store_mb):
            list(launch.run_splits(recipe, folder + "-warm", list(work_list[:workers])))
            started = time.perf_counter()
            list(launch.run_splits(recipe, folder, work_list))
            return time.perf_counter() - started

    return run


def unpacked_bytes(pattern: str) -> int:
    total = 0
    for file in storage.list_files(pattern):
        with storage.open_input(file.uri) as stream:
            for chunk in zstandard.ZstdDecompressor().read_to_iter(stream, read_size=1 << 20):
                total += len(chunk)
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pattern")
    parser.add_argument("--recipe", default="jobs/recipes/map_cc.yaml")
    parser.add_argument("--text", default="text")
    parser.add_argument("--html", default="html")
    parser.add_argument("--copies", type=int, default=1, help="read each file so many times")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    inputs = [
        {
            "use": "jsonl",
            "path": options.pattern,
            "name": f"copy{i}",
            "text": options.text,
            "html": options.html,
        }
        for i in range(options.copies)
    ]
    base = recipes.load_recipe(options.recipe, [f"data.inputs={json.dumps(inputs)}"])
    work_list = splits.list_splits(base.data)
    megabytes = unpacked_bytes(options.pattern) * options.copies / 1e6
    runners = {
        "one process": alone,
        "2 processes": plain_processes(2),
        "Ray, 1 worker": on_ray(1),
        "Ray, 2 workers": on_ray(2),
    }
    print(
        f"{options.recipe}: {len(work_list)} splits, {megabytes:.0f} MB, {os.cpu_count()} CPUs, Ray "
        f"{ray.__version__}"
    )
    best: dict[str, float] = {}
    for _ in range(options.rounds):
        for name, runner in runners.items():
            folder = tempfile.mkdtemp(prefix="end-to-end-")
            wall = runner(base, folder, work_list)
            best[name] = min(best.get(name, wall), wall)
            for made in (folder, folder + "-warm"):
                shutil.rmtree(made, ignore_errors=True)
    for name, wall in best.items():
        print(f"{name:16s} {wall:7.2f} s  {megabytes / wall:6.1f} MB/s")
    print(f"Ray / plain, 2 workers: {best['Ray, 2 workers'] / best['2 processes']:.2f} (bar: at most 1.15)")
    print(f"2 workers / 1 on Ray:   {best['Ray, 1 worker'] / best['Ray, 2 workers']:.2f} (bar: at least 1.8)")
    print(f"one process:            {megabytes / best['one process']:.1f} MB/s per core (bar: 12)")


if __name__ == "__main__":
    main()
