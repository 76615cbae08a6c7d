"""Texts, conversations and pairs through both sections: counts in equal counts out, and a pair is never
torn."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ctllm_ray import sample
from ctllm_ray.base import recipe as recipes
from ctllm_ray.base import storage
from ctllm_ray.base.errors import RecipeError
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.corpus import pipeline, tokens
from ctllm_ray.shards import manifest
from ctllm_ray.shards.manifest import Manifest, Shard
from ctllm_ray.shards.tokens import HELD_OUT, TokenShard
from tests.conftest import REPOSITORY
from tests.corpus.conftest import page, run_here
from tests.corpus.test_tokens_section import model  # noqa: F401  # a fixture

INPUTS = [
    {"use": "messages", "path": "sample:talks.jsonl.zst", "name": "talks"},
    {"use": "alpaca", "path": "sample:instructions.jsonl.zst", "name": "instructions"},
    {"use": "preference", "path": "sample:pairs.jsonl.zst", "name": "pairs"},
]


def recipe(root: Path, model: Path, inputs: list[dict[str, Any]] = INPUTS, **tokens: Any) -> Recipe:  # noqa: F811
    plain = {
        "name": "talk", "version": "1", "seed": 3, "root": str(root), "stages": [],
        "data": {"inputs": inputs, "max_error_share": 0.0}, "tokenizer": {"path": str(model)},
        "tokens": {"held_out_share": 0.2, "conversations": {"max_tokens": 120, "too_long": "reject"}} | tokens,
    }  # fmt: skip
    return recipes.parse_recipe(plain)


def made(of: Recipe) -> dict[str, Manifest]:
    return pipeline.prepare(of, run_here)


def opened(of: Recipe) -> Iterator[tuple[Shard, TokenShard]]:
    folder = of.folder("tokens")
    for shard in manifest.read_manifest(folder).shards:
        yield shard, TokenShard.open(storage.join(folder, shard.path))


def test_what_goes_in_comes_out_or_is_counted(tmp_path: Path, model: Path) -> None:  # noqa: F811
    of = recipe(tmp_path, model)
    done = made(of)
    clean, counts = done["clean"].counts, done["tokens"].counts
    assert clean["in"] == clean["kept"] == counts["in"]
    assert counts["in"] == counts["kept"] + counts["reject:too_long"]
    assert counts["reject:too_long"] > 0
    documents: Counter[str] = Counter()
    for shard, held in opened(of):
        assert held.form == ("pairs" if shard.group == "pairs" else "conversations")
        count = len({held.doc_id(i) for i in range(len(held))})
        assert len(held) == count * (2 if held.form == "pairs" else 1)
        documents["held_out" if shard.path.startswith(HELD_OUT) else "train"] += count
        spans, offsets = held.answers()
        sizes = held.offsets[1:] - held.offsets[:-1]
        assert (sizes * (2 if held.form == "pairs" else 1) <= 240).all()
        for i in range(len(held)):
            starts, stops = spans[offsets[i] : offsets[i + 1] : 2], spans[offsets[i] + 1 : offsets[i + 1] : 2]
            assert len(starts) >= 1
            assert (starts < stops).all()
            assert stops[-1] == sizes[i]  # a conversation ends with an answer
    assert documents["train"] + documents["held_out"] == counts["kept"]
    assert documents["held_out"] == counts["held_out"]
    assert counts["tokens"] + counts["held_out_tokens"] == sum(len(held.values) for _, held in opened(of))


def test_both_sides_of_a_pair_are_neighbours_on_one_side_of_the_hold_out(tmp_path: Path, model: Path) -> None:  # noqa: F811
    of = recipe(tmp_path, model)
    made(of)
    places: Counter[str] = Counter()
    for _, held in opened(of):
        if held.form == "pairs":
            names = [held.doc_id(i) for i in range(len(held))]
            assert names[::2] == names[1::2]
            places.update(set(names))
    assert set(places.values()) == {1}
    assert len(places) > 100


def test_texts_and_conversations_stand_in_one_corpus(tmp_path: Path, model: Path) -> None:  # noqa: F811
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": page(i)}) + "\n" for i in range(30)), encoding="utf-8")
    of = recipe(tmp_path / "out", model, [*INPUTS, {"use": "jsonl", "path": str(texts), "name": "prose"}])
    made(of)
    forms = {shard.group: held.form for shard, held in opened(of)}
    assert forms == {
        "talks": "conversations",
        "instructions": "conversations",
        "pairs": "pairs",
        "prose": "texts",
    }


def test_the_same_bytes_again(tmp_path: Path, model: Path) -> None:  # noqa: F811
    once, again = (made(recipe(tmp_path / name, model))["tokens"] for name in ("once", "again"))
    assert [shard.sha256 for shard in once.shards] == [shard.sha256 for shard in again.shards]
    assert once.counts == again.counts


def test_recipes_that_cannot_be_are_told_before_any_work(tmp_path: Path, model: Path) -> None:  # noqa: F811
    text = {"use": "jsonl", "path": sample.path("pages.jsonl.zst"), "name": "web"}
    wrong = [
        ("'instructions' holds conversations", recipe(tmp_path, model, conversations=None)),
        ("several forms", labelled(tmp_path, model, [*INPUTS, text])),
        ("trained on texts", trained_on_talks(tmp_path, model)),
        ("a row holds 64", in_rows_of(64, tmp_path, model)),
    ]
    for words, of in wrong:
        with pytest.raises(RecipeError, match=words):
            made(of)
    assert not (tmp_path / "talk").exists()


@pytest.mark.parametrize("name", ["tiny_sft", "tiny_dpo", "sft_ratios"])
def test_the_recipes_that_align_are_such_that_their_sections_begin(name: str) -> None:
    tokens.check(recipes.load_recipe(str(REPOSITORY / f"jobs/recipes/{name}.yaml")))


def labelled(root: Path, model: Path, inputs: list[dict[str, Any]]) -> Recipe:  # noqa: F811
    stages = [{"use": "measure", "rules": [{"use": "language.label"}]}]
    plain = recipe(root, model, inputs, group_by="language.label").model_dump() | {"stages": stages}
    return recipes.parse_recipe(plain)


def trained_on_talks(root: Path, model: Path) -> Recipe:  # noqa: F811
    plain = recipe(root, model).model_dump() | {"tokenizer": {"vocab_size": 700, "sample_mb": 0.1}}
    return recipes.parse_recipe(plain)


def in_rows_of(width: int, root: Path, model: Path) -> Recipe:  # noqa: F811
    train = {
        "objective": {"use": "sft"}, "tokens": width * 4, "batch_tokens": width, "sequence_tokens": width,
        "packing": "best_fit", "document_attention": True, "precision": "fp32",
        "schedule": {"use": "cosine", "peak_rate": 0.001, "warmup_tokens": 0},
        "mixture": [{"shares": {"talks": 1.0}}],
    }  # fmt: skip
    plain = recipe(root, model).model_dump() | {"model": {"use": "tiny"}, "train": train}
    return recipes.parse_recipe(plain)
