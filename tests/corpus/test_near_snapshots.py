"""One crawl after the other is all at once, where an earlier crawl goes first."""

from __future__ import annotations

import random
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from benchmarks.dedup_methods import ZH_WEB, best_first
from ctllm_ray.base import recipe as recipes
from ctllm_ray.base.errors import InputError, NotFound, RecipeError
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.corpus import pipeline
from ctllm_ray.shards import manifest
from ctllm_ray.text.dedup import survivors
from tests.corpus.conftest import run_here
from tests.corpus.dedup_recipes import NEAR, conserved, hashes, over, rows, write_crawl
from tests.corpus.test_near import body, edited

CRAWLS = 3


def pages(crawl: int, bodies: int) -> list[str]:
    """Versions of so many texts, some of them in many crawls, none equal."""
    draw = random.Random(crawl)
    return [edited(body(draw.randrange(bodies), 200), draw.randrange(25), crawl * 999 + i) for i in range(70)]


def snapshot(tmp_path: Path, crawl: int, root: str = "out", bodies: int = 40, **options: object) -> Recipe:
    """The recipe of one crawl, against those before it."""
    crawled = pages(crawl, bodies)
    folder = write_crawl(tmp_path / f"crawl{crawl}", [crawled[:35], crawled[35:]])
    older = [f"root:copies/{before}/near" for before in range(crawl)]
    near = NEAR | {"keep_index": True, "against": older} | options
    return recipes.parse_recipe(over(folder, tmp_path / root, [near]).model_dump() | {"version": str(crawl)})


def one_by_one(tmp_path: Path, root: str = "out", bodies: int = 40, **options: object) -> list[Recipe]:
    made = [snapshot(tmp_path, crawl, root, bodies, **options) for crawl in range(CRAWLS)]
    for recipe in made:
        pipeline.prepare(recipe, run_here)
        conserved(recipe)
    return made


def fates(made: list[Recipe]) -> dict[str, str]:
    """Of every document the one that stays for it, both as <name>/<version>:<id>."""
    found = {}
    for recipe in made:
        here = f"copies/{recipe.version}:"
        found |= {here + row["id"]: here + row["id"] for row in rows(recipe, "kept")}
        for row in rows(recipe, "rejected"):
            stays = row["labels"]["near.survivor"]
            found[here + row["id"]] = stays if stays.startswith("copies/") else here + stays
    return found


@pytest.mark.parametrize("bodies", [40, 2])  # in twos and threes, and in crowds far beyond `reach`
def test_one_by_one_equals_all_at_once_with_the_earlier_crawl_first(tmp_path: Path, bodies: int) -> None:
    made = one_by_one(tmp_path, bodies=bodies)
    every = [
        (f"copies/{r.version}:{row['id']}", int(r.version), row["text"])
        for r in made
        for row in rows(r, "kept", "clean")
    ]
    ids, crawl, texts = (pa.array(column) for column in zip(*every, strict=True))
    table = pa.table(
        {"crawl": crawl, "complete": survivors.complete(texts), "chars": pc.utf8_length(texts), "id": ids}
    )
    order = tuple(p for p in survivors.ORDER if p[0] in table.column_names)
    ranks = survivors.ranks(table, (("crawl", "ascending"), *order))
    stays = survivors.of_neighbours(
        *best_first(ZH_WEB, texts, ranks), ranks, partial(ZH_WEB.are_copies, texts)
    )
    expected = {one: ids[int(stay)].as_py() for one, stay in zip(ids.to_pylist(), stays, strict=True)}
    assert fates(made) == expected
    across = [one for one, stay in expected.items() if one.partition(":")[0] != stay.partition(":")[0]]
    assert len(across) > 20
    assert 0 < np.count_nonzero(stays != np.arange(len(stays))) < len(stays)


@pytest.mark.parametrize("bodies", [40, 2])
def test_partitions_and_stars_of_either_crawl_change_nothing(tmp_path: Path, bodies: int) -> None:
    calm = one_by_one(tmp_path, bodies=bodies)
    cut = []
    for crawl, (partition_rows, local_pairs) in enumerate([(300, 10), (5000, 1000), (700, 15)]):
        cut.append(
            snapshot(tmp_path, crawl, "cut", bodies, partition_rows=partition_rows, local_pairs=local_pairs)
        )
        pipeline.prepare(cut[-1], run_here)
    for one, other in zip(calm, cut, strict=True):
        assert hashes(one, "near") == hashes(other, "near")


def test_a_dropped_index_is_an_error_that_says_how_to_make_it_again_and_it_comes_out_the_same(
    tmp_path: Path,
) -> None:
    first, second = snapshot(tmp_path, 0), snapshot(tmp_path, 1)
    before = pipeline.prepare(first, run_here)["near"]
    folder = Path(first.folder("near"))
    shutil.rmtree(folder / "keys/rows")
    with pytest.raises(InputError, match="has no index") as caught:
        pipeline.prepare(second, run_here)
    assert "keep_index: true" in str(caught.value)
    assert not Path(second.folder("clean")).exists()  # said before any work
    shutil.rmtree(folder)
    assert pipeline.prepare(first, run_here)["near"] == before
    assert pipeline.prepare(second, run_here)["near"].counts["in"] == 70


def test_a_finished_crawl_needs_the_older_ones_no_more(tmp_path: Path) -> None:
    first, second = snapshot(tmp_path, 0), snapshot(tmp_path, 1)
    pipeline.prepare(first, run_here)
    finished = pipeline.prepare(second, run_here)
    shutil.rmtree(Path(first.folder("near")))
    assert pipeline.prepare(second, run_here) == finished


def test_an_index_that_does_not_fit_is_refused_by_name(tmp_path: Path) -> None:
    first = snapshot(tmp_path, 0, bands=16, keep_index=False)
    pipeline.prepare(first, run_here)
    with pytest.raises(InputError, match=r"bands: 16 -> 32"):
        pipeline.prepare(snapshot(tmp_path, 1), run_here)
    with pytest.raises(InputError, match="has no index"):
        pipeline.prepare(snapshot(tmp_path, 1, bands=16), run_here)
    with pytest.raises(RecipeError, match="does not work with an index of earlier versions"):
        pipeline.prepare(snapshot(tmp_path, 1, survivors="components"), run_here)
    with pytest.raises(InputError, match="holds a section 'clean'"):
        pipeline.prepare(snapshot(tmp_path, 1, against=[f"{tmp_path}/out/copies/0/clean"]), run_here)
    with pytest.raises(NotFound):
        pipeline.prepare(snapshot(tmp_path, 1, against=["root:copies/7/near"]), run_here)


def test_the_manifest_of_the_keys_tells_what_they_were_compared_with(tmp_path: Path) -> None:
    made = one_by_one(tmp_path)
    written = manifest.read_manifest(made[2].folder("near/keys")).provenance
    assert {key for key in written if key.startswith("against:")} == {"against:copies/0", "against:copies/1"}
