"""Begun, units, finished: what a later start reads, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctllm_ray.base import storage
from ctllm_ray.base.errors import StorageError, VersionConflict
from ctllm_ray.base.resumable import ResumableFolder

UNITS = ("splits/{}.json", "trials/{}/RESULT.json")


@pytest.fixture(params=UNITS)
def work(request: pytest.FixtureRequest, tmp_path: Path) -> ResumableFolder:
    return ResumableFolder(str(tmp_path), begun="PLAN.json", finished="MANIFEST.json", unit=request.param)


def test_nothing_is_there_before_it_begins(work: ResumableFolder) -> None:
    assert (work.read_begun(), work.list_units(), work.is_finished(), work.read_finished()) == (
        None, [], False, None,
    )  # fmt: skip


def test_a_later_start_reads_what_an_earlier_one_wrote(work: ResumableFolder) -> None:
    work.begin({"seed": 1})
    work.write_unit("b", {"rows": 2})
    work.write_unit("a", {"rows": 1})
    later = ResumableFolder(work.uri, work.begun, work.finished, work.unit)
    assert (later.read_begun(), later.list_units()) == ({"seed": 1}, ["a", "b"])
    assert [later.read_unit(name) for name in later.list_units()] == [{"rows": 1}, {"rows": 2}]
    work.finish({"rows": 3})
    assert (later.is_finished(), later.read_finished()) == (True, {"rows": 3})


def test_a_unit_that_was_killed_before_its_file_stood_is_no_unit(work: ResumableFolder) -> None:
    work.write_unit("a", {})
    unfinished = Path(work.locate_unit("b"))
    unfinished.parent.mkdir(exist_ok=True)
    (unfinished.parent / f"{storage.TEMPORARY}b.json").write_text("{}")
    (unfinished.parent / "notes.txt").write_text("")
    assert work.list_units() == ["a"]


def test_the_same_decisions_go_on_and_others_are_named(work: ResumableFolder) -> None:
    then = {"seed": 1, "stages": [{"use": "lines", "min": 2}]}
    work.check_unchanged(then, then, "it changed", "undo it")
    with pytest.raises(VersionConflict) as conflict:
        work.check_unchanged(
            then, {"seed": 2, "stages": [{"use": "lines", "min": 3}]}, "it changed", "undo it"
        )
    assert conflict.value.what == "it changed:\n    seed: 1 -> 2\n    stages.lines.min: 2 -> 3"
    assert (conflict.value.where, conflict.value.remedy) == (work.uri, "undo it")


def test_a_decision_that_an_earlier_version_did_not_have_changes_nothing_while_it_is_not_set(
    work: ResumableFolder,
) -> None:
    work.check_unchanged({"seed": 1}, {"seed": 1, "new": None}, "it changed", "undo it")
    with pytest.raises(VersionConflict, match="new: null -> 3"):
        work.check_unchanged({"seed": 1}, {"seed": 1, "new": 3}, "it changed", "undo it")


def test_units_that_workers_wrote_on_another_disk_are_missed_by_name(work: ResumableFolder) -> None:
    work.write_unit("a", {})
    work.require_units(["a"])
    with pytest.raises(StorageError, match=r"2 of 3 units .* the first is b"):
        work.require_units(["a", "c", "b"])


def test_what_is_forgotten_may_begin_otherwise_and_keeps_its_units(work: ResumableFolder) -> None:
    work.begin({"seed": 1})
    work.write_unit("a", {})
    work.forget()
    assert (work.read_begun(), work.list_units()) == (None, ["a"])
