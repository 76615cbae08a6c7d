"""Does cleaning pay? One model, one token budget, three corpora out of one crawl: raw, `map_cc` and `zh_web`.

    python benchmarks/cleaning.py ../shared/data --to build/cleaning --seeds 3

Every corpus is tokenized by one tokenizer, trained on the raw pages, so that it favours none of the cleaned
ones. Bits per byte are taken on clean documents that stand in none of the corpora (by id, and with documents
left out that share sentences with the crawl), of kinds that no filter chose. Run again after an interruption:
it goes on.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import statistics
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import yaml
import zstandard

from ctllm_ray.base import recipe
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.corpus import pipeline
from ctllm_ray.train import records, session
from ctllm_ray.train.steppers.torch import TorchStepper

KINDS = ("news_para", "abstract", "app_description", "literature_web", "tech_article", "docs", "law", "classical",
         "newsletter", "wiki_hant")  # fmt: skip
KIND_BYTES = 150_000  # of held-out text for each kind
SHORTEST, LONGEST = 100, 4000  # characters of a held-out document
SENTENCE = re.compile(r"[^。！？\n]{15,}")
TOKENIZER = {"vocab_size": 8192, "sample_mb": 20}


def rows(path: Path) -> Iterator[dict]:
    """The records of a jsonl.zst file."""
    with path.open("rb") as stream, zstandard.ZstdDecompressor().stream_reader(stream) as reader:
        yield from map(json.loads, io.TextIOWrapper(reader, encoding="utf-8"))


def held_out(data: Path, to: Path) -> dict[str, Path]:
    """A jsonl file of clean documents for each kind, none of which is in the crawl."""
    truth = pq.read_table(data / "web_zh_raw" / "truth.parquet", columns=["source_id"])
    used = set(truth["source_id"].to_pylist())
    crawled = {
        sentence
        for part in sorted((data / "web_zh_raw").glob("part-*.zst"))
        for row in rows(part)
        for sentence in SENTENCE.findall(row.get("raw_content") or row.get("html") or "")
    }
    texts: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for file in sorted((data / "text").glob("*.zst")):
        for row in rows(file):
            text = row["text"][:LONGEST]
            if (
                row["kind"] in texts
                and row["id"] not in used
                and len(text) >= SHORTEST
                and not _seen(text, crawled)
            ):
                texts[row["kind"]].append(text)
    return {kind: _write(to / f"{kind}.jsonl", found) for kind, found in texts.items()}


def _seen(text: str, crawled: set[str]) -> bool:
    found = SENTENCE.findall(text)
    return sum(len(s) for s in found if s in crawled) > 0.1 * len(text)


def _write(path: Path, texts: list[str]) -> Path:
    """Documents from all over the list until there are enough."""
    chosen, size = [], 0
    for text in texts[:: max(1, len(texts) // 400)]:
        if size < KIND_BYTES:
            chosen.append(text)
            size += len(text.encode())
    path.write_text(
        "".join(json.dumps({"text": t}, ensure_ascii=False) + "\n" for t in chosen), encoding="utf-8"
    )
    return path


def corpora(data: Path, to: Path) -> dict[str, Recipe]:
    """Recipes by name: the held-out documents, then the three corpora, the raw one with the tokenizer of
    all."""
    crawl = {
        "use": "jsonl",
        "path": f"{data}/web_zh_raw/part-*.jsonl.zst",
        "name": "web",
        "text": "raw_content",
    }
    common = {"version": "1", "seed": 11, "root": str(to), "tokens": {"held_out_share": 0.0}}
    shared = {"tokenizer": {"path": str(to / "raw" / "1" / "tokenizer")}}
    made = {"raw": common | {"name": "raw", "stages": [{"use": "extract"}], "tokenizer": TOKENIZER}}
    for name in ("map_cc", "zh_web"):
        plain = yaml.safe_load(Path("jobs/recipes", f"{name}.yaml").read_text(encoding="utf-8"))
        made[name] = common | shared | {"name": name, "stages": plain["stages"]}
    for plain in made.values():
        plain["data"] = {"inputs": [crawl | {"html": "html"}], "max_error_share": 1}
    files = held_out(data, to)
    inputs = [{"use": "jsonl", "path": str(file), "name": kind} for kind, file in files.items()]
    made["held_out"] = common | shared | {
        "name": "held_out", "stages": [{"use": "extract"}], "tokens": {"held_out_share": 1.0},
        "data": {"inputs": inputs, "max_error_share": 0},
    }  # fmt: skip
    return {name: recipe.parse_recipe(plain) for name, plain in made.items()}


def training(corpus: Recipe, held: Recipe, seed: int, arguments: argparse.Namespace) -> Recipe:
    """The run of one seed over one corpus."""
    tokens = arguments.tokens
    train = {
        "run": f"seed{seed}", "seed": seed, "objective": {"use": "pretrain"}, "tokens": tokens,
        "batch_tokens": 4096, "sequence_tokens": 256, "packing": "concatenate", "document_attention": True,
        "mixture": [{"shares": {"web": 1.0}}], "block_sequences": 256,
        "schedule": {"use": "cosine", "peak_rate": 3e-3, "warmup_tokens": tokens // 20},
        "precision": "fp32",
        "validation": {"every_tokens": tokens, "corpora": [held.folder("tokens")], "max_tokens": 60_000},
    }  # fmt: skip
    resources = {"train": {"micro_sequences": 8, "stepper": "torch", "keep": 1, "threads": 1}}
    plain = corpus.model_dump(mode="json") | {
        "model": {"use": "tiny"},
        "train": train,
        "resources": resources,
    }
    return recipe.parse_recipe(plain)


def main() -> None:
    """Prepares, trains, prints one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=524_288)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    to = arguments.to.absolute()
    to.mkdir(parents=True, exist_ok=True)
    recipes = corpora(arguments.data.absolute(), to)
    for made in recipes.values():
        pipeline.prepare(made)
    held = recipes.pop("held_out")
    found: dict[str, list[dict[str, float]]] = {name: [] for name in recipes}
    for seed in range(arguments.seeds):  # seed by seed: an interrupted benchmark has whole rows
        for name, made in recipes.items():
            run = training(made, held, seed, arguments)
            session.train(run, TorchStepper)
            found[name].append(last_bits(run))
            print(name, seed, json.dumps(found[name][-1]), flush=True)
    table(found)


def last_bits(run: Recipe) -> dict[str, float]:
    """Bits per byte by kind, after the last step of a run, and over all bytes."""
    last = records.read_validation_last(run.folder("train"))
    bits = {kind: facts["bits_per_byte"] for kind, facts in last["groups"].items()}
    return bits | {"mean of kinds": statistics.mean(bits.values())}


def table(found: dict[str, list[dict[str, float]]]) -> None:
    """Mean and spread over the seeds, by kind and corpus, as a Markdown table."""
    print("| kind | " + " | ".join(found) + " |\n|---|" + "---:|" * len(found))
    for kind in next(iter(found.values()))[0]:
        cells = [[bits[kind] for bits in seeds] for seeds in found.values()]
        print(
            f"| {kind} | " + " | ".join(f"{statistics.mean(c):.3f} ± {_spread(c):.3f}" for c in cells) + " |"
        )


def _spread(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


if __name__ == "__main__":
    main()
