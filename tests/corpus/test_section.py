"""A section conserves documents, writes the same bytes however it is run, and says why of each page."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest

from ctllm_ray.base import storage
from ctllm_ray.base.decisions import fingerprint
from ctllm_ray.base.errors import ErrorShareExceeded, InputError, NotFound, RecipeError, VersionConflict
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.corpus import clean, pipeline
from ctllm_ray.corpus.explain import replay, why
from ctllm_ray.shards import manifest, reader
from tests.corpus.conftest import run_here

Make = Callable[..., Recipe]


def digests(recipe: Recipe) -> dict[str, object]:
    """SHA-256 of every shard, and the manifest less the versions of what wrote it."""
    folder = Path(recipe.folder("clean"))
    files = [*folder.glob("kept/*"), *folder.glob("rejected/*")]
    hashes = {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}
    return hashes | {"manifest": replace(manifest.read_manifest(str(folder)), provenance={})}


def test_in_equals_kept_plus_rejects_and_shards_hold_what_the_manifest_counts(make: Make) -> None:
    recipe = make()
    finished = pipeline.clean(recipe, run_here)
    assert finished.counts["in"] == 240
    assert finished.counts["reject:error.invalid_json"] == 6
    folder = recipe.folder("clean")
    for kind, count in [("kept", finished.counts["kept"]), ("rejected", 240 - finished.counts["kept"])]:
        tables = [table for _, table in reader.tables(folder, finished, kind)]
        assert sum(t.num_rows for t in tables) == count
        assert all(pc.all(pc.equal(pc.is_null(t["reject"]), kind == "kept")).as_py() for t in tables)
    ids = [
        i
        for kind in ("kept", "rejected")
        for _, t in reader.tables(folder, finished, kind, ["id"])
        for i in t["id"].to_pylist()
    ]
    assert len(set(ids)) == 240
    assert {i.split("#")[0] for i in ids} == {f"crawl/{n}.jsonl" for n in range(6)}


def test_rejects_carry_value_and_bound_and_errors_carry_raw_bytes(make: Make) -> None:
    recipe = make()
    finished = pipeline.clean(recipe, run_here)
    rows = [r for _, t in reader.tables(recipe.folder("clean"), finished, "rejected") for r in t.to_pylist()]
    short = [r for r in rows if r["reject"] == "document.char_count"]
    assert short
    assert all(r["reject_value"] == len(r["text"]) == r["scores"]["document.char_count"] < 60 for r in short)
    assert all(r["reject_bound"] == 60 for r in short)
    broken = [r for r in rows if r["reject"] == "error.invalid_json"]
    assert all(r["raw"].startswith(b'{"text": "broken') for r in broken)


def test_a_genre_spares_its_pages(make: Make) -> None:
    recipe = make()
    finished = pipeline.clean(recipe, run_here)
    rows = [r for _, t in reader.tables(recipe.folder("clean"), finished, "kept") for r in t.to_pylist()]
    talk = [r for r in rows if r["labels"]["genre"] == "talk"]
    assert any(r["scores"]["repetition.covered_share.n2"] > 0.05 for r in talk)
    assert all(
        r["scores"]["repetition.covered_share.n2"] <= np.float32(0.05)
        for r in rows
        if r["labels"]["genre"] == "prose"
    )


def test_the_same_recipe_gives_the_same_bytes(make: Make) -> None:
    first, second = make("a"), make("b")
    pipeline.clean(first, run_here)
    pipeline.clean(second, lambda r, f, s: run_here(r, f, list(reversed(s))))
    assert digests(first) == digests(second)


def test_a_finished_section_is_only_read(make: Make) -> None:
    recipe = make()
    first = pipeline.clean(recipe, run_here)

    def never(*_: object) -> list:
        raise AssertionError("worked again")

    assert pipeline.clean(recipe, never) == first


def test_a_begun_section_goes_on_where_it_stopped(make: Make) -> None:
    whole, begun = make("whole"), make("begun")
    pipeline.clean(whole, run_here)

    class Killed(Exception):
        pass

    def half(recipe: Recipe, folder: str, splits: list) -> object:
        yield from run_here(recipe, folder, splits[:3])
        raise Killed

    with pytest.raises(Killed):
        pipeline.clean(begun, half)
    assert not storage.exists(storage.join(begun.folder("clean"), manifest.MANIFEST))
    worked: list[int] = []

    def counted(recipe: Recipe, folder: str, splits: list) -> object:
        worked.extend(s.index for s in splits)
        yield from run_here(recipe, folder, splits)

    pipeline.clean(begun, counted)
    assert worked == [3, 4, 5]
    assert digests(whole) == digests(begun)


def test_a_changed_recipe_under_an_old_version_stops_and_names_the_fields(make: Make) -> None:
    pipeline.clean(make(), run_here)
    with pytest.raises(VersionConflict, match="seed: 1 -> 2"):
        pipeline.clean(make(seed=2), run_here)


def test_changed_input_files_stop_a_begun_section(make: Make, crawl: Path) -> None:
    recipe = make(data=make().model_dump()["data"] | {"max_error_share": 0.0})
    with pytest.raises(ErrorShareExceeded, match=r"error.invalid_json 6"):
        pipeline.clean(recipe, run_here)
    (crawl / "3.jsonl").write_text('{"text": "别的"}\n', encoding="utf-8")
    with pytest.raises(VersionConflict, match=r"3\.jsonl"):
        pipeline.clean(recipe, run_here)


def test_a_raised_error_share_finishes_without_working_again(make: Make) -> None:
    strict = make(data=make().model_dump()["data"] | {"max_error_share": 0.0})
    with pytest.raises(ErrorShareExceeded) as caught:
        pipeline.clean(strict, run_here)
    assert caught.value.exit_code == 4
    assert pipeline.clean(make(), lambda *_: []).counts["in"] == 240


def test_a_sampled_share_of_rejected_text_is_kept_and_scores_are_kept_for_all(make: Make) -> None:
    recipe = make(data=make().model_dump()["data"] | {"rejected_text_share": 0.5})
    finished = pipeline.clean(recipe, run_here)
    rows = [r for _, t in reader.tables(recipe.folder("clean"), finished, "rejected") for r in t.to_pylist()]
    rows = [r for r in rows if not r["reject"].startswith("error.")]
    with_text = sum(r["text"] is not None for r in rows)
    assert 0 < with_text < len(rows)
    assert all(r["scores"]["document.char_count"] is not None for r in rows)


def test_bytes_that_no_stage_turned_into_text_are_not_kept(make: Make, tmp_path: Path) -> None:
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "a.html").write_text("<p>正文</p>", encoding="utf-8")
    data = {"inputs": [{"use": "html", "path": f"{tmp_path}/pages/*.html"}], "max_error_share": 1.0}
    finished = pipeline.clean(make(data=data), run_here)
    assert finished.counts == {"in": 1, "kept": 0, "reject:error.no_text": 1}


def test_no_input_is_said_before_anything_is_written(make: Make, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no inputs"):
        pipeline.clean(make(data={"inputs": [], "max_error_share": 0.1}), run_here)
    with pytest.raises(InputError, match="does not exist"):
        pipeline.clean(
            make(data={"inputs": [{"use": "jsonl", "path": f"{tmp_path}/none/*"}], "max_error_share": 0.1}),
            run_here,
        )
    assert not (tmp_path / "out").exists()


def test_why_finds_a_page_by_id_and_by_url_and_tells_what_dropped_it(make: Make) -> None:
    recipe = make()
    finished = pipeline.clean(recipe, run_here)
    folder = recipe.folder("clean")
    row = next(
        r
        for _, t in reader.tables(folder, finished, "rejected")
        for r in t.to_pylist()
        if r["reject"] == "document.char_count"
    )
    for key in (row["id"], row["url"]):
        (found,) = why.explain_page(folder, finished, recipe, key)
        assert found.row["text"] == row["text"]
        outcomes = {j.rule.name: j.outcome for j in found.judgements}
        assert outcomes["document.char_count"] == "DROPPED IT"
        assert outcomes["document.sentence_count"] in {"talk: holds", "talk: fails"}
    with pytest.raises(NotFound):
        why.explain_page(folder, finished, recipe, "crawl/0.jsonl#999999")


def test_the_order_of_genres_is_a_decision_since_the_first_that_holds_counts(make: Make) -> None:
    genres = {
        "long": [{"use": "document.char_count", "min": 9}],
        "talk": [{"use": "document.sentence_count", "min": 1}],
    }

    def of(names: list[str]) -> Recipe:
        stage = {"use": "measure", "rules": [], "genres": {name: genres[name] for name in names}}
        return make("-".join(names), stages=[stage])

    one, other = of(["talk", "long"]), of(["long", "talk"])
    assert fingerprint(one.decisions()) != fingerprint(other.decisions())
    finished = pipeline.clean(one, run_here)
    assert [name for name, _ in clean.genre_conditions(pipeline.recipe_of(finished).stages)] == [
        "talk",
        "long",
    ]


def test_a_replay_without_changes_takes_the_decisions_of_the_run(make: Make) -> None:
    recipe = make()
    finished = pipeline.clean(recipe, run_here)
    result = replay.replay_bounds(recipe.folder("clean"), finished, recipe, [])
    assert result.before == result.after
    assert result.before["kept"] == finished.counts["kept"]
    assert not result.moves


def test_a_replay_equals_a_run_with_those_bounds(make: Make) -> None:
    recipe = make()
    finished = pipeline.clean(recipe, run_here)
    sets = ["document.char_count.min=100", "repetition.covered_share.n2.max=none"]
    result = replay.replay_bounds(recipe.folder("clean"), finished, recipe, sets)
    rules = [{"use": "document.char_count", "min": 100}, {"use": "repetition.covered_share", "n": 2}]
    stages = [make().stages[0].model_dump() | {"rules": rules}]
    again = pipeline.clean(make("again", stages=stages), run_here)
    assert {k.removeprefix("reject:"): n for k, n in again.counts.items() if k != "in"} == {
        k: n for k, n in result.after.items() if n
    }


@pytest.mark.parametrize(
    "wrong",
    ["document.char_cont.min=3", "document.char_count.mim=3", "document.char_count.min=x", "nonsense"],
)
def test_a_wrong_replay_setting_is_refused_with_the_nearest_name(make: Make, wrong: str) -> None:
    with pytest.raises(RecipeError):
        replay.change_bounds(clean.measure_rules(make().stages), [wrong])


def test_a_killed_writer_leaves_nothing_that_a_reader_sees(make: Make) -> None:
    recipe = make()
    folder = Path(recipe.folder("clean"))
    (folder / "kept").mkdir(parents=True)
    (folder / "kept" / f"{storage.TEMPORARY}abc").write_bytes(b"half a shard")
    finished = pipeline.clean(recipe, run_here)
    assert sorted(f.name for f in (folder / "kept").iterdir()) == [
        Path(p).name for p in finished.paths("kept")
    ]
