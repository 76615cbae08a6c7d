"""Continual pretraining begins with the model of a folder, on the run's own tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ctllm_ray import sample
from ctllm_ray.base.errors import InputError
from ctllm_ray.base.recipe_training import Model
from ctllm_ray.model import folder, llama
from ctllm_ray.model.config import ModelConfig
from ctllm_ray.tokenizer import train as tokenizers
from ctllm_ray.tokenizer.tokenizer import SentencePiece
from ctllm_ray.train.data.corpora import Vocabulary
from ctllm_ray.train.initial_model import load_initial_model

TEXTS = [(Path(sample.__file__).parent / "texts" / "english.txt").read_text(encoding="utf-8")]
OTHERS = ["天地玄黄，宇宙洪荒。日月盈昃，辰宿列张。\n" * 50, *TEXTS]


def tokenizer(texts: list[str], pieces: int, path: Path) -> SentencePiece:
    found = SentencePiece(tokenizers.train(texts, pieces))
    found.save(str(path))
    return found


def ours(found: SentencePiece, path: Path) -> Vocabulary:
    return Vocabulary(found.sha256, found.vocab_size, found.bos_id, found.eos_id, found.pad_id, str(path))


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with its tokenizer of 700 pieces."""
    path = tmp_path_factory.mktemp("theirs")
    tokenizer(TEXTS, 700, path)
    config = ModelConfig(1, 32, 2, 2, 16, 64, 700, 64)
    folder.save_model(llama.build(config, seed=1), config, str(path))
    return path


@pytest.mark.parametrize("method", ["mean_of_pieces", "multivariate_normal", "wechsel"])
def test_a_model_is_brought_to_another_tokenizer(tmp_path: Path, theirs: Path, method: str) -> None:
    new = tokenizer(OTHERS, 720, tmp_path)
    old = llama.load(str(theirs))
    found = load_initial_model(Model(path=str(theirs), vocabulary=method), ours(new, tmp_path), 1, "sdpa")  # type: ignore[arg-type]
    assert found.lm_head.weight.shape == (720, 32)
    assert torch.equal(found.lm_head.weight[new.eos_id], old.lm_head.weight[2])


def test_the_same_tokenizer_leaves_the_model_as_it_is(tmp_path: Path, theirs: Path) -> None:
    same = tokenizer(TEXTS, 700, tmp_path)
    found = load_initial_model(Model(path=str(theirs), context_tokens=128), ours(same, tmp_path), 1, "sdpa")
    assert torch.equal(found.lm_head.weight, llama.load(str(theirs)).lm_head.weight)
    assert found.config.max_position_embeddings == 128


def test_another_tokenizer_of_the_same_size_is_an_error_that_names_a_piece(
    tmp_path: Path, theirs: Path
) -> None:
    other = tokenizer(OTHERS, 700, tmp_path)
    with pytest.raises(InputError, match=r"(?s)differs from the run's: id \d+ is.*mean_of_pieces"):
        load_initial_model(Model(path=str(theirs)), ours(other, tmp_path), 1, "sdpa")
