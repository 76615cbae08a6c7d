"""Passes conserve documents, resume inside, and write the same bytes however they are run."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ctllm_ray.base import recipe as recipes
from ctllm_ray.base import storage
from ctllm_ray.base.errors import NotFound, RecipeError, StorageError, VersionConflict
from ctllm_ray.corpus import documents, pipeline
from ctllm_ray.corpus.engine import phase
from ctllm_ray.corpus.explain import replay, why
from ctllm_ray.corpus.report import collect, funnel
from ctllm_ray.shards import manifest, reader
from tests.corpus.conftest import page, run_here
from tests.corpus.dedup_recipes import (
    EXACT,
    conserved,
    hashes,
    over,
    rows,
    shaken_to_the_end,
    texts,
    write_crawl,
)

CRAWL = [[page(part * 7 + i % 9) + "。" * (i % 3) for i in range(30)] for part in range(4)]


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    """Four files of thirty pages, most of them copies of each other."""
    return write_crawl(tmp_path / "copies", CRAWL)


def test_equal_documents_leave_one_and_counts_conserve(copies: Path, tmp_path: Path) -> None:
    recipe = over(copies, tmp_path / "out", [{"use": "exact", "of": "raw"}])
    made = pipeline.prepare(recipe, run_here)
    assert list(made) == ["clean", "exact"]
    distinct = {text for part in CRAWL for text in part}
    assert sorted(texts(recipe)) == sorted(distinct)
    assert made["exact"].counts == {
        "in": 120,
        "kept": len(distinct),
        "reject:exact.duplicate": 120 - len(distinct),
    }
    conserved(recipe)


def test_folded_documents_are_equal_whatever_their_script_width_and_marks(tmp_path: Path) -> None:
    crawl = write_crawl(tmp_path / "crawl", [["漢語，Ａ１。", "汉语 a1", "😀", "😀😀", "😀"]])
    recipe = over(crawl, tmp_path / "out", [EXACT])
    pipeline.prepare(recipe, run_here)
    assert texts(recipe) == ["漢語，Ａ１。", "😀", "😀😀"]


def test_the_survivor_follows_the_order_and_is_named_with_the_size_of_its_cluster(tmp_path: Path) -> None:
    pages = [
        {"text": "天地玄黄", "date": "2020"},
        {"text": "天地玄黄。", "date": "2021"},
        {"text": "天地玄黄。", "date": "2019"},
        {"text": "天地，玄黄。", "date": "2022"},
        {"text": "另一页。", "date": "2020"},
    ]
    recipe = over(write_crawl(tmp_path / "crawl", [pages]), tmp_path / "out", [EXACT])
    pipeline.prepare(recipe, run_here)
    kept = {row["text"]: row for row in rows(recipe, "kept")}
    assert set(kept) == {"天地，玄黄。", "另一页。"}  # complete before partial, then the longer
    assert kept["天地，玄黄。"]["scores"] == {"exact.cluster_size": 4}
    assert kept["另一页。"]["scores"] == {"exact.cluster_size": 1}
    for row in rows(recipe, "rejected"):
        assert (row["reject"], row["labels"]["exact.survivor"]) == (
            "exact.duplicate",
            kept["天地，玄黄。"]["id"],
        )


def test_how_many_partitions_there_are_changes_no_byte(copies: Path, tmp_path: Path) -> None:
    found = []
    for partition_rows in (1, 7, 4_000_000):
        recipe = over(copies, tmp_path / str(partition_rows), [EXACT | {"partition_rows": partition_rows}])
        pipeline.prepare(recipe, run_here)
        found.append(hashes(recipe, "exact"))
    assert found[0] == found[1] == found[2]


def test_every_phase_is_a_unit_of_resume_and_a_unit_worked_twice_writes_the_same(
    copies: Path, tmp_path: Path
) -> None:
    """The driver dies before every single unit, of every phase; each unit but those that died is worked
    once."""
    calm, shaken = (
        over(copies, tmp_path / root, [EXACT | {"partition_rows": 30}]) for root in ("calm", "shaken")
    )
    pipeline.prepare(calm, run_here)
    worked = shaken_to_the_end(shaken, slice(1))
    assert len(worked) == len(set(worked)) == 4 + 4 + 4 + 4  # clean, keys, fates, removal
    assert hashes(shaken, "exact") == hashes(calm, "exact")
    assert replace(manifest.read_manifest(shaken.folder("exact")), provenance={}) == replace(
        manifest.read_manifest(calm.folder("exact")), provenance={}
    )


def test_what_phases_wrote_for_each_other_goes_and_what_they_counted_stays(
    copies: Path, tmp_path: Path
) -> None:
    recipe = over(copies, tmp_path / "out", [EXACT])
    pipeline.prepare(recipe, run_here)
    left = {
        path
        for path in storage.list_tree(recipe.folder("exact"))
        if path.partition("/")[0] in {"keys", "fates"}
    }
    assert left == {
        f"{name}/{file}" for name in ("keys", "fates") for file in ("MANIFEST.json", "RUNS.jsonl")
    }
    finished = pipeline.prepare(recipe, lambda *_: pytest.fail("nothing is left to do"))
    assert finished["exact"].counts["in"] == 120


def test_an_option_of_a_pass_is_a_conflict_for_that_pass_and_not_for_those_before(
    copies: Path, tmp_path: Path
) -> None:
    pipeline.prepare(over(copies, tmp_path / "out", [EXACT]), run_here)
    changed = over(copies, tmp_path / "out", [EXACT | {"of": "raw"}])
    pipeline.clean(changed, run_here)
    with pytest.raises(VersionConflict, match=r"passes\.exact\.of: .*folded.* -> .*raw"):
        pipeline.prepare(changed, run_here)


def test_the_names_of_passes_and_options_are_checked(copies: Path, tmp_path: Path) -> None:
    for passes, words in [
        ([{"use": "exakt"}], "valid names: .*exact"),
        ([EXACT, EXACT], "listed twice"),
        ([EXACT | {"key": 1}], "unknown option 'key'"),
        ([{"use": "exact"}], "'of'"),
    ]:
        with pytest.raises(RecipeError, match=words):
            over(copies, tmp_path, passes)
    with pytest.raises(RecipeError, match="no score 'quality'"):
        pipeline.prepare(over(copies, tmp_path / "out", [EXACT | {"prefer": ["quality"]}]), run_here)


def test_a_corpus_of_nothing_passes(tmp_path: Path) -> None:
    crawl = write_crawl(tmp_path / "crawl", [['{"text"']])
    (crawl / "0.jsonl").write_text("", encoding="utf-8")
    recipe = over(crawl, tmp_path / "out", [EXACT])
    assert pipeline.prepare(recipe, run_here)["exact"].counts == {"in": 0, "kept": 0}


def test_a_recipe_without_passes_has_the_fingerprint_that_it_had() -> None:
    assert "passes" not in recipes.load_recipe("jobs/recipes/map_cc_as_released.yaml").decisions("tokens")


def test_shards_with_other_columns_are_refused_by_name(
    copies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = over(copies, tmp_path / "out", [EXACT])
    pipeline.clean(recipe, run_here)
    wanted = documents.schema_of(recipe, "clean")
    scored = {"stages": [{"use": "measure", "rules": [{"use": "document.char_count"}]}]}
    other = documents.schema_of(over(copies, tmp_path / "out", [EXACT], **scored), "clean")
    assert other != wanted
    monkeypatch.setattr(phase.documents, "schema_of", lambda *_: other)
    with pytest.raises(StorageError, match=r"labels has nothing more and genre less"):
        pipeline.prepare(recipe, run_here)


def test_why_shows_the_cluster_from_both_sides(copies: Path, tmp_path: Path) -> None:
    recipe = over(copies, tmp_path / "out", [EXACT])
    finished = pipeline.prepare(recipe, run_here)["exact"]
    folder = recipe.folder("exact")
    lost = rows(recipe, "rejected")[0]
    (gone,) = why.explain_page(folder, finished, recipe, lost["id"])
    assert gone.shard.startswith("exact/rejected/")
    (cluster,) = gone.clusters
    (stays,) = why.explain_page(folder, finished, recipe, cluster.survivor)
    assert stays.clusters == (cluster,)
    assert stays.shard.startswith("exact/kept/")
    assert cluster.size == len(cluster.members) + 1
    assert lost["id"] in {member.id for member in cluster.members}
    with pytest.raises(NotFound):
        why.explain_page(folder, finished, recipe, "copies/9.jsonl#0")


def test_report_and_replay_see_all_documents(copies: Path, tmp_path: Path) -> None:
    rules = [{"use": "document.char_count", "min": 60}]
    recipe = over(copies, tmp_path / "out", [EXACT], stages=[{"use": "measure", "rules": rules}])
    made = pipeline.prepare(recipe, run_here)
    folder = recipe.folder("exact")
    report = collect.collect_facts(folder)
    assert report.manifest.counts["in"] == 120
    assert [step.rule for group in report.groups for step in group.steps] == [
        "document.char_count",
        "exact.duplicate",
    ]
    assert report.groups[-1].left == made["exact"].counts["kept"]
    assert all(breakdown.name != "exact.survivor" for breakdown in report.breakdowns)
    result = replay.replay_bounds(folder, made["exact"], recipe, [])
    assert result.before == result.after
    assert result.before["exact.duplicate"] == made["exact"].counts["reject:exact.duplicate"]
    assert sum(result.before.values()) == 120
    assert funnel.funnel(made["clean"])[0].family == "document"


def test_rejected_pages_keep_the_text_that_the_recipe_wants(copies: Path, tmp_path: Path) -> None:
    inputs = [{"use": "jsonl", "path": f"{copies}/*.jsonl"}]
    data = {"inputs": inputs, "max_error_share": 0.1, "rejected_text_share": 0}
    recipe = over(copies, tmp_path / "out", [EXACT], data=data)
    pipeline.prepare(recipe, run_here)
    assert {row["text"] for row in rows(recipe, "rejected")} == {None}


def test_unpacked_documents_pack_to_what_they_were(copies: Path, tmp_path: Path) -> None:
    rules = [{"use": "document.char_count"}, {"use": "language.label"}]
    recipe = over(copies, tmp_path / "out", [], stages=[{"use": "measure", "rules": rules}])
    folder, made = recipe.folder("clean"), pipeline.clean(recipe, run_here)
    for _, table in reader.tables(folder, made, "kept"):
        packed = phase.schema.pack(phase.schema.unpack(table.slice(3, 9)), table.schema)
        assert packed.equals(table.slice(3, 9))


def test_what_a_section_kept_is_not_needed_once_the_pass_behind_it_is_finished(
    copies: Path, tmp_path: Path
) -> None:
    recipe = over(copies, tmp_path / "out", [EXACT])
    finished = pipeline.prepare(recipe, run_here)["exact"]
    lost, (stays, *_) = rows(recipe, "rejected")[0], rows(recipe, "kept")
    shutil.rmtree(Path(recipe.folder("clean")) / "kept")
    assert pipeline.prepare(recipe, run_here)["exact"] == finished
    folder = recipe.folder("exact")
    assert collect.collect_facts(folder).manifest.counts["in"] == 120
    for page_id in (lost["id"], stays["id"]):
        assert why.explain_page(folder, finished, recipe, page_id)
