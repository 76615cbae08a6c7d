"""Laws of the order of data: every target once an epoch, the same batches for everyone, exact shares, all
counted."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctllm_ray.base import storage
from ctllm_ray.base.errors import InputError, NotFound, RecipeError
from ctllm_ray.train.data.batch import IGNORED
from ctllm_ray.train.data.batches import Batches
from ctllm_ray.train.data.corpora import open_corpora
from ctllm_ray.train.data.packed_shards import Control
from tests.train.token_sections import BOS, PAD, document_ids, recipe_over, write_section

DRAW = np.random.default_rng(3)
WEB = [DRAW.integers(1, 60, 40).tolist() for _ in range(3)]
BOOKS = [[300, 5, 17, 16, 15], [1]]
GROUPS = {"web": WEB, "books": BOOKS}
PACKINGS = ["concatenate", "best_fit"]


def batches_over(
    root: Path, train: Mapping[str, Any], control: Control | None = None, **given: Any
) -> Batches:
    recipe = recipe_over(root, train)
    return Batches(recipe, open_corpora(recipe, **given), control)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_section(tmp_path / "test" / "1" / "tokens", GROUPS)
    return tmp_path


ONE_GROUP = {"mixture": [{"shares": {"web": 1.0}}], "max_epochs": 50}


def seen(batches: Batches, first: int, last: int) -> Counter[tuple[str, int]]:
    """How often each (document, target) of batches [first, last) is trained."""
    found: Counter[tuple[str, int]] = Counter()
    for number in range(first, last):
        for piece in batches.pieces(number, 0, batches.sequences):
            found.update(
                (piece.doc_id, position) for position in range(piece.start, piece.start + piece.count)
            )
    return found


def every_target(groups: Mapping[str, list[list[int]]]) -> set[tuple[str, int]]:
    return {
        (f"{group}/{split}/{number}", position)
        for group, shards in groups.items()
        for split, lengths in enumerate(shards)
        for number, targets in enumerate(lengths)
        for position in range(1, targets + 1)
    }


def rows_of(batches: Batches, group: str) -> int:
    return len(batches._rows[group])


def single_rows(packing: str, tokens: int = 16 * 2000) -> dict[str, Any]:
    """One row in a batch, so that a batch is a place in the stream."""
    return ONE_GROUP | {"packing": packing, "batch_tokens": 16, "tokens": tokens}


@pytest.mark.parametrize("packing", PACKINGS)
def test_two_epochs_of_a_group_train_every_target_exactly_twice(root: Path, packing: str) -> None:
    batches = batches_over(root, single_rows(packing))
    rows = rows_of(batches, "web")
    assert seen(batches, 0, rows) == dict.fromkeys(every_target({"web": WEB}), 1)
    assert seen(batches, 0, 2 * rows) == dict.fromkeys(every_target({"web": WEB}), 2)


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("packing", PACKINGS)
def test_a_batch_holds_the_ids_of_its_pieces_and_padding(root: Path, packing: str, apart: bool) -> None:
    batches = batches_over(root, {"packing": packing, "document_attention": apart, "max_epochs": 50})
    for number in range(batches.count):
        batch = batches.batch(number, 0, batches.sequences)
        expected = [[[], [], [], []] for _ in range(batches.sequences)]  # inputs, labels, positions, pieces
        for piece in batches.pieces(number, 0, batches.sequences):
            row = expected[piece.row]
            group, split, document = piece.doc_id.split("/")
            ids = document_ids(
                group, int(split), int(document), GROUPS[group][int(split)][int(document)]
            ).tolist()
            row[0] += ids[piece.start - 1 : piece.start - 1 + piece.count]
            row[1] += ids[piece.start : piece.start + piece.count]
            row[3] += [row[3][-1] + 1 if row[3] else 0] * piece.count
            row[2] += range(piece.count)
        for at, (ids, labels, positions, pieces) in enumerate(expected):
            padding = 16 - len(ids)
            assert batch.input_ids[at].tolist() == ids + [PAD] * padding
            assert batch.labels[at].tolist() == labels + [IGNORED] * padding
            assert batch.positions[at].tolist() == (
                positions + list(range(padding)) if apart else list(range(16))
            )
            assert batch.documents[at].tolist() == (pieces + [-1] * padding if apart else [0] * 16)
        assert batch.target_tokens == batches.targets(number)
        assert BOS not in batch.labels


@pytest.mark.parametrize("packing", PACKINGS)
def test_any_number_of_workers_sees_the_same_global_batches(root: Path, packing: str) -> None:
    train = {"packing": packing, "max_epochs": 50}
    whole = batches_over(root, train)
    for world in (1, 2, 4):
        other = batches_over(root, train)
        for number in (0, 7, 39):
            shares = [other.share(rank, world) for rank in range(world)]
            parts = [other.batch(number, *share) for share in shares]
            batch = whole.batch(number, 0, whole.sequences)
            for name in ("input_ids", "labels", "positions", "documents"):
                joined = np.concatenate([getattr(part, name) for part in parts])
                assert np.array_equal(joined, getattr(batch, name))
            assert whole.digest(number) == other.digest(number)
            assert sum(part.target_tokens for part in parts) == whole.targets(number)


def test_a_run_that_resumes_at_any_batch_sees_what_it_would_have_seen(root: Path) -> None:
    train = {"max_epochs": 50}
    through = batches_over(root, train)
    digests = [through.digest(number) for number in range(through.count)]
    assert len(set(digests)) == through.count
    for start in (1, 13, 39):
        resumed = batches_over(root, train, batch=start)
        assert [resumed.digest(number) for number in range(start, resumed.count)] == digests[start:]


def test_another_seed_is_another_order_of_the_same_targets(root: Path) -> None:
    runs = [batches_over(root, single_rows("best_fit") | {"seed": seed}) for seed in (1, 2)]
    rows = rows_of(runs[0], "web")
    assert seen(runs[0], 0, rows) == seen(runs[1], 0, rows)
    assert runs[0].digest(0) != runs[1].digest(0)


def groups_in(batches: Batches, first: int, last: int) -> Counter[str]:
    return Counter(
        {piece.row + number * batches.sequences: piece.group
         for number in range(first, last)
         for piece in batches.pieces(number, 0, batches.sequences)}.values()
    )  # fmt: skip


def test_shares_are_exact_in_every_block_of_sequences(root: Path) -> None:
    batches = batches_over(root, {"max_epochs": 50, "batch_tokens": 32, "tokens": 32 * 100})
    for block in range(20):
        assert groups_in(batches, 5 * block, 5 * block + 5) == {"web": 7, "books": 3}


def test_phases_begin_at_their_tokens(root: Path) -> None:
    phases = [{"shares": {"web": 1.0}, "until_tokens": 64 * 10 - 3}, {"shares": {"books": 1.0}}]
    batches = batches_over(root, {"mixture": phases, "max_epochs": 50})
    assert groups_in(batches, 0, 10) == {"web": 40}
    assert groups_in(batches, 10, 40) == {"books": 120}


def test_a_group_with_a_cap_ends_there_and_the_account_tells(root: Path) -> None:
    batches = batches_over(root, {"epoch_caps": {"books": 1.0}, "max_epochs": 50})
    account = batches.account(0, batches.count)
    assert account["books"].rows == rows_of(batches, "books")
    assert account["books"].targets == sum(map(sum, BOOKS))
    assert account["books"].epochs_begun == 1
    assert account["web"].rows == batches.count * 4 - account["books"].rows


@pytest.mark.parametrize("packing", PACKINGS)
def test_the_account_of_a_run_counts_every_position(root: Path, packing: str) -> None:
    batches = batches_over(root, {"packing": packing, "max_epochs": 50})
    whole = batches.account(0, batches.count)
    parts = [batches.account(0, 13), batches.account(13, 40)]
    for group in ("web", "books"):
        assert sum(part[group].targets for part in parts) == whole[group].targets
        assert parts[1][group].epochs_begun == whole[group].epochs_begun
    assert sum(a.targets + a.padding for a in whole.values()) == 64 * 40
    assert sum(a.targets for a in whole.values()) == sum(batches.targets(number) for number in range(40))
    assert {g: a.rows for g, a in whole.items()} == {"books": 48, "web": 112}


@pytest.mark.parametrize("packing", PACKINGS)
def test_shards_that_join_leave_the_past_and_are_trained_once_in_the_running_epoch(
    root: Path, tmp_path: Path, packing: str
) -> None:
    own, more = root / "test" / "1" / "tokens", tmp_path / "more"
    new = {"web": [[33, 8, 2, 70], [4]]}
    train = single_rows(packing)
    before = batches_over(root, train | {"corpora": [str(own)]})
    digests = [before.digest(number) for number in range(50)]
    write_section(more, new)
    after = batches_over(root, train | {"corpora": [str(own), str(more)]}, batch=50)
    assert [after.digest(number) for number in range(50)] == digests
    rows = rows_of(after, "web")
    assert rows > rows_of(before, "web")
    expected = Counter(every_target({"web": WEB})) + Counter(
        every_target(new)
    )  # two sections have like-named ones
    assert seen(after, 0, rows) == expected
    assert seen(after, rows, 2 * rows) == expected


def test_a_mixture_goes_on_when_shards_join_in_the_middle_of_a_block(root: Path, tmp_path: Path) -> None:
    own, more = root / "test" / "1" / "tokens", tmp_path / "more"
    write_section(more, {"books": [[90] * 5]})
    train = {"max_epochs": 50}
    before = batches_over(root, train | {"corpora": [str(own)]})
    digests = [before.digest(number) for number in range(21)]
    after = batches_over(root, train | {"corpora": [str(own), str(more)]}, batch=21)
    assert [after.digest(number) for number in range(21)] == digests
    assert after.digest(21) != before.digest(21)
    assert groups_in(after, 21, 26) == {"web": 14, "books": 6}


def test_a_global_batch_that_does_not_divide_names_what_does(root: Path) -> None:
    batches = batches_over(root, {"max_epochs": 50})
    with pytest.raises(RecipeError, match="4 sequences cannot be divided among 3 workers") as caught:
        batches.share(0, 3)
    assert "1, 2, 4" in caught.value.remedy


def test_a_batch_beyond_the_run_is_not_found(root: Path) -> None:
    with pytest.raises(NotFound, match="this run has batches 0 to 39"):
        batches_over(root, {"max_epochs": 50}).batch(40, 0, 4)


def test_a_group_too_small_for_its_share_is_an_error_with_figures_and_remedy(root: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"'books' is too small for its share: its 360 tokens \(23 rows\)"
    ) as caught:
        batches_over(root, {"max_epochs": 2})
    assert "epoch_caps.books=2" in caught.value.remedy
    assert "0.96" in caught.value.remedy


def test_a_group_that_has_no_documents_is_an_error_with_the_nearest_name(root: Path) -> None:
    with pytest.raises(RecipeError, match="uses group 'book'") as caught:
        batches_over(root, {"mixture": [{"shares": {"web": 0.5, "book": 0.5}}]})
    assert "books" in caught.value.remedy


def test_groups_that_no_phase_takes_from_are_told(root: Path) -> None:
    assert batches_over(root, ONE_GROUP).unused == ["books"]


def test_control_tokens_stand_in_for_bos_by_the_score_and_a_share_keeps_bos(tmp_path: Path) -> None:
    scores = np.linspace(0, 1, 40).astype(np.float32)
    scores[7] = np.nan
    write_section(tmp_path / "test" / "1" / "tokens", {"web": WEB}, scores={"noise": scores})
    control = Control("noise", 0.5, 8, 9, 0.25)
    plain = batches_over(tmp_path, single_rows("concatenate"))
    marked = batches_over(tmp_path, single_rows("concatenate"), control)
    found: Counter[str] = Counter()
    for number in range(rows_of(plain, "web")):
        one, other = plain.batch(number, 0, 1), marked.batch(number, 0, 1)
        assert np.array_equal(one.labels, other.labels)
        column = 0
        for piece in plain.pieces(number, 0, 1):
            here = slice(column + (piece.start == 1), column + piece.count)
            assert np.array_equal(one.input_ids[0, here], other.input_ids[0, here])
            if piece.start == 1:
                score = scores[int(piece.doc_id.split("/")[2])]
                token = int(other.input_ids[0, column])
                assert token in ((BOS,) if np.isnan(score) else (BOS, 8) if score <= 0.5 else (BOS, 9))
                found[("BOS", "good", "bad")[(BOS, 8, 9).index(token)]] += 1
            column += piece.count
    assert sum(found.values()) == 120
    assert 30 <= found["BOS"] <= 33
    assert found["good"] > 30
    assert found["bad"] > 30


def test_a_control_score_that_was_not_kept_is_named(root: Path) -> None:
    batches = batches_over(root, ONE_GROUP, Control("noise", 0.5, 8, 9, 0.1))
    with pytest.raises(InputError, match="noise"):
        batches.batch(0, 0, 4)


def test_shards_in_an_object_store_are_fetched_once_and_checked(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CTLLM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    remote = "memory://bucket/tokens"
    for file in (root / "test" / "1" / "tokens").rglob("*.*"):
        storage.write_bytes(f"{remote}/{file.relative_to(root / 'test' / '1' / 'tokens')}", file.read_bytes())
    local = batches_over(root, {"max_epochs": 50})
    far = batches_over(root, {"max_epochs": 50, "corpora": [remote], "run": "far"})
    assert [far.digest(n) for n in range(40)] == [local.digest(n) for n in range(40)]
    assert len(list((tmp_path / "cache" / "ctllm-shards").iterdir())) == 5
    for copy in (tmp_path / "cache" / "ctllm-shards").iterdir():
        copy.unlink()
    recipe = recipe_over(root, {"max_epochs": 50, "corpora": [remote], "run": "far"})
    corpora = open_corpora(recipe, batch=1)
    path = f"{remote}/train/books/00001-000.arrow"
    storage.write_bytes(path, storage.read_bytes(path)[:-1] + b"!")
    with pytest.raises(InputError, match="SHA-256 differs"):
        [Batches(recipe, corpora).digest(n) for n in range(40)]


def test_a_stream_gives_the_batches_of_a_rank_in_micro_batches(root: Path) -> None:
    batches = batches_over(root, {"max_epochs": 50})
    numbers = [3, 4, 9]
    for number, parts in zip(numbers, batches.stream(numbers, 1, 4, 2), strict=True):
        assert [len(part.input_ids) for part in parts] == [2, 1]
        joined = np.concatenate([part.input_ids for part in parts])
        assert np.array_equal(joined, batches.batch(number, 1, 4).input_ids)


def test_what_goes_wrong_in_the_background_is_raised_at_its_batch(root: Path) -> None:
    batches = batches_over(root, {"max_epochs": 50})
    stream = batches.stream([38, 39, 40], 0, 4, 4)
    assert len(next(stream)) == len(next(stream)) == 1
    with pytest.raises(NotFound, match="batch 40 does not exist"):
        next(stream)


def test_a_stream_that_is_closed_or_dropped_leaves_no_thread(root: Path) -> None:
    batches = batches_over(root, {"max_epochs": 50})
    count = threading.active_count()
    stream = batches.stream(range(40), 0, 4, 4)
    next(stream)
    stream.close()
    other = batches.stream(range(40), 0, 4, 4)
    next(other)
    del other
    assert threading.active_count() == count
