"""`ctllm batch` names the documents of any batch and shows how each piece begins."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ctllm_ray.base import storage
from ctllm_ray.base.errors import NotFound
from ctllm_ray.shards import manifest, tokens
from ctllm_ray.shards.manifest import Manifest, Shard
from ctllm_ray.tokenizer import chat_template
from ctllm_ray.tokenizer import train as trainer
from ctllm_ray.tokenizer.tokenizer import SentencePiece
from ctllm_ray.train.data import inspect_batch
from ctllm_ray.train.data.batches import Batches
from ctllm_ray.train.data.corpora import look, open_corpora
from ctllm_ray.train.tracking.records import Records, StepRecord
from tests.train.token_sections import recipe_over

WORDS = [chr(0x4E00 + 37 * i) + chr(0x5E00 + 23 * i) for i in range(160)]
DRAW = random.Random(4)
TEXTS = ["".join(DRAW.choices(WORDS, k=DRAW.randrange(4, 90))) + "。" for _ in range(60)]
TRAIN = {"mixture": [{"shares": {"web": 1.0}}], "max_epochs": 100, "batch_tokens": 64, "sequence_tokens": 32}


@pytest.fixture(scope="module")
def tokenizer() -> SentencePiece:
    return SentencePiece(trainer.train(TEXTS, 640))


@pytest.fixture
def root(tmp_path: Path, tokenizer: SentencePiece) -> Path:
    folder = str(tmp_path / "test" / "1" / "tokens")
    ids = [np.concatenate([[tokenizer.bos_id], part, [tokenizer.eos_id]]) for part in tokenizer.encode(TEXTS)]
    sizes = np.array([len(text) for text in TEXTS])
    table = tokens.table([f"web/0.jsonl#{i}" for i in range(60)], ids, sizes, sizes, {}, pa.uint16())
    with tokens.TokenShardWriter(folder, tokens.TRAIN, "web", 0, pa.uint16(), ()) as writer:
        writer.write(table)
    finish(folder, tokenizer, writer.shards, 60)
    return tmp_path


def finish(folder: str, tokenizer: SentencePiece, shards: list[Shard], documents: int) -> None:
    """Puts tokenizer and manifest beside the shards."""
    tokenizer.save(f"{folder}/tokenizer")
    facts = {
        "tokenizer": tokenizer.sha256, "vocab_size": str(tokenizer.vocab_size), "bos": str(tokenizer.bos_id),
        "eos": str(tokenizer.eos_id), "pad": str(tokenizer.pad_id),
    }  # fmt: skip
    counts = {"in": documents, "kept": documents}
    manifest.write_manifest(folder, Manifest("tokens", "t", "1", "", {}, [], counts, shards, facts))


def test_every_piece_is_shown_with_its_document_and_the_text_it_begins_with(root: Path) -> None:
    recipe = recipe_over(root, TRAIN)
    found = inspect_batch.inspect_batch(recipe, 3)
    batches = Batches(recipe, look(recipe))
    assert [shown.piece for shown in found.shown] == batches.pieces(3, 0, 2)
    assert found.digest == batches.digest(3)
    for shown in found.shown:
        text = TEXTS[int(shown.piece.doc_id.partition("#")[2])]
        assert shown.text.strip("�") in text
        if shown.piece.start == 1:
            assert text.startswith(shown.text.strip("�"))
    printed = list(inspect_batch.format_batch(found))
    assert printed[0].startswith("batch 3: 64 targets")
    assert sum("web/0.jsonl#" in line for line in printed) == len(found.shown)


def test_of_a_conversation_the_question_is_shown_too(tmp_path: Path, tokenizer: SentencePiece) -> None:
    folder, turns = str(tmp_path / "test" / "1" / "tokens"), [TEXTS[i : i + 2] for i in range(0, 60, 2)]
    said = [
        chat_template.encode_conversation(
            tokenizer, [{"role": "user", "content": q}, {"role": "assistant", "content": a}]
        )
        for q, a in turns
    ]
    ids, masks = [ids for ids, _ in said], [answered for _, answered in said]
    sizes = np.array([len(a) for _, a in turns])
    spans = [np.array([int(mask.argmax()), len(mask)], np.int32) for mask in masks]
    table = tokens.table([f"web/0.jsonl#{i}" for i in range(30)], ids, sizes, sizes, {}, pa.uint16())
    with tokens.TokenShardWriter(folder, tokens.TRAIN, "web", 0, pa.uint16(), (), "conversations") as writer:
        writer.write(tokens.with_answers(table, spans, "conversations"))
    finish(folder, tokenizer, writer.shards, 30)
    found = inspect_batch.inspect_batch(
        recipe_over(tmp_path, TRAIN | {"objective": {"use": "sft"}, "packing": "best_fit"}), 0
    )
    assert found.targets > 0
    for shown in found.shown:
        question, answer = turns[int(shown.piece.doc_id.partition("#")[2])]
        assert shown.text.strip("�") in question + answer


def test_a_rank_shows_its_rows_only_and_nothing_is_written(root: Path) -> None:
    recipe = recipe_over(root, TRAIN)
    found = inspect_batch.inspect_batch(recipe, 3, rank=1, world=2)
    assert {shown.piece.row for shown in found.shown} == {1}
    assert not storage.exists(recipe.folder("train"))


def test_a_corpus_that_is_named_but_has_not_joined_changes_nothing(root: Path, tmp_path: Path) -> None:
    own = f"{root}/test/1/tokens"
    recipe = recipe_over(root, TRAIN | {"corpora": [own]})
    digest = Batches(recipe, open_corpora(recipe)).digest(3)
    other = shutil.copytree(own, tmp_path / "more")
    more = recipe_over(root, TRAIN | {"corpora": [own, str(other)]})
    assert inspect_batch.inspect_batch(more, 3).digest == digest


def test_the_batch_of_a_step_is_the_recorded_one(root: Path) -> None:
    recipe = recipe_over(root, TRAIN)
    assert inspect_batch.batch_of_step(recipe, 5) == 4
    records = Records(recipe.folder("train"), next_step=1)
    for step, batch in ((1, 0), (2, 1), (3, 4)):
        records.step(StepRecord(step, batch, 0, 0, 1.0, 1.0, 0.1, 1.0, 0.0, 1.0))
    records.close()
    assert [inspect_batch.batch_of_step(recipe, step) for step in (2, 3, 5)] == [1, 4, 6]
    with pytest.raises(NotFound, match="step 0 does not exist"):
        inspect_batch.batch_of_step(recipe, 0)
