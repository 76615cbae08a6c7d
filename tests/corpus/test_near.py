"""Near copies on disk: what the kernels in memory find, whatever dies and however the work is cut."""

from __future__ import annotations

import json
import random
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from benchmarks.dedup_methods import ZH_WEB, best_first
from ctllm_ray import sample
from ctllm_ray.base import recipe as recipes
from ctllm_ray.base.errors import RecipeError
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.corpus import pipeline
from ctllm_ray.corpus.dedup.candidate_pairs import CandidatePairs, Distinct, pack_pairs, unpack_pairs
from ctllm_ray.shards import manifest
from ctllm_ray.text.dedup import survivors
from ctllm_ray.text.dedup.bands import Pairs, find_candidates
from ctllm_ray.text.dedup.fold import fold
from ctllm_ray.text.dedup.text_similarity import jaccard
from tests.corpus.conftest import run_here
from tests.corpus.dedup_recipes import (
    EXACT,
    NEAR,
    conserved,
    hashes,
    over,
    rows,
    shaken_to_the_end,
    texts,
    write_crawl,
)


def body(seed: int, chars: int = 300) -> str:
    draw = random.Random(seed)
    return "".join(chr(0x4E00 + draw.randrange(2000)) for _ in range(chars))


def edited(text: str, edits: int, seed: int) -> str:
    draw, letters = random.Random(seed), list(text)
    for _ in range(edits):
        letters[draw.randrange(len(letters))] = "改"
    return "".join(letters)


CRAWL = [[edited(body(i % 17), i % 5, part * 31 + i) for i in range(25)] + ["短"] * 2 for part in range(4)]


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    """Seventeen pages, each a few times with a few characters changed, and eight of one character."""
    return write_crawl(tmp_path / "copies", CRAWL)


def finished(crawl: Path, root: Path, **options: object) -> Recipe:
    recipe = over(crawl, root, [NEAR | options])
    pipeline.prepare(recipe, run_here)
    return recipe


def test_near_copies_leave_one_and_the_ledger_has_their_likeness(copies: Path, tmp_path: Path) -> None:
    recipe = finished(copies, tmp_path / "out")
    conserved(recipe)
    kept = {row["id"]: row for row in rows(recipe, "kept")}
    assert len(kept) == 17 + 8
    for row in rows(recipe, "rejected"):
        stays = kept[row["labels"]["near.survivor"]]
        folded = fold(pa.array([stays["text"], row["text"]]))
        (exact,) = jaccard(folded, np.array([0]), np.array([1]), shingle_chars=5)
        assert row["scores"]["near.similarity"] == row["reject_value"] == exact
        assert (row["reject"], row["reject_bound"]) == ("near.duplicate", np.float32(0.35))
        assert row["scores"]["near.cluster_size"] == stays["scores"]["near.cluster_size"] > 1
    assert sum(row["scores"]["near.cluster_size"] for row in kept.values()) == 108


def test_short_documents_pass_and_are_counted(copies: Path, tmp_path: Path) -> None:
    recipe = finished(copies, tmp_path / "out")
    assert texts(recipe).count("短") == 8
    assert manifest.read_manifest(recipe.folder("near/keys")).counts["short"] == 8


@pytest.mark.parametrize("how", ["neighbours", "components"])
def test_partitions_and_rounds_of_stars_change_no_byte(copies: Path, tmp_path: Path, how: str) -> None:
    whole = finished(copies, tmp_path / "whole", survivors=how)
    cut = finished(copies, tmp_path / "cut", survivors=how, partition_rows=700)
    starred = finished(copies, tmp_path / "starred", survivors=how, partition_rows=700, local_pairs=20)
    assert (Path(starred.folder("near")) / "groups/MANIFEST.json").exists()
    assert not (Path(cut.folder("near")) / "groups").exists()
    assert hashes(whole, "near") == hashes(cut, "near") == hashes(starred, "near")


def test_a_chain_leaves_by_neighbours_what_has_no_survivor_beside_it_and_by_components_one(
    tmp_path: Path,
) -> None:
    """Each page shares three quarters with the one before, so its ends share nothing."""
    stream = body(1, 1300)
    chain = [stream[start : start + 400] for start in range(0, 901, 100)]
    crawl = write_crawl(tmp_path / "crawl", [chain])
    verify = NEAR["verify"] | {"sure_jaccard": 0.5}
    near, one, starred = (
        finished(crawl, tmp_path / name, verify=verify, **options)
        for name, options in [
            ("near", {}),
            ("one", {"survivors": "components"}),
            ("starred", {"survivors": "components", "local_pairs": 2}),
        ]
    )
    assert texts(one) == texts(starred) == chain[:1]
    assert hashes(one, "near") == hashes(starred, "near")
    assert 1 < len(texts(near)) < len(chain)
    for recipe in (near, one):
        by_id = {row["id"]: row["text"] for kind in ("kept", "rejected") for row in rows(recipe, kind)}
        for row in rows(recipe, "rejected"):
            pair = fold(pa.array([by_id[row["labels"]["near.survivor"]], row["text"]]))
            (exact,) = jaccard(pair, np.array([0]), np.array([1]), shingle_chars=5)
            assert row["scores"]["near.similarity"] == exact  # 0 at the far end of the chain, and said


def test_what_is_found_on_disk_is_what_the_kernels_find_in_memory(tmp_path: Path) -> None:
    pages = [edited(body(i % 30, 80 + 40 * (i % 9)), (i * 7) % 60, i) for i in range(240)]
    crawl = write_crawl(tmp_path / "crawl", [pages[i::3] for i in range(3)])
    recipe = finished(crawl, tmp_path / "out", partition_rows=900)
    before = rows(recipe, "kept", "clean")
    column = pa.array([row["text"] for row in before])
    table = pa.table(
        {
            "complete": survivors.complete(column),
            "chars": pc.utf8_length(column),
            "id": pa.array([row["id"] for row in before]),
        }
    )
    ranks = survivors.ranks(table, tuple(p for p in survivors.ORDER if p[0] in table.column_names))
    stays = survivors.of_neighbours(
        *best_first(ZH_WEB, column, ranks), ranks, partial(ZH_WEB.are_copies, column)
    )
    expected = {row["id"]: before[stay]["id"] for row, stay in zip(before, stays, strict=True)}
    found = {row["id"]: row["id"] for row in rows(recipe, "kept")}
    found |= {row["id"]: row["labels"]["near.survivor"] for row in rows(recipe, "rejected")}
    assert found == expected
    assert 0 < len(rows(recipe, "rejected")) < 240


def test_signatures_alone_may_decide_and_whoever_shares_a_band_goes(tmp_path: Path) -> None:
    bounds = {
        "of": "raw",
        "shingle_chars": 13,
        "bands": 9,
        "rows": 13,
        "min_chars": 13,
        "reach": 1,
        "min_agreement": 0,
    }
    crawl = write_crawl(tmp_path / "crawl", [[body(1), edited(body(1), 1, 5), body(2), body(1)]])
    recipe = finished(crawl, tmp_path / "out", **bounds, verify=None, survivors="components")
    assert len(texts(recipe)) == 2
    assert {row["reject_bound"] for row in rows(recipe, "rejected")} == {0}


def test_all_documents_identical_leave_one(tmp_path: Path) -> None:
    crawl = write_crawl(tmp_path / "crawl", [[body(1)] * 150] * 2)
    recipe = finished(crawl, tmp_path / "out", partition_rows=2000, local_pairs=200)
    (stays,) = rows(recipe, "kept")
    assert stays["scores"]["near.cluster_size"] == 300
    assert {row["labels"]["near.survivor"] for row in rows(recipe, "rejected")} == {stays["id"]}


@pytest.mark.parametrize("best", [0, 77, 199])
def test_of_a_crowd_of_near_copies_one_stays_wherever_the_best_stands(tmp_path: Path, best: int) -> None:
    """Far more than `reach` under every key; the longest is the best."""
    pages = [edited(body(1), 3, i) + "尾" * (10 if i == best else i * 7 % 9) for i in range(200)]
    recipe = finished(
        write_crawl(tmp_path / "crawl", [pages[:90], pages[90:]]), tmp_path / "out", partition_rows=900
    )
    assert texts(recipe) == [pages[best]]


@pytest.mark.parametrize("pages", [[], ["一"] * 5, [" "] * 3, ["😀"] * 4])
def test_documents_with_nothing_to_compare_pass(tmp_path: Path, pages: list[str]) -> None:
    recipe = finished(write_crawl(tmp_path / "crawl", [pages]), tmp_path / "out")
    assert texts(recipe) == pages


def test_every_unit_of_every_phase_may_die_with_the_driver(copies: Path, tmp_path: Path) -> None:
    options = {"partition_rows": 1500, "local_pairs": 40}
    calm = finished(copies, tmp_path / "calm", **options)
    shaken = over(copies, tmp_path / "shaken", [NEAR | options])
    worked = shaken_to_the_end(shaken, slice(1))
    assert len(worked) == len(set(worked)) > 40
    assert hashes(shaken, "near") == hashes(calm, "near")


def test_a_unit_that_dies_in_the_middle_leaves_nothing_that_counts(
    copies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm = finished(copies, tmp_path / "calm")
    shaken = over(copies, tmp_path / "shaken", [NEAR])
    with monkeypatch.context() as patch:
        patch.setattr(CandidatePairs, "_find_pairs", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
        with pytest.raises(OSError, match="full"):
            pipeline.prepare(shaken, run_here)
    assert not list(Path(shaken.folder("near/bands")).rglob("*.arrow"))
    pipeline.prepare(shaken, run_here)
    assert hashes(shaken, "near") == hashes(calm, "near")


def test_passes_follow_each_other(copies: Path, tmp_path: Path) -> None:
    recipe = over(copies, tmp_path / "out", [EXACT, NEAR])
    made = pipeline.prepare(recipe, run_here)
    conserved(recipe)
    assert list(made) == ["clean", "exact", "near"]
    assert made["near"].counts["kept"] == 17 + 1  # of the short ones exact left one
    assert rows(recipe, "kept")[0]["scores"].keys() == {
        "exact.cluster_size",
        "near.similarity",
        "near.cluster_size",
    }


def test_bands_that_the_signature_is_too_short_for_are_refused_before_any_work(
    copies: Path, tmp_path: Path
) -> None:
    recipe = over(copies, tmp_path / "out", [NEAR | {"permutations": 64}])
    with pytest.raises(RecipeError, match="32 bands of 4 rows need 128 permutations"):
        pipeline.prepare(recipe, run_here)
    with pytest.raises(RecipeError, match="sure_jaccard"):
        over(copies, tmp_path, [NEAR | {"verify": {"min_jaccard": 0.5}}])


def test_one_giant_cluster_costs_its_distinct_pairs(tmp_path: Path) -> None:
    """Two hundred thousand documents under one key, in four bands: eight pairs a document, once."""
    documents, reach = 200_000, 8
    phase = CandidatePairs("near/bands", None, reach)  # type: ignore[arg-type]
    keys = np.repeat(np.arange(4, dtype=np.uint64), documents)
    codes = phase._find_pairs(keys, np.tile(np.arange(documents), 4), 0, documents)
    assert len(codes) == documents * reach - reach * (reach + 1) // 2
    met = unpack_pairs(codes, 0, documents)
    assert met.left.max() == reach - 1


def test_pairs_worked_a_few_keys_at_a_time_are_those_of_all_keys_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    draw = np.random.default_rng(3)
    keys, numbers = np.sort(draw.integers(0, 60, 900).astype(np.uint64)), np.arange(900)
    phase = CandidatePairs("near/bands", None, 5)  # type: ignore[arg-type]
    left, right = find_candidates(keys, reach=5)
    expected = np.unique(pack_pairs(Pairs(left, right), 0, 900))
    for at_once in (1, 7, 10_000):
        monkeypatch.setattr("ctllm_ray.corpus.dedup.candidate_pairs.KEYS_AT_ONCE", at_once)
        monkeypatch.setattr("ctllm_ray.corpus.dedup.candidate_pairs.WAITING", at_once)
        assert np.array_equal(phase._find_pairs(keys, numbers, 0, 900), expected)


def test_packed_pairs_unpack_and_keep_the_order_of_the_later_document() -> None:
    pairs = Pairs(np.array([0, 5, 2]), np.array([9, 9, 7]))
    codes = np.sort(pack_pairs(pairs, 7, 10))
    assert [side.tolist() for side in unpack_pairs(codes, 7, 10)] == [[2, 0, 5], [7, 9, 9]]
    distinct = Distinct()
    distinct.add(codes)
    distinct.add(codes)
    assert np.array_equal(distinct.codes(), codes)


def test_of_the_sample_every_planted_copy_goes_and_nothing_else(tmp_path: Path) -> None:
    """The pages that come with the package, through the recipe that `make demo` runs."""
    recipe = recipes.load_recipe("jobs/recipes/tiny.yaml", [f"root={tmp_path}"])
    pipeline.prepare_corpus(recipe, run_here)
    conserved(recipe)
    truth = {
        row["url"]: row for row in map(json.loads, Path(sample.path("truth.jsonl")).read_text().splitlines())
    }
    url = {row["id"]: row["url"] for row in rows(recipe, "kept", "clean")}
    family = {page: row["copy_of"] or page for page, row in truth.items()}
    kept = [family[row["url"]] for row in rows(recipe, "kept")]
    assert len(kept) == len(set(kept))
    for section_name in ("exact", "near"):
        for row in rows(recipe, "rejected", section_name):
            assert family[row["url"]] == family[url[row["labels"][f"{section_name}.survivor"]]]
