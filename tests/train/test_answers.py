"""Rows of conversations and pairs: labels are answers and nothing else, none is lost, and no pair is torn."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctllm_ray.base.errors import InputError, RecipeError
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.train.data.batch import IGNORED
from ctllm_ray.train.data.batches import Batches
from ctllm_ray.train.data.corpora import open_corpora
from tests.train.talk_runs import SEQUENCE_TOKENS, Talk, recipe, talk, talks, write_talks

ONE_GROUP: dict[str, Any] = {"mixture": [{"shares": {"zh": 1}}]}
PAIRS = ONE_GROUP | {"objective": {"use": "dpo", "beta": 0.1}}


def opened(of: Recipe) -> Batches:
    return Batches(of, open_corpora(of))


def section(root: Path) -> Path:
    return root / "s" / "1" / "tokens"


def sides(count: int) -> list[Talk]:
    """Documents of which two neighbours fit a row together."""
    draw = np.random.default_rng(7)
    return [talk(draw, most_turns=1) for _ in range(2 * count)]


def epoch(of: Recipe, batches: Batches) -> int:
    """Batches of the first epoch of one group; the packed rows must fill them."""
    return next(n for n in range(1, batches.count) if batches.account(0, n + 1)["zh"].epochs_begun > 1)


@pytest.mark.parametrize("packing", ["best_fit", "concatenate"])
def test_labels_are_the_next_ids_of_answers_and_nothing_else(tmp_path: Path, packing: str) -> None:
    found = talks(3, 50)
    write_talks(section(tmp_path), {"zh": found})
    batches = opened(recipe(tmp_path, 6, packing=packing, **ONE_GROUP))
    for number in range(batches.count):
        batch = batches.batch(number, 0, batches.sequences)
        columns = [0] * batches.sequences
        for piece in batches.pieces(number, 0, batches.sequences):
            ids, answered = found[int(piece.doc_id.rpartition("/")[2])]
            here = slice(columns[piece.row], columns[piece.row] + piece.count)
            columns[piece.row] += piece.count
            there = slice(piece.start, piece.start + piece.count)
            assert batch.input_ids[piece.row, here].tolist() == ids[there.start - 1 : there.stop - 1].tolist()
            assert (
                batch.labels[piece.row, here].tolist()
                == np.where(answered[there], ids[there], IGNORED).tolist()
            )
        for row, end in enumerate(columns):
            assert (batch.labels[row, end:] == IGNORED).all()
        assert batches.targets(number) == batches.divisor(number) == batch.target_tokens


def test_every_answer_token_is_trained_once_an_epoch(tmp_path: Path) -> None:
    found = talks(4, 64)
    write_talks(section(tmp_path), {"zh": found})
    of = recipe(tmp_path, 60, batch_tokens=SEQUENCE_TOKENS, block_sequences=1, **ONE_GROUP)  # a row a batch
    batches = opened(of)
    last = epoch(of, batches)
    account = batches.account(0, last)["zh"]
    assert account.targets == sum(int(answered.sum()) for _, answered in found[:-4])
    filled = sum(len(ids) - 1 for ids, _ in found[:-4])
    assert account.padding == last * SEQUENCE_TOKENS - filled
    seen = Counter(piece.doc_id for number in range(last) for piece in batches.pieces(number, 0, 1))
    assert set(seen.values()) == {1}
    assert len(seen) == 60


def test_the_two_sides_of_a_pair_stand_whole_and_side_by_side(tmp_path: Path) -> None:
    found = sides(44)
    write_talks(section(tmp_path), {"zh": found}, "pairs")
    of = recipe(tmp_path, 60, batch_tokens=SEQUENCE_TOKENS, block_sequences=1, **PAIRS)
    batches = opened(of)
    last = epoch(of, batches)
    seen: list[int] = []
    for number in range(last):
        pieces = batches.pieces(number, 0, 1)
        numbers = [int(piece.doc_id.rpartition("/")[2]) for piece in pieces]
        assert [piece.count for piece in pieces] == [len(found[n][0]) - 1 for n in numbers]
        assert [piece.start for piece in pieces] == [1] * len(pieces)
        assert all(n % 2 == 0 for n in numbers[::2])
        assert numbers[1::2] == [n + 1 for n in numbers[::2]]
        assert batches.divisor(number) == len(numbers) // 2
        assert batches.targets(number) == sum(int(found[n][1].sum()) for n in numbers)
        batch = batches.batch(number, 0, 1)
        assert sorted({*batch.documents[0].tolist()} - {-1}) == list(range(len(pieces)))
        seen += numbers
    assert sorted(seen) == list(range(84))


def test_a_pair_that_is_longer_than_a_row_names_its_shard_and_the_remedy(tmp_path: Path) -> None:
    long = np.full(SEQUENCE_TOKENS, 9), np.arange(SEQUENCE_TOKENS) > 3
    write_talks(section(tmp_path), {"zh": [*sides(3), long, long, *sides(2)]}, "pairs")
    with pytest.raises(InputError, match=f"pair 3 .* has {2 * SEQUENCE_TOKENS - 2} targets") as caught:
        opened(recipe(tmp_path, **PAIRS))
    assert caught.value.where.endswith("train/zh/00000-000.arrow")
    assert "max_tokens" in caught.value.remedy


@pytest.mark.parametrize(
    ("form", "objective"), [("pairs", "sft"), ("pairs", "pretrain"), ("conversations", "dpo")]
)
def test_shards_that_an_objective_does_not_read_are_refused(
    tmp_path: Path, form: Any, objective: str
) -> None:
    write_talks(section(tmp_path), {"zh": sides(8)}, form)
    options = {"beta": 0.1} if objective == "dpo" else {}
    with pytest.raises(InputError, match=f"'zh' holds {form}"):
        opened(recipe(tmp_path, **ONE_GROUP | {"objective": {"use": objective, **options}}))


@pytest.mark.parametrize("wrong", [{"packing": "concatenate"}, {"document_attention": False}])
def test_pairs_are_not_read_from_rows_that_would_tear_or_mix_them(
    tmp_path: Path, wrong: dict[str, Any]
) -> None:
    write_talks(section(tmp_path), {"zh": sides(8)}, "pairs")
    with pytest.raises(RecipeError, match="whole pairs"):
        opened(recipe(tmp_path, **PAIRS | wrong))


def test_a_plain_text_beside_conversations_counts_as_one_answer(tmp_path: Path) -> None:
    write_talks(section(tmp_path), {"zh": talks(5, 40)}, "texts")
    learning_answers = opened(recipe(tmp_path, **ONE_GROUP))
    learning_all = opened(recipe(tmp_path, **ONE_GROUP | {"objective": {"use": "pretrain"}}))
    assert [learning_answers.digest(n) for n in range(8)] == [learning_all.digest(n) for n in range(8)]
    assert [learning_answers.targets(n) for n in range(8)] == [learning_all.targets(n) for n in range(8)]


def test_pretraining_on_conversations_learns_all_of_them(tmp_path: Path) -> None:
    found = talks(6, 40)
    write_talks(section(tmp_path), {"zh": found})
    batch = opened(recipe(tmp_path, **ONE_GROUP | {"objective": {"use": "pretrain"}})).batch(0, 0, 4)
    assert ((batch.labels != IGNORED) == (batch.documents >= 0)).all()
