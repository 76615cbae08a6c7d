"""Token shards on Ray against bare SentencePiece on the same texts, in one run.

    python benchmarks/token_shards.py '../shared/data/web_zh_raw/part-*.jsonl.zst' --text raw_content

Ours is the whole tokens section: read compressed clean shards and check their hashes, encode, count, split
off the held out documents, write and hash the token shards, on Ray workers that are up (`--workers`). The bar
is 0.9 x workers x one bare loop, `for text in texts: processor.encode(text)`, in one process with the texts
in memory. Bare loops in as many processes at once are timed too: what the machine itself gives. The files of
the pattern are joined, and ours reads `--copies` of them for each worker, so that a split is of a real run's
size; the bare loops take one copy. MB/s count UTF-8; the best of `--rounds` counts.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import ray
import sentencepiece

from ctllm_ray.base import recipe as recipes
from ctllm_ray.base import storage
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.corpus import pipeline, tokens
from ctllm_ray.corpus.engine import launch
from ctllm_ray.shards import manifest, reader
from ctllm_ray.tokenizer import tokenizer as tokenizers
from ctllm_ray.tokenizer import train


def texts_of(recipe: Recipe) -> Iterator[str]:
    """The texts of the first copy."""
    folder = recipe.folder("clean")
    for path in manifest.read_manifest(folder).paths("kept"):
        if path.startswith("kept/00000-"):
            for table in reader.shard_tables(f"{folder}/{path}", ["text"]):
                yield from table["text"].to_pylist()


def bare(model: str, texts: list[str]) -> float:
    processor = sentencepiece.SentencePieceProcessor(model_file=model)
    processor.encode(texts[0])
    started = time.perf_counter()
    for text in texts:
        processor.encode(text)
    return time.perf_counter() - started


def bare_at_once(model: str, texts: list[str], workers: int) -> float:
    """Seconds until so many processes have each encoded their part, from when all have theirs."""
    context = multiprocessing.get_context("fork")
    ready = context.Barrier(workers + 1)

    def part(number: int) -> None:
        processor = sentencepiece.SentencePieceProcessor(model_file=model)
        mine = texts[number::workers]
        ready.wait()
        for text in mine:
            processor.encode(text)

    processes = [context.Process(target=part, args=(number,)) for number in range(workers)]
    for process in processes:
        process.start()
    ready.wait()
    started = time.perf_counter()
    for process in processes:
        process.join()
    return time.perf_counter() - started


def in_one_process(recipe: Recipe, folder: str) -> float:
    splits = tokens.list_splits(recipe)
    started = time.perf_counter()
    for split in splits:
        tokens.work(recipe, folder, split)
    return time.perf_counter() - started


def on_ray(recipe: Recipe, folder: str) -> float:
    splits = tokens.list_splits(recipe)
    list(launch.run_splits(recipe, folder + "-warm", splits[: recipe.resources.workers]))
    started = time.perf_counter()
    list(launch.run_splits(recipe, folder, splits))
    return time.perf_counter() - started


def clean(options: argparse.Namespace, root: str) -> Recipe:
    """A recipe whose clean section is finished (nothing is dropped) and whose tokenizer is in place."""
    files = [Path(file.uri) for file in storage.list_files(options.pattern)]
    joined = b"".join(file.read_bytes() for file in files)  # zstd and gzip know frames one after another
    for number in range(options.copies * options.workers):
        storage.write_bytes(f"{root}/input/{number}{''.join(files[0].suffixes)}", joined)
    entry = {"use": "jsonl", "path": f"{root}/input/*", "name": "text", "text": options.text}
    plain = {
        "name": "bench", "version": "1", "seed": 1, "root": root, "stages": [],
        "data": {"inputs": [entry], "max_error_share": 0.1, "split_mb": 4096},
        "tokenizer": {"path": f"{root}/bench.model"},
        "tokens": {"held_out_share": 0.001},
        "resources": {"workers": options.workers, "object_store_mb": 100},
    }  # fmt: skip
    recipe = recipes.parse_recipe(plain)
    pipeline.clean(recipe)
    model = Path(root, "bench.model")
    model.write_bytes(Path(options.model).read_bytes() if options.model else trained(recipe, options))
    tokenizers.load_tokenizer(str(model)).save(recipe.folder("tokenizer"))
    return recipe


def trained(recipe: Recipe, options: argparse.Namespace) -> bytes:
    sample, size = [], 0
    for text in texts_of(recipe):
        sample.append(text)
        size += len(text.encode())
        if size > options.sample_mb * 1e6:
            break
    return train.train(sample, options.vocab_size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pattern")
    parser.add_argument("--text", default="text")
    parser.add_argument("--model", default="", help="a SentencePiece file; by default one is trained")
    parser.add_argument("--vocab-size", type=int, default=32_000)
    parser.add_argument("--sample-mb", type=float, default=10)
    parser.add_argument("--copies", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    root = tempfile.mkdtemp(prefix="tokenize-")
    try:
        measure(clean(options, root), options, root)
    finally:
        ray.shutdown()
        shutil.rmtree(root)


def measure(recipe: Recipe, options: argparse.Namespace, root: str) -> None:
    """Prints the table."""
    ray.init(
        address="local", num_cpus=options.workers, object_store_memory=100 << 20, include_dashboard=False,
        log_to_driver=False,
    )  # fmt: skip
    model, texts = f"{root}/bench.model", list(texts_of(recipe))
    once = sum(len(text.encode()) for text in texts) / 1e6
    whole = once * options.copies * options.workers
    runners: dict[str, tuple[float, Callable[[str], float]]] = {
        "bare, 1 process": (once, lambda _: bare(model, texts)),
        f"bare, {options.workers} processes": (once, lambda _: bare_at_once(model, texts, options.workers)),
        "ours, 1 process": (whole, lambda folder: in_one_process(recipe, folder)),
        f"ours, Ray, {options.workers} workers": (whole, lambda folder: on_ray(recipe, folder)),
    }
    print(f"{once:.0f} MB, {len(texts):,} documents, {os.cpu_count()} CPUs, Ray {ray.__version__}")
    speed: dict[str, float] = {}
    for number in range(options.rounds):
        for name, (megabytes, runner) in runners.items():
            folder = f"{root}/run-{number}"
            speed[name] = max(speed.get(name, 0), megabytes / runner(folder))
            for made in (folder, folder + "-warm"):
                shutil.rmtree(made, ignore_errors=True)
    for name, value in speed.items():
        print(f"{name:22s} {value:6.1f} MB/s")
    one, many, _, rayed = speed.values()
    share = rayed / (options.workers * one)
    print(f"ours on Ray / ({options.workers} x bare, 1 process): {share:.2f} (bar: at least 0.9)")
    print(f"ours on Ray / bare, {options.workers} processes: {rayed / many:.2f}")
    print(json.dumps({"share": round(share, 3)} | {name: round(value, 1) for name, value in speed.items()}))


if __name__ == "__main__":
    main()
