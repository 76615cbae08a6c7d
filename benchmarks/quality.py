"""What recipes keep and drop of pages whose truth is known: funnels, precision and recall by kind, keep rate
by genre.

    python benchmarks/quality.py --data ../shared/data --root /tmp/quality map_cc zh_web map_cc_as_released

Reads `web_zh_raw` (jsonl.zst with a truth table) and prints Markdown. A planted defect counts as handled when
its page is dropped, or kept with the defect repaired: for mojibake that the stage says `repaired`, for a
repeated line that the line stands once. A run under the same root is not worked twice.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from ctllm_ray.base import recipe as recipes
from ctllm_ray.corpus import pipeline
from ctllm_ray.corpus.engine.progress import SectionProgress
from ctllm_ray.shards import reader
from ctllm_ray.shards.manifest import Manifest

#: Kinds of text that a Chinese corpus must not lose, by the truth table's subkind; the rest of the clean
#: pages below.
GENRES = {
    "classical": ["classical"],
    "poetry": ["poetry"],
    "law": ["law", "law_hant"],
    "wiki": ["wiki", "wiki_hant"],
    "essays": ["essay", "literature_web", "classical_vernacular"],
    "Traditional": ["wiki_hant", "law_hant", "docs_hant"],
    "code-mixed": ["docs", "docs_hant", "tech_article", "tutorial", "blog", "newsletter"],
    "news": ["news", "news_para"],
    "dialogue": ["dialogue"],
    "reviews, weibo": ["review", "weibo", "weibo_repost"],
    "abstracts, apps": ["abstract", "app_description"],
}
MIN_CHARS = 100


def addresses(folder: Path) -> pd.DataFrame:
    """doc_id of each record's address: its part and the offset of its line in the unpacked stream."""
    rows = []
    for path in sorted(folder.glob("part-*.jsonl.zst")):
        at = 0
        for line in zstandard.ZstdDecompressor().stream_reader(path.open("rb")).read().split(b"\n"):
            if line:
                rows.append((f"web_zh_raw/{path.name}#{at}", orjson.loads(line)["doc_id"]))
            at += len(line) + 1
    return pd.DataFrame(rows, columns=["id", "doc_id"])


def decisions(name: str, data: Path, root: str) -> tuple[Manifest, pd.DataFrame]:
    inputs = {
        "use": "jsonl",
        "path": f"{data}/web_zh_raw/part-*.jsonl.zst",
        "text": "raw_content",
        "html": "html",
    }
    recipe = recipes.load_recipe(
        f"jobs/recipes/{name}.yaml", [f"root={root}", f"data.inputs={orjson.dumps([inputs]).decode()}"]
    )
    finished = pipeline.clean(recipe, progress=SectionProgress.to_stderr())
    tables = [
        table
        for kind in ("kept", "rejected")
        for _, table in reader.tables(
            recipe.folder(pipeline.CLEAN), finished, kind, ["id", "labels", "reject", "text"]
        )
    ]
    return finished, pa.concat_tables(tables).flatten().to_pandas()


def handled(pages: pd.DataFrame) -> pd.Series:
    """Dropped, or kept without the planted defect."""
    repaired = (
        pages.get("labels.mojibake", pd.Series(index=pages.index, dtype=object))
        .fillna("")
        .str.endswith(":repaired")
    )
    once = (pages.noise_type == "repeat_line") & ~pages.text.fillna("").map(lambda t: len(t.split("\n")) > 2)
    return ~pages.kept | (pages.noise_type.fillna("").str.startswith("mojibake") & repaired) | once


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="*", default=["map_cc", "zh_web"])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--root", default="/tmp/quality")
    options = parser.parse_args()
    truth = pq.read_table(options.data / "web_zh_raw/truth.parquet").to_pandas()
    truth = truth.merge(addresses(options.data / "web_zh_raw"), on="doc_id")
    by_recipe = {}
    for name in options.recipes:
        finished, table = decisions(name, options.data.resolve(), options.root)
        pages = truth.merge(table, on="id", suffixes=("_truth", ""))
        assert len(pages) == finished.counts["in"], "a page was lost"
        pages["kept"] = pages.reject.isna()
        by_recipe[name] = pages
        print(f"\n### Funnel of {name}\n\n| step | documents | share |\n|---|---:|---:|")
        print(f"| in | {finished.counts['in']:,} | |")
        for rule, count in finished.rejects().items():
            print(f"| {rule} | -{count:,} | {count / finished.counts['in']:.2%} |")
        print(
            f"| **kept** | **{finished.counts['kept']:,}** | "
            f"{finished.counts['kept'] / finished.counts['in']:.2%} |"
        )
    header = "| " + " | ".join(["", "n", *by_recipe]) + " |\n|---|---:|" + "---:|" * len(by_recipe)
    print(f"\n### Keep rate by genre, clean pages of more than {MIN_CHARS} characters\n\n{header}")
    for genre, kinds in GENRES.items():
        cells = []
        for pages in by_recipe.values():
            chosen = pages[
                pages.kind.isin(["clean", "traditional"])
                & pages.subkind.isin(kinds)
                & (pages.n_chars > MIN_CHARS)
            ]
            cells.append(f"{chosen.kept.mean():.1%}")
        print(f"| {genre} | {len(chosen):,} | " + " | ".join(cells) + " |")
    print(f"\n### Planted noise that was dropped or repaired\n\n{header}")
    planted = truth[truth.label_origin == "planted"]
    for noise, count in planted.noise_type.value_counts().sort_index().items():
        cells = [f"{handled(p[p.kind == f'noise:{noise}']).mean():.1%}" for p in by_recipe.values()]
        print(f"| {noise} | {count} | " + " | ".join(cells) + " |")
    print(f"\n### Other kinds: share dropped\n\n{header}")
    for kind in [
        "english",
        "code",
        "noise:spam",
        "noise:low_quality",
        "noise:offensive",
        "noise:toxic",
        "html",
    ]:
        cells = [f"{1 - p[p.kind == kind].kept.mean():.1%}" for p in by_recipe.values()]
        print(f"| {kind} | {(truth.kind == kind).sum():,} | " + " | ".join(cells) + " |")
    print("\n### A page as noise (planted) or not (clean and Traditional, over 100 characters)\n")
    print("| recipe | precision | recall |\n|---|---:|---:|")
    for name, pages in by_recipe.items():
        noise = pages[(pages.label_origin == "planted") & pages.kind.str.startswith("noise:")]
        good = pages[pages.kind.isin(["clean", "traditional"]) & (pages.n_chars > MIN_CHARS)]
        hit, wrong = int(handled(noise).sum()), int((~good.kept).sum())
        print(f"| {name} | {hit / (hit + wrong):.1%} | {hit / len(noise):.1%} |")


if __name__ == "__main__":
    main()
