"""An exported checkpoint is the trained model to other programs, and says where it comes from."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ctllm_ray import sample
from ctllm_ray.base.errors import InputError, NotFound, RecipeError, StorageError
from ctllm_ray.base.recipe import Recipe, parse_recipe
from ctllm_ray.model import llama
from ctllm_ray.model.config import for_recipe
from ctllm_ray.shards import manifest
from ctllm_ray.shards.manifest import Manifest
from ctllm_ray.tokenizer import train as tokenizers
from ctllm_ray.tokenizer.tokenizer import SentencePiece
from ctllm_ray.train.checkpoint.export import LINEAGE, export_checkpoint
from ctllm_ray.train.checkpoint.run_state import RunState
from ctllm_ray.train.checkpoint.saver import Saver

FOLDER = Path(sample.__file__).parent / "texts"
TEXTS = [
    (FOLDER / "english.txt").read_text(encoding="utf-8"),
    "天地玄黄，宇宙洪荒。日月盈昃，辰宿列张。\n" * 50,
]
PIECES = 700
MIXTURE = [{"shares": {"web": 1.0}}]
PLAIN: dict[str, Any] = {
    "name": "small", "version": "1", "seed": 1, "data": {"inputs": [], "max_error_share": 0}, "stages": [],
    "model": {"use": "tiny"},
    "train": {
        "objective": {"use": "pretrain"}, "tokens": 640, "batch_tokens": 64, "sequence_tokens": 32,
        "packing": "concatenate", "document_attention": True, "mixture": MIXTURE, "precision": "fp32",
        "schedule": {"use": "cosine", "peak_rate": 1e-3, "warmup_tokens": 64},
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> SentencePiece:
    return SentencePiece(tokenizers.train(TEXTS, PIECES))


def recipe(tmp_path: Path, tokenizer: SentencePiece, **model: object) -> Recipe:
    """A recipe whose token section is finished, though it has no shards."""
    chosen = parse_recipe(PLAIN | {"root": str(tmp_path), "model": PLAIN["model"] | model})
    folder = chosen.folder("tokens")
    tokenizer.save(f"{folder}/tokenizer")
    Path(folder, "tokenizer", "report.json").write_text("{}")
    facts = {
        "tokenizer": tokenizer.sha256, "vocab_size": str(tokenizer.vocab_size),
        "bos": str(tokenizer.bos_id), "eos": str(tokenizer.eos_id), "pad": str(tokenizer.pad_id),
    }  # fmt: skip
    manifest.write_manifest(
        folder, Manifest("tokens", "small", "1", "", {}, [], {"in": 0, "kept": 0}, [], facts)
    )
    return chosen


def trained(chosen: Recipe, tokenizer: SentencePiece, *steps: int) -> llama.LlamaForCausalLM:
    """The last of some models, each saved as the checkpoint of a step."""
    assert chosen.model is not None
    saver = Saver(chosen.folder("train"), 0, 1, "a", 9, 0)
    for step in steps:
        model = llama.build(for_recipe(chosen.model, tokenizer.vocab_size, 32), seed=step)
        tensors = ((f"model.{n}", p.detach()) for n, p in model.named_parameters())
        saver.save(RunState(step=step, batch=step + 1, tokens=64 * step, lineage={"commit": "abc"}), tensors)
    saver.close()
    return model


def test_transformers_loads_it_generates_and_has_the_logits_of_the_trained_model(
    tmp_path: Path, tokenizer: SentencePiece
) -> None:
    chosen = recipe(tmp_path, tokenizer)
    model = trained(chosen, tokenizer, 7)
    folder = export_checkpoint(chosen, precision="fp32")
    assert folder == str(tmp_path / "small/1/export/7")
    loaded, words = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    text = "天地 fox 12\n玄"
    ids = torch.tensor([[tokenizer.bos_id, *tokenizer.encode([text])[0].tolist()]])
    assert words(text, add_special_tokens=False)["input_ids"] == ids[0, 1:].tolist()
    with torch.no_grad():
        ours = model.lm_head(llama.forward_hidden(model, {"input_ids": ids}))
        assert torch.allclose(loaded(ids).logits, ours, atol=1e-6)
    assert loaded.generate(ids, max_new_tokens=4, do_sample=False).shape[0] == 1
    assert (loaded.config.bos_token_id, loaded.config.eos_token_id) == (tokenizer.bos_id, tokenizer.eos_id)
    assert Path(folder, "tokenizer.model").exists()
    assert not Path(folder, "report.json").exists()


def test_bf16_is_what_it_writes_unless_told_otherwise(tmp_path: Path, tokenizer: SentencePiece) -> None:
    chosen = recipe(tmp_path, tokenizer)
    model = trained(chosen, tokenizer, 7)
    loaded = AutoModelForCausalLM.from_pretrained(export_checkpoint(chosen))
    assert torch.equal(loaded.model.norm.weight, model.model.norm.weight.to(torch.bfloat16))
    assert loaded.dtype == torch.bfloat16


def test_the_newest_checkpoint_is_taken_or_the_one_that_is_named(
    tmp_path: Path, tokenizer: SentencePiece
) -> None:
    chosen = recipe(tmp_path, tokenizer)
    trained(chosen, tokenizer, 7, 9)
    assert export_checkpoint(chosen).endswith("export/9")
    assert export_checkpoint(chosen, step=7).endswith("export/7")
    with pytest.raises(NotFound, match="no checkpoint of step 8"):
        export_checkpoint(chosen, step=8)


def test_lineage_names_recipe_mixture_code_checkpoint_and_the_hash_of_every_file(
    tmp_path: Path, tokenizer: SentencePiece
) -> None:
    chosen = recipe(tmp_path, tokenizer)
    trained(chosen, tokenizer, 7)
    Path(chosen.folder("train"), "DATA.json").write_text('{"generations": [{"from_batch": 0}]}')
    folder = Path(export_checkpoint(chosen))
    lineage = json.loads((folder / LINEAGE).read_text())
    assert lineage["checkpoint"]["step"] == 7
    assert lineage["tokens"] == 448
    assert lineage["mixture"] == [{"shares": {"web": 1.0}, "until_tokens": None}]
    assert lineage["code"] == {"commit": "abc"}
    assert lineage["data"]["generations"] == [{"from_batch": 0}]
    assert set(lineage["files"]) == {p.name for p in folder.iterdir()} - {LINEAGE}
    weights = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert lineage["files"]["model.safetensors"]["sha256"] == weights


def test_a_finished_export_is_left_alone_and_an_unfinished_one_is_written_again(
    tmp_path: Path, tokenizer: SentencePiece
) -> None:
    chosen = recipe(tmp_path, tokenizer)
    trained(chosen, tokenizer, 7)
    folder = Path(export_checkpoint(chosen))
    weights = folder / "model.safetensors"
    before = weights.stat().st_ino
    export_checkpoint(chosen)
    assert weights.stat().st_ino == before
    (folder / LINEAGE).unlink()
    weights.write_bytes(b"half")
    export_checkpoint(chosen)
    assert AutoModelForCausalLM.from_pretrained(folder).dtype == torch.bfloat16
    export_checkpoint(chosen, precision="fp32")
    assert AutoModelForCausalLM.from_pretrained(folder).dtype == torch.float32


def test_a_damaged_checkpoint_is_not_exported(tmp_path: Path, tokenizer: SentencePiece) -> None:
    chosen = recipe(tmp_path, tokenizer)
    trained(chosen, tokenizer, 7)
    file = next(Path(chosen.folder("train")).rglob("state-*.safetensors"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(StorageError, match="SHA-256"):
        export_checkpoint(chosen)
    assert not Path(chosen.folder("export")).exists()


def test_a_recipe_of_another_model_than_the_checkpoints_is_an_error(
    tmp_path: Path, tokenizer: SentencePiece
) -> None:
    chosen = recipe(tmp_path, tokenizer)
    trained(chosen, tokenizer, 7)
    with pytest.raises(InputError, match=r"(?s)embed_tokens.*\[700, 192\].*\[700, 384\]"):
        export_checkpoint(recipe(tmp_path, tokenizer, use="25m"))


def test_a_recipe_without_training_and_a_run_without_checkpoints_are_errors(
    tmp_path: Path, tokenizer: SentencePiece
) -> None:
    with pytest.raises(RecipeError, match="trains no model"):
        export_checkpoint(parse_recipe({k: v for k, v in PLAIN.items() if k not in ("model", "train")}))
    with pytest.raises(NotFound):
        export_checkpoint(recipe(tmp_path, tokenizer))
