"""The pass `near` from keys to removal: speed on one core, memory, and how both grow with the corpus.

    PYTHONPATH=. python benchmarks/near_dedup.py ../shared/data/web_zh_raw
    PYTHONPATH=. python benchmarks/near_dedup.py ../shared/data/web_zh_raw --documents 100000 1000000
    PYTHONPATH=. python benchmarks/near_dedup.py ../shared/data/web_zh_raw --crowd template

Pages are made of sentences of a real crawl, 700 characters on average; of a hundred, ten are copies of
another one with up to a tenth of their sentences changed, and three of these are equal. A crowd is the worst
that can come: all pages are `copies` of one with every fortieth character changed, or eight sentences each
inside one `template` of thirty.

Every corpus is worked by one process, a unit after the other, with the bounds of zh_web.yaml, so MB/s are per
core: UTF-8 bytes of all pages over the seconds of all units. Reading the input and cleaning it is left out;
writing the kept and rejected pages is in. Clustering is everything between pairs and removal. Peak memory is
that of the process: anonymous pages, and with mapped files.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import random
import re
import resource
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml
import zstandard

from ctllm_ray.base import recipe as recipes
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.corpus import pipeline
from ctllm_ray.corpus.engine import section
from ctllm_ray.corpus.engine.section import Done
from ctllm_ray.corpus.engine.splits import Split
from ctllm_ray.shards import manifest

FILE_PAGES = 50_000
SENTENCES = (8, 32)  # of a page, from and to
COPIES, EQUAL = 0.10, 0.03
CLUSTERING = ("edges", "large", "small", "groups", "fates")
HEADS = (
    *("pages", "MB", "kept", "keys", "bands", "pairs", "clustering", "removal"),
    *("MB/s", "us a page", "clustering share", "MB anonymous", "MB in all"),
)
SENTENCE = re.compile(r"[^。！？\n]{6,}[。！？]")


def sentences(folder: Path) -> list[str]:
    """The different sentences of a crawl."""
    found: dict[str, None] = {}
    for path in sorted(folder.glob("part-*.jsonl.zst")):
        with path.open("rb") as packed:
            for line in io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(packed), "utf-8"):
                found |= dict.fromkeys(SENTENCE.findall(json.loads(line).get("raw_content") or ""))
    return list(found)


def pages(pool: Sequence[str], count: int) -> Iterator[str]:
    """Pages of sentences drawn from the pool, copies among them; the first pages of a longer corpus are the
    same."""
    draw, before = random.Random(5), [[""]]
    for _ in range(count):
        kind = draw.random()
        if kind < COPIES:
            said = list(draw.choice(before))
            for _ in range(0 if kind < EQUAL else max(1, len(said) // 10)):
                said[draw.randrange(len(said))] = draw.choice(pool)
        else:
            said = draw.choices(pool, k=draw.randint(*SENTENCES))
            before.append(said)
        yield "".join(said)


def copies(pool: Sequence[str], count: int) -> Iterator[str]:
    """Copies of one page, each with other slips."""
    draw = random.Random(3)
    page = "".join(draw.choices(pool, k=20))
    characters = "".join(draw.choices(pool, k=500))
    for _ in range(count):
        slips = set(draw.sample(range(len(page)), len(page) // 40))
        yield "".join(draw.choice(characters) if i in slips else c for i, c in enumerate(page))


def template(pool: Sequence[str], count: int) -> Iterator[str]:
    """Pages that begin alike."""
    draw = random.Random(3)
    head = "".join(draw.choices(pool, k=30))
    for _ in range(count):
        yield head + "".join(draw.choices(pool, k=8))


CORPORA = {"pages": pages, "copies": copies, "template": template}


def write(made: Iterator[str], count: int, folder: Path) -> None:
    """The pages as jsonl files."""
    for start in range(0, count, FILE_PAGES):
        lines = [
            json.dumps({"text": next(made)}, ensure_ascii=False)
            for _ in range(min(FILE_PAGES, count - start))
        ]
        (folder / f"{start // FILE_PAGES:04d}.jsonl").write_text("\n".join(lines), encoding="utf-8")


def recipe_of(folder: Path) -> Recipe:
    """The near pass of zh_web over the pages, with nothing before it."""
    zh_web = yaml.safe_load(Path("jobs/recipes/zh_web.yaml").read_text(encoding="utf-8"))
    near = [part for part in zh_web["passes"] if part["use"] == "near"]
    data = {
        "inputs": [{"use": "jsonl", "path": f"{folder}/pages/*.jsonl"}],
        "max_error_share": 0,
        "split_mb": 256,
    }
    plain = {
        "name": "near",
        "version": "1",
        "seed": 1,
        "root": str(folder / "out"),
        "data": data,
        "stages": [],
    }
    return recipes.parse_recipe(plain | {"passes": near})


def one_by_one(recipe: Recipe, folder: str, splits: Sequence[Split]) -> Iterator[Done]:
    """The runner: this process."""
    for split in splits:
        yield section.run_split(recipe, folder, split)


def work(folder: Path, peaks: multiprocessing.Queue) -> None:
    """Makes the pass, and tells the peaks of memory in MB: anonymous pages, all pages."""
    found = [0.0]
    threading.Thread(target=_watch, args=(found,), daemon=True).start()
    pipeline.prepare(recipe_of(folder), one_by_one)
    peaks.put((found[0], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3))


def _watch(found: list[float]) -> None:
    """Keeps the greatest size of the anonymous pages of this process in MB."""
    while True:
        line = next(
            ln for ln in Path("/proc/self/status").read_text().splitlines() if ln.startswith("RssAnon")
        )
        found[0] = max(found[0], int(line.split()[1]) / 1e3)
        time.sleep(0.05)


def measured(made: Iterator[str], count: int, folder: Path) -> dict[str, float]:
    """Seconds by phase, megabytes of text, peaks of memory."""
    (folder / "pages").mkdir()
    write(made, count, folder / "pages")
    pipeline.clean(recipe_of(folder), one_by_one)
    context = multiprocessing.get_context("spawn")
    peaks = context.Queue()
    worker = context.Process(target=work, args=(folder, peaks))
    worker.start()
    anonymous, whole = peaks.get()
    worker.join()
    near = Path(recipe_of(folder).folder("near"))
    seconds = {
        run.parent.name: json.loads(run.read_text().splitlines()[-1])["worker_s"]
        for run in near.rglob("RUNS.jsonl")
    }
    text = (
        sum(
            shard.text_bytes
            for shard in manifest.read_manifest(recipe_of(folder).folder("clean")).of_kind("kept")
        )
        / 1e6
    )
    kept = manifest.read_manifest(str(near)).counts["kept"]
    return {"text": text, "kept": kept, "anonymous": anonymous, "whole": whole, **seconds}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--documents", type=int, nargs="+", default=[20_000, 100_000])
    parser.add_argument("--crowd", choices=["copies", "template"], default="pages")
    given = parser.parse_args()
    pool = sentences(given.folder)
    print(f"| {' | '.join(HEADS)} |")
    print("|" + "---:|" * len(HEADS))
    for count in given.documents:
        with tempfile.TemporaryDirectory() as place:
            found = measured(CORPORA[given.crowd](pool, count), count, Path(place))
        clustering = sum(s for name, s in found.items() if name.partition("-")[0] in CLUSTERING)
        phases = [found["keys"], found["bands"], found["pairs"], clustering, found["near"]]
        total = sum(phases)
        print(
            f"| {count:,} | {found['text']:,.0f} | {found['kept']:,} | "
            + " | ".join(f"{s:.1f} s" for s in phases)
            + f" | {found['text'] / total:.1f} | {1e6 * total / count:.0f} | {clustering / total:.1%}"
            f" | {found['anonymous']:,.0f} | {found['whole']:,.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
