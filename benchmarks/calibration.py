"""What each bound of a recipe costs of each genre and catches of each planted noise, from the scores of a
finished run.

    python benchmarks/quality.py zh_web --root /tmp/quality        # makes the run
    python benchmarks/calibration.py zh_web --root /tmp/quality    # prints the table of docs/calibration.md

A cell is the share of pages that break the bound, whichever rule was charged with them; shares under 0.05 %
are left out. Genres and noise are those of quality.py; genres count clean pages of more than 100 characters.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.quality import GENRES, MIN_CHARS, addresses
from ctllm_ray.base import recipe as recipes
from ctllm_ray.base.recipe_rules import Rule
from ctllm_ray.corpus import decide, pipeline
from ctllm_ray.corpus.clean import measure_rules
from ctllm_ray.shards import manifest, reader

LEAST_SHARE = 0.0005


def pages_of(folder: str, truth: pd.DataFrame) -> pd.DataFrame:
    """Truth and scores of every page."""
    finished = manifest.read_manifest(folder)
    tables = [
        table
        for kind in ("kept", "rejected")
        for _, table in reader.tables(folder, finished, kind, ["id", "labels", "scores"])
    ]
    return truth.merge(pa.concat_tables(tables).flatten().to_pandas(), on="id")


def broken(rule: Rule, pages: pd.DataFrame) -> np.ndarray:
    """True where a page breaks the rule and its genre is not spared."""
    column = pages[f"{'labels' if rule.is_label else 'scores'}.{rule.score}"].to_numpy()
    values = column if rule.is_label else column.astype(np.float32)
    genres = pages["labels.genre"].fillna("prose").to_numpy().astype(str)
    return decide.violations(rule, {rule.score: values})[0] & rule.applies(genres)


def shares(groups: dict[str, np.ndarray], hit: np.ndarray) -> str:
    """The groups of which the rule hits more than the least share, most first."""
    found = sorted(((hit[rows].mean(), name) for name, rows in groups.items()), reverse=True)
    return ", ".join(f"{name} {share:.1%}" for share, name in found if share >= LEAST_SHARE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", nargs="?", default="zh_web")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--root", default="/tmp/quality")
    options = parser.parse_args()
    recipe = recipes.load_recipe(f"jobs/recipes/{options.recipe}.yaml", [f"root={options.root}"])
    truth = pq.read_table(options.data / "web_zh_raw/truth.parquet").to_pandas()
    truth = truth.merge(addresses(options.data / "web_zh_raw"), on="doc_id")
    pages = pages_of(recipe.folder(pipeline.CLEAN), truth)
    clean = (pages.kind.isin(["clean", "traditional"]) & (pages.n_chars > MIN_CHARS)).to_numpy()
    genres = {name: clean & pages.subkind.isin(kinds).to_numpy() for name, kinds in GENRES.items()}
    planted = pages[pages.label_origin == "planted"].noise_type.dropna().unique()
    noise = {name: (pages.kind == f"noise:{name}").to_numpy() for name in sorted(planted)}
    print("| rule | bound | costs | catches |\n|---|---|---|---|")
    for rule in measure_rules(recipe.stages):
        if rule.decides:
            hit = broken(rule, pages)
            bounds = ", ".join(f"{key} {value:g}" for key, value in rule.bounds.items())
            spared = (
                f" (not {', '.join(rule.unless)})"
                if rule.unless
                else f" (only {', '.join(rule.only)})"
                if rule.only
                else ""
            )
            print(f"| {rule.name} | {bounds}{spared} | {shares(genres, hit)} | {shares(noise, hit)} |")


if __name__ == "__main__":
    main()
