"""Bits per byte: by hand for a uniform model, document by document for a real one, on documents that stay the
same."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from ctllm_ray.base.errors import InputError
from ctllm_ray.base.recipe import Recipe, parse_recipe
from ctllm_ray.model import llama
from ctllm_ray.model.config import SIZES, for_recipe
from ctllm_ray.shards import manifest
from ctllm_ray.shards.manifest import Manifest, Shard
from ctllm_ray.shards.tokens import HELD_OUT, TokenShardWriter, table
from ctllm_ray.train import records
from ctllm_ray.train.checkpoint.run_state import RunState
from ctllm_ray.train.checkpoint.saver import Saver
from ctllm_ray.train.data.batch import IGNORED
from ctllm_ray.train.validation.validate import HeldOutDocument, bits, documents, rows, validate_checkpoint

VOCABULARY = 61
CONFIG = dataclasses.replace(SIZES["tiny"], layers=2, vocab_size=VOCABULARY)
BOS, EOS = 1, 2


def text(seed: int, tokens: int) -> HeldOutDocument:
    """A document of random ids; three bytes a token and one character."""
    content = np.random.default_rng(seed).integers(4, VOCABULARY, tokens)
    return HeldOutDocument(np.array([BOS, *content, EOS], np.int64), 3 * tokens, tokens)


LENGTHS = (5, 70, 1, 31, 32, 33, 64, 12, 100, 3)
TEXTS = [text(seed, tokens) for seed, tokens in enumerate(LENGTHS)]


@pytest.fixture(scope="module")
def model() -> llama.LlamaForCausalLM:
    found = llama.build(CONFIG, 3)
    with torch.no_grad():  # larger weights: attention that matters
        for parameter in found.parameters():
            parameter.mul_(3)
    return found


def test_a_uniform_model_needs_log2_of_the_vocabulary_for_each_target() -> None:
    uniform = llama.build(CONFIG, 0)
    with torch.no_grad():
        uniform.lm_head.weight.zero_()
    found = bits(uniform, {"web": TEXTS}, sequence_tokens=32)["web"]
    targets, text_bytes = (
        sum(LENGTHS) + len(LENGTHS),
        3 * sum(LENGTHS),
    )  # the end of each document is a target
    assert found["tokens"] == targets
    assert found["bits_per_byte"] == pytest.approx(math.log2(VOCABULARY) * targets / text_bytes, rel=1e-6)
    assert found["bits_per_char"] == pytest.approx(3 * found["bits_per_byte"], rel=1e-12)
    assert found["nats_per_token"] == pytest.approx(math.log(VOCABULARY), rel=1e-6)
    assert (found["documents"], found["text_bytes"], found["text_chars"]) == (10, text_bytes, sum(LENGTHS))


def piece_by_piece(model: llama.LlamaForCausalLM, document: HeldOutDocument, sequence_tokens: int) -> float:
    """Nats of a document: each stretch of targets alone in a forward pass of transformers."""
    nats = 0.0
    for begin in range(1, len(document.ids), sequence_tokens):
        inputs = torch.from_numpy(document.ids[begin - 1 : begin - 1 + sequence_tokens])
        targets = torch.from_numpy(document.ids[begin : begin + sequence_tokens])
        with torch.no_grad():
            logits = model(input_ids=inputs[None, : len(targets)], use_cache=False).logits[0]
        nats += float(torch.nn.functional.cross_entropy(logits, targets, reduction="sum"))
    return nats


@pytest.mark.parametrize("sequence_tokens", [32, 128])
def test_packed_rows_give_what_one_document_at_a_time_gives(
    model: llama.LlamaForCausalLM, sequence_tokens: int
) -> None:
    nats = sum(piece_by_piece(model, document, sequence_tokens) for document in TEXTS)
    found = bits(model, {"web": TEXTS}, sequence_tokens=sequence_tokens)["web"]
    assert found["bits_per_byte"] == pytest.approx(nats / math.log(2) / (3 * sum(LENGTHS)), rel=1e-5)


def test_what_else_is_in_the_group_does_not_change_a_document(model: llama.LlamaForCausalLM) -> None:
    alone = bits(model, {"web": TEXTS[:1]}, sequence_tokens=32)["web"]
    rest = bits(model, {"web": TEXTS[1:]}, sequence_tokens=32)["web"]
    whole = bits(model, {"web": TEXTS}, sequence_tokens=32)["web"]
    parts = [found["nats_per_token"] * found["tokens"] for found in (alone, rest)]
    assert whole["nats_per_token"] * whole["tokens"] == pytest.approx(sum(parts), rel=1e-5)


def test_every_target_stands_in_exactly_one_row() -> None:
    labels = np.concatenate([batch.labels[batch.labels != IGNORED] for batch in rows(TEXTS, 32)])
    expected = np.concatenate([document.ids[1:] for document in TEXTS])
    assert sorted(labels) == sorted(expected)


def test_validation_leaves_the_model_in_training_mode(model: llama.LlamaForCausalLM) -> None:
    model.train()
    bits(model, {"web": TEXTS[:1]}, sequence_tokens=32)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def shard(folder: Path, split: int, chosen: dict[str, HeldOutDocument]) -> str:
    with TokenShardWriter(str(folder), HELD_OUT, "web", split, pa.uint16(), ()) as writer:
        sizes = [np.array([getattr(d, key) for d in chosen.values()]) for key in ("text_bytes", "text_chars")]
        writer.write(table(list(chosen), [d.ids for d in chosen.values()], *sizes, {}, pa.uint16()))
    return str(folder / writer.shards[0].path)


def chosen_from(uris: list[str], max_tokens: int) -> list[bytes]:
    return [document.ids.tobytes() for document in documents({"web": uris}, max_tokens)["web"]]


def test_the_documents_do_not_depend_on_how_they_are_sharded(tmp_path: Path) -> None:
    named = {f"网页/{i}": document for i, document in enumerate(TEXTS)}
    one = [shard(tmp_path / "one", 0, named)]
    half = list(named)[::2]
    first, second = ({k: v for k, v in named.items() if (k in half) is want} for want in (True, False))
    two = [shard(tmp_path / "two", 1, second), shard(tmp_path / "two", 0, first)]
    assert chosen_from(one, 10_000) == chosen_from(two, 10_000)
    assert (
        chosen_from(one, 120)
        == chosen_from(two, 120)
        == chosen_from(one, 10_000)[: len(chosen_from(one, 120))]
    )


def test_a_group_is_cut_at_its_most_tokens_and_has_at_least_one_document(tmp_path: Path) -> None:
    uris = [shard(tmp_path, 0, {str(i): document for i, document in enumerate(TEXTS)})]
    for most in (50, 120, 250):
        counts = [len(document.ids) - 1 for document in documents({"web": uris}, most)["web"]]
        assert sum(counts) <= most or len(counts) == 1
    assert len(documents({"web": uris}, 1)["web"]) == 1


def recipe(root: Path) -> Recipe:
    """The least recipe with a run and validation."""
    train = {
        "objective": {"use": "pretrain"}, "tokens": 64, "batch_tokens": 64, "sequence_tokens": 32,
        "packing": "concatenate", "document_attention": True, "mixture": [{"shares": {"web": 1}}],
        "schedule": {"use": "cosine", "peak_rate": 1e-3, "warmup_tokens": 0}, "precision": "fp32",
        "validation": {"every_tokens": 64, "max_tokens": 120},
    }  # fmt: skip
    data = {"inputs": [{"use": "jsonl", "path": "in/*.jsonl", "name": "web"}], "max_error_share": 0}
    plain = {"name": "tiny", "version": "1", "seed": 0, "data": data, "stages": [], "root": str(root)}
    return parse_recipe(plain | {"model": {"use": "tiny"}, "train": train})


def test_a_checkpoint_is_validated_from_its_folder_alone(tmp_path: Path) -> None:
    chosen = recipe(tmp_path)
    tokens = Path(chosen.folder("tokens"))
    uri = shard(tokens, 0, {str(i): document for i, document in enumerate(TEXTS)})
    written = Shard(str(Path(uri).relative_to(tokens)), len(TEXTS), 0, 0, "", 0, "web")
    facts = {"tokenizer": "ab", "vocab_size": str(VOCABULARY), "bos": "1", "eos": "2", "pad": "3"}
    manifest.write_manifest(
        str(tokens), Manifest("tokens", "tiny", "1", "", {}, [], {"in": 10, "kept": 10}, [written], facts)
    )
    trained = llama.build(for_recipe(chosen.model, VOCABULARY, 32), 5)  # type: ignore[arg-type]
    saver = Saver(chosen.folder("train"), 0, 1, "a", 2, 0)
    saver.save(
        RunState(step=7, tokens=448), iter((f"model.{n}", p.detach()) for n, p in trained.named_parameters())
    )
    saver.close()
    folder = saver.take_finished()[0].folder
    found = validate_checkpoint(chosen.model_dump(mode="json"), folder)
    assert found == bits(trained, documents({"web": [uri]}, 120), sequence_tokens=32)
    assert records.read_validation(chosen.folder("train")) == [{"step": 7, "tokens": 448, "groups": found}]


def test_no_held_out_documents_at_all_is_an_error_with_a_remedy() -> None:
    with pytest.raises(InputError, match="held_out_share"):
        documents({"web": []}, 100)
