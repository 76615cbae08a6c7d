"""A branch goes on in the data where the other run was, or begins anew where the rows are not the same."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctllm_ray.base.errors import NotFound, RecipeError, VersionConflict
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.train.checkpoint.run_state import RunState
from ctllm_ray.train.data.batches import Batches
from ctllm_ray.train.data.branches import origin
from ctllm_ray.train.data.corpora import Corpora, open_corpora
from ctllm_ray.train.data.data_log import Branch, Origin
from tests.train.token_sections import recipe_over, write_section

WEB = [np.random.default_rng(3).integers(1, 60, 40).tolist() for _ in range(3)]
BOOKS = [[300, 5, 17, 16, 15], [1]]
TOGETHER = {"mixture": [{"shares": {"web": 0.5, "books": 0.5}}], "block_sequences": 2}


def recipe(root: Path, **train: Any) -> Recipe:
    """One row in a batch; the stable run takes from `web` alone."""
    stable = {
        "mixture": [{"shares": {"web": 1.0}}],
        "batch_tokens": 16,
        "tokens": 16 * 1000,
        "max_epochs": 50,
    }
    return recipe_over(root, stable | train)


def run(of: Recipe, **given: Any) -> tuple[Batches, Corpora]:
    corpora = open_corpora(of, **given)
    return Batches(of, corpora), corpora


def origin_of(child: Recipe, parent: Recipe, batch: int) -> Origin:
    state = RunState(batch=batch, recipe=parent.decisions("train"))
    return origin(child, state, f"{parent.folder('train')}/checkpoints/00000060")


def documents(batches: Batches, group: str, first: int, last: int) -> Counter[tuple[str, int]]:
    pieces = [
        piece
        for number in range(first, last)
        for piece in batches.pieces(number, 0, 1)
        if piece.group == group
    ]
    return Counter((p.doc_id, position) for p in pieces for position in range(p.start, p.start + p.count))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_section(tmp_path / "test" / "1" / "tokens", {"web": WEB, "books": BOOKS})
    return tmp_path


@pytest.mark.parametrize("packing", ["concatenate", "best_fit"])
def test_a_decay_run_takes_up_each_group_where_the_stable_run_left_it(root: Path, packing: str) -> None:
    parent, child = recipe(root, packing=packing), recipe(root, packing=packing, run="decay", **TOGETHER)
    stable, _ = run(parent)
    rows = len(stable._rows["web"])
    decay, _ = run(child, batch=60, origin=origin_of(child, parent, 60))
    trained = documents(stable, "web", 0, 60) + documents(decay, "web", 60, 60 + 2 * (rows - 60))
    assert sum(trained.values()) == sum(map(sum, WEB))
    assert set(trained.values()) == {1}
    books = documents(decay, "books", 60, 60 + 2 * len(decay._rows["books"]))
    assert set(books.values()) == {1}  # in the stable run's shards, but never taken by it


def test_a_branch_resumes_without_the_run_that_it_left(root: Path) -> None:
    parent, child = recipe(root), recipe(root, run="decay", **TOGETHER)
    run(parent)
    decay, corpora = run(child, batch=60, origin=origin_of(child, parent, 60))
    (root / "test" / "1" / "train" / "DATA.json").unlink()
    again, _ = run(child, batch=90, data=corpora.fingerprint)
    assert [again.digest(n) for n in range(60, 120)] == [decay.digest(n) for n in range(60, 120)]
    with pytest.raises(NotFound, match="this run has batches 60 to 999"):
        again.batch(59, 0, 1)


def test_shards_that_joined_the_other_run_and_that_join_the_branch_are_all_trained_once(root: Path) -> None:
    own, second, third = (root / "test" / "1" / "tokens", root / "second", root / "third")
    write_section(second, {"web": [[33] * 9]})
    write_section(third, {"web": [[21] * 7]})
    run(recipe(root, corpora=[str(own)]))
    parent = recipe(root, corpora=[str(own), str(second)])
    stable, _ = run(parent, batch=30)
    child = recipe(root, corpora=[str(own), str(second), str(third)], run="decay")
    decay, corpora = run(child, batch=60, origin=origin_of(child, parent, 60))
    assert [g.from_batch for g in corpora.generations] == [0, 30, 60]
    trained = documents(stable, "web", 0, 60) + documents(decay, "web", 60, len(decay._rows["web"]))
    assert sum(trained.values()) == sum(map(sum, WEB)) + 33 * 9 + 21 * 7
    grandchild = recipe(root, corpora=[str(own), str(second), str(third)], run="again")
    later, _ = run(grandchild, batch=80, origin=origin_of(grandchild, child, 80))
    assert [later.digest(n) for n in range(80, 160)] == [decay.digest(n) for n in range(80, 160)]


def test_other_data_or_other_rows_begin_anew_at_the_batch(root: Path) -> None:
    other = root / "other"
    write_section(other, {"web": [[44] * 50]})
    parent = recipe(root)
    run(parent)
    for changed in ({"corpora": [str(other)]}, {"packing": "best_fit"}, {"seed": 5}):
        child = recipe(root, run="anew", **changed)
        assert origin_of(child, parent, 60) == Origin(Branch(60))
    batches, _ = run(recipe(root, run="anew", corpora=[str(other)]), batch=60, origin=Origin(Branch(60)))
    rows = len(batches._rows["web"])
    assert sum(documents(batches, "web", 60, 60 + rows).values()) == 44 * 50


def test_two_branches_under_one_name_are_refused(root: Path) -> None:
    parent, child = recipe(root), recipe(root, run="decay", **TOGETHER)
    run(parent)
    for _ in range(2):  # the first start may have ended before its first checkpoint
        run(child, batch=60, origin=origin_of(child, parent, 60))
    with pytest.raises(VersionConflict, match="with another origin"):
        run(child, batch=70, origin=origin_of(child, parent, 70))


def test_a_branch_with_another_global_batch_is_refused(root: Path) -> None:
    parent = recipe(root)
    run(parent)
    with pytest.raises(RecipeError, match="batch_tokens is 32, but 16"):
        origin_of(recipe(root, run="decay", batch_tokens=32), parent, 60)
