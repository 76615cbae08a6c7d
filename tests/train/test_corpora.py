"""A run finds its shards as they were, takes appended ones from where it stands, and names what changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctllm_ray.base import storage
from ctllm_ray.base.errors import InputError, NotFound, StorageError, VersionConflict
from ctllm_ray.shards import tokens
from ctllm_ray.train.data import corpora
from ctllm_ray.train.data.corpora import open_corpora
from tests.train.token_sections import FACTS, recipe_over, write_section

GROUPS = {"web": [[9, 20, 3], [40]], "books": [[100]]}


@pytest.fixture
def own(tmp_path: Path) -> Path:
    folder = tmp_path / "test" / "1" / "tokens"
    write_section(folder, GROUPS)
    return folder


def data_of(root: Path) -> dict:
    return storage.read_json(str(root / "test" / "1" / "train" / "DATA.json"))


def test_the_first_start_writes_down_all_shards_and_later_ones_change_nothing(
    tmp_path: Path, own: Path
) -> None:
    recipe = recipe_over(tmp_path, {})
    first = open_corpora(recipe)
    written = data_of(tmp_path)
    assert [g["from_batch"] for g in written["generations"]] == [0]
    assert [s["path"] for s in written["generations"][0]["corpora"][0]["shards"]] == [
        "train/web/00000-000.arrow", "train/web/00001-000.arrow", "train/books/00000-000.arrow",
    ]  # fmt: skip
    again = open_corpora(recipe, batch=7, data=first.fingerprint)
    assert again == first
    assert data_of(tmp_path) == written
    assert first.groups() == ["books", "web"]
    assert (first.vocabulary.bos, first.vocabulary.pad, first.vocabulary.vocab_size) == (1, 3, 100_000)


def test_only_rank_0_writes_and_all_ranks_agree(tmp_path: Path, own: Path) -> None:
    recipe = recipe_over(tmp_path, {})
    other = open_corpora(recipe, rank=1, world=2)
    assert not (tmp_path / "test" / "1" / "train").exists()
    assert open_corpora(recipe, rank=0, world=2) == other


def test_a_corpus_that_is_appended_joins_at_the_batch_where_the_run_stands(tmp_path: Path, own: Path) -> None:
    first = open_corpora(recipe_over(tmp_path, {"corpora": [str(own)]}))
    more = tmp_path / "more"
    write_section(more, {"web": [[5, 6]]})
    recipe = recipe_over(tmp_path, {"corpora": [str(own), str(more)]})
    second = open_corpora(recipe, batch=12, data=first.fingerprint)
    assert [g.from_batch for g in second.generations] == [0, 12]
    assert [c.folder for c in second.generations[1].corpora] == [str(more)]
    assert second.fingerprint != first.fingerprint
    assert open_corpora(recipe, batch=10, data=first.fingerprint) == second  # an older checkpoint goes on
    assert open_corpora(recipe, batch=20, data=second.fingerprint) == second


def test_a_corpus_that_joins_after_a_run_went_back_counts_from_the_newest_generation(
    tmp_path: Path, own: Path
) -> None:
    folders = [own, tmp_path / "b", tmp_path / "c"]
    for folder in folders[1:]:
        write_section(folder, {"web": [[len(folder.name) + ord(folder.name)]]})
    for count, batch in ((1, 0), (2, 20), (3, 15)):
        found = open_corpora(
            recipe_over(tmp_path, {"corpora": [str(f) for f in folders[:count]]}), batch=batch
        )
    assert [g.from_batch for g in found.generations] == [0, 20, 20]


@pytest.mark.parametrize("count", [1, 2])
def test_a_corpus_that_is_taken_away_or_moved_in_the_list_is_refused(
    tmp_path: Path, own: Path, count: int
) -> None:
    more = tmp_path / "more"
    write_section(more, {"web": [[5, 6]]})
    open_corpora(recipe_over(tmp_path, {"corpora": [str(own), str(more)]}))
    with pytest.raises(VersionConflict, match="removed from the list, or moved in it"):
        open_corpora(recipe_over(tmp_path, {"corpora": [str(more), str(own)][:count]}))


def test_a_corpus_whose_folder_moved_is_the_same(tmp_path: Path, own: Path) -> None:
    first = open_corpora(recipe_over(tmp_path, {"corpora": [str(own)]}))
    moved = tmp_path / "moved"
    own.rename(moved)
    second = open_corpora(recipe_over(tmp_path, {"corpora": [str(moved)]}), batch=3, data=first.fingerprint)
    assert second.fingerprint == first.fingerprint
    assert second.generations[0].corpora[0].folder == str(moved)


@pytest.mark.parametrize("damage", ["one byte", "shorter", "missing", "written again"])
def test_a_shard_that_changed_is_named(tmp_path: Path, own: Path, damage: str) -> None:
    recipe = recipe_over(tmp_path, {})
    open_corpora(recipe)
    shard = own / "train" / "web" / "00001-000.arrow"
    content = bytearray(shard.read_bytes())
    if damage == "one byte":
        content[len(content) // 2] ^= 1
        shard.write_bytes(content)
    elif damage == "shorter":
        shard.write_bytes(content[:-8])
    elif damage == "missing":
        shard.unlink()
    else:
        write_section(own, GROUPS | {"web": [[9, 20, 3], [41]]})
    with pytest.raises(InputError) as caught:
        open_corpora(recipe, batch=5)
    assert caught.value.where == str(shard)


def test_hashes_are_not_read_where_the_recipe_says_so_but_sizes_are(tmp_path: Path, own: Path) -> None:
    recipe = recipe_over(tmp_path, {})
    quick = recipe.model_copy(
        update={"resources": recipe.resources.model_copy(update={"train": _without_hashes(recipe)})}
    )
    shard = own / "train" / "web" / "00001-000.arrow"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    open_corpora(quick)
    shard.write_bytes(content[:-1])
    with pytest.raises(InputError, match="bytes, not"):
        open_corpora(quick)


def _without_hashes(recipe: object) -> object:
    return recipe.resources.train.model_copy(update={"verify_shards": False})  # type: ignore[attr-defined]


def test_each_rank_hashes_its_part_so_that_together_they_see_all(tmp_path: Path, own: Path) -> None:
    recipe = recipe_over(tmp_path, {})
    shard = own / "train" / "books" / "00000-000.arrow"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    failures = 0
    for rank in range(3):
        try:
            open_corpora(recipe, rank=rank, world=3)
        except InputError:
            failures += 1
    assert failures == 1


def test_a_section_that_is_not_finished_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        open_corpora(recipe_over(tmp_path, {}))


def test_corpora_of_two_tokenizers_are_refused(tmp_path: Path, own: Path) -> None:
    other = tmp_path / "other"
    write_section(other, {"web": [[5]]}, facts=FACTS | {"tokenizer": "e" * 64})
    with pytest.raises(VersionConflict, match="have different tokenizers"):
        open_corpora(recipe_over(tmp_path, {"corpora": [str(own), str(other)]}))


def test_a_lost_data_file_of_a_begun_run_is_an_error_and_not_a_new_order(tmp_path: Path, own: Path) -> None:
    recipe = recipe_over(tmp_path, {})
    open_corpora(recipe)
    (tmp_path / "test" / "1" / "train" / "DATA.json").unlink()
    with pytest.raises(StorageError, match="is missing"):
        open_corpora(recipe, batch=5)


def test_a_checkpoint_of_other_data_is_refused(tmp_path: Path, own: Path) -> None:
    recipe = recipe_over(tmp_path, {})
    open_corpora(recipe)
    with pytest.raises(VersionConflict, match="trained on other shards"):
        open_corpora(recipe, batch=5, data="0" * 64)


def test_held_out_shards_are_listed_by_group_and_never_trained_on(tmp_path: Path) -> None:
    folder = tmp_path / "held"
    write_section(folder, {"web": [[4], [5]], "law": [[6]]}, kind=tokens.HELD_OUT)
    sections = corpora.read_sections([str(folder)])
    assert corpora.held_out(sections) == {
        "law": [f"{folder}/held_out/law/00000-000.arrow"],
        "web": [f"{folder}/held_out/web/00000-000.arrow", f"{folder}/held_out/web/00001-000.arrow"],
    }
    with pytest.raises(InputError, match="no documents to train on"):
        open_corpora(recipe_over(tmp_path, {"corpora": [str(folder)]}))
