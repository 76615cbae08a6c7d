"""MB/s of UTF-8 of three filter cascades on the same records: CT-LLM's released filter, datatrove's, and
ours.

One process on one core. Time is CPU time of the process, and the cascades take turns slice by slice, so the
ratios hold on a busy machine too. Each cascade runs as its program runs it: the first two stop at the rule
that drops a page, ours measures every page in full (that is what lets it say why, and replay other bounds).
Language identification and URL lists are left out of all three, and so are loading of dictionaries and
compiling.

    PYTHONPATH=. python benchmarks/cascade_peers.py --ct-llm-repo ../Chinese-Tiny-LLM --records 300 'web/*.jsonl.zst'

The first needs a clone of Chinese-Tiny-LLM (392f0e3 was measured) and jieba; nothing of it is copied here.
The second needs `pip install datatrove spacy jieba`, best in an environment of its own beside this package's
dependencies. What is absent is skipped with a line that says so.
"""

from __future__ import annotations

import argparse
import glob
import importlib
import importlib.util
import io
import json
import os
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml
import zstandard

SLICES = 6
LEAST_S = 0.2  # CPU time a cascade spends on a slice at least: a fast one goes over it again and again

#: A cascade says how many of the texts it keeps; None where it only measures.
Cascade = Callable[[list[str]], int | None]


def records(pattern: str, field: str, count: int) -> list[str]:
    """`count` texts at even distances over all records of the files."""
    texts = []
    for path in sorted(glob.glob(pattern)):
        with Path(path).open("rb") as packed:
            stream = io.TextIOWrapper(
                zstandard.ZstdDecompressor().stream_reader(packed), "utf-8", newline="\n"
            )
            texts += [record[field] for record in map(json.loads, stream) if record.get(field)]
    if not texts:
        sys.exit(f"no records with a field {field!r} in {pattern}")
    return texts[:: max(1, len(texts) // count)][:count]


def released(repository: Path) -> Cascade:
    """CT-LLM's released filter, imported from a clone, with an empty URL list and no language model."""
    sys.modules.setdefault("fasttext", types.ModuleType("fasttext"))
    sys.path.insert(0, str(repository / "filter"))
    code: Any = importlib.import_module("filter")
    no_urls = importlib.import_module("utils").Trie()
    code.jieba.setLogLevel("ERROR")

    def keeps(text: str) -> bool:
        kept, text, _ = code.unify_format(text)
        if not kept:
            return False
        kept, text, _ = code.url_filter({"raw_content": text, "url": "x"}, no_urls)
        if not kept or not code.self_defined_rules(text)[0]:
            return False
        code.duplicates_rules({"raw_content": text})
        return bool(
            code.duplicates_rules({"raw_content": text})
        )  # the program calls it twice, and ignores it

    return lambda texts: sum(map(keeps, texts))


def datatrove() -> Cascade:
    """datatrove's Gopher and FineWeb filters with FineWeb-2's settings for Chinese, words by jieba through
    spaCy."""
    from datatrove.data import Document
    from datatrove.pipeline.filters import FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter

    # FineWeb-2's published settings for Mandarin; its C4 and paragraph rules are off there.
    top = ((2, 0.256), (3, 0.201), (4, 0.171))
    covered = ((5, 0.198), (6, 0.182), (7, 0.167), (8, 0.154), (9, 0.140), (10, 0.127))
    filters = [
        GopherRepetitionFilter(
            language="zho_Hani",
            dup_line_frac=0.287,
            dup_para_frac=0,
            dup_line_char_frac=0,
            dup_para_char_frac=0,
            top_n_grams=top,
            dup_n_grams=covered,
        ),
        FineWebQualityFilter(
            language="zho_Hani",
            line_punct_thr=0.106,
            short_line_thr=999,
            char_duplicates_ratio=0.1,
            new_line_ratio=0.178,
        ),
        GopherQualityFilter(
            language="zho_Hani",
            min_avg_word_length=1,
            max_avg_word_length=5,
            max_non_alpha_words_ratio=0.735,
            stop_words=list("的年在月是和日了於·為有被人中为他與後也而由"),
        ),
    ]

    def keeps(text: str) -> bool:
        document = Document(text=text, id="x")
        return all(one.filter(document) is True for one in filters)

    return lambda texts: sum(map(keeps, texts))


def ours(recipe: Path) -> Cascade:
    """The code-point measures of a recipe, compiled into one kernel, over an Arrow column."""
    from ctllm_ray.base.recipe_rules import Rule
    from ctllm_ray.text.kernels import fuse

    stages = yaml.safe_load(recipe.read_text(encoding="utf-8"))["stages"]
    rules = [Rule(**rule) for stage in stages if stage["use"] == "measure" for rule in stage["rules"]]
    lines = tuple((rule.use, tuple(rule.options.items())) for rule in rules if fuse.is_kernel(rule.use))

    def measure(texts: list[str]) -> None:
        fuse.measure(pa.array(texts), lines)

    return measure


def ours_whole(recipe: Path) -> Cascade:
    """All measures of a recipe, language identification among them, and the decisions, over an Arrow
    table."""
    from ctllm_ray.base import recipe as recipes
    from ctllm_ray.corpus import clean
    from ctllm_ray.shards import schema

    loaded = recipes.load_recipe(str(recipe))
    stages = tuple(stage for stage in loaded.stages if stage.use == "measure")

    def decide(texts: list[str]) -> int:
        raw = pa.table({"id": pa.array(map(str, range(len(texts)))), "text": pa.array(texts)})
        table = clean.run_stages(stages, schema.working(raw, "x"))
        return table["reject"].null_count

    return decide


def cpu_s(cascade: Cascade, texts: list[str]) -> tuple[float, int | None]:
    """CPU seconds of one pass over the texts, a mean over as many as `LEAST_S` asks for, and how many it
    keeps."""
    start = time.process_time()
    passes, kept = 0, None
    while passes == 0 or time.process_time() - start < LEAST_S:
        kept = cascade(texts)
        passes += 1
    return (time.process_time() - start) / passes, kept


def compare(cascades: dict[str, Cascade], texts: list[str]) -> None:
    """Times the cascades in turn on slices of the texts and prints a line for each."""
    for cascade in cascades.values():
        cascade(texts[:3])  # loads dictionaries and machine code
    seconds = dict.fromkeys(cascades, 0.0)
    kept: dict[str, int | None] = dict.fromkeys(cascades, 0)
    for index in range(SLICES):
        part = texts[index::SLICES]
        for name, cascade in cascades.items():
            spent, keeps = cpu_s(cascade, part)
            seconds[name] += spent
            total = kept[name]
            kept[name] = None if keeps is None or total is None else total + keeps
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    slowest = max(seconds.values(), default=0.0)
    for name, spent in seconds.items():
        total = kept[name]
        outcome = "measures every page in full" if total is None else f"keeps {total / len(texts):.1%}"
        print(f"{name:32} {megabytes / spent:8.3f} MB/s {slowest / spent:7.1f}x   {outcome}")


def found(given: argparse.Namespace) -> dict[str, Cascade]:
    """The cascades that can run here; a line for each that cannot."""
    cascades: dict[str, Cascade] = {}
    if given.ct_llm_repo:
        cascades["CT-LLM released filter"] = released(given.ct_llm_repo)
    else:
        print("CT-LLM released filter: skipped, no --ct-llm-repo")
    if importlib.util.find_spec("datatrove") and importlib.util.find_spec("spacy"):
        cascades["datatrove Gopher + FineWeb (zh)"] = datatrove()
    else:
        print("datatrove: skipped, not installed here (pip install datatrove spacy jieba)")
    if given.recipe.exists():
        cascades[f"ours, {given.recipe.stem}: kernel"] = ours(given.recipe)
        cascades[f"ours, {given.recipe.stem}: all"] = ours_whole(given.recipe)
    else:
        print(f"ours: skipped, no recipe {given.recipe}")
    return cascades


def main() -> None:
    """Compares the cascades that are there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", help="pattern of .jsonl.zst files")
    parser.add_argument("--field", default="raw_content")
    parser.add_argument("--records", type=int, default=300)
    parser.add_argument("--recipe", type=Path, default=Path("jobs/recipes/map_cc.yaml"))
    parser.add_argument("--ct-llm-repo", type=Path, help="a clone of Chinese-Tiny-LLM")
    given = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    texts = records(given.files, given.field, given.records)
    print(
        f"{len(texts)} records, {sum(len(text.encode()) for text in texts) / 1e6:.2f} MB of UTF-8, one core, "
        f"CPU time"
    )
    compare(found(given), texts)


if __name__ == "__main__":
    main()
