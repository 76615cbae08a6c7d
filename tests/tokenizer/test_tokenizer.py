"""One face over SentencePiece and Hugging Face tokenizers: text to ids and back."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from ctllm_ray.base.errors import InputError
from ctllm_ray.tokenizer import convert, specials
from ctllm_ray.tokenizer.tokenizer import HuggingFace, SentencePiece, Tokenizer, load_tokenizer
from tests.tokenizer.hard_texts import HARD


@pytest.fixture
def byte_level(tmp_path: Path, documents: list[str]) -> Path:
    """A folder as Qwen has it: byte-level BPE, no BOS, a padding token, truncation switched on."""
    fast = tokenizers.Tokenizer(models.BPE())
    fast.pre_tokenizer, fast.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    fast.train_from_iterator(documents[:50], trainer)
    fast.add_special_tokens([AddedToken("<|endoftext|>"), AddedToken("<|im_end|>")])
    fast.enable_truncation(8)
    fast.save(str(tmp_path / "tokenizer.json"))
    config = {"eos_token": {"content": "<|im_end|>"}, "pad_token": "<|endoftext|>", "bos_token": None}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    return tmp_path


def test_every_text_comes_back_as_it_was(trained: SentencePiece, documents: list[str]) -> None:
    texts = [*HARD, *documents]
    assert [trained.decode(ids) for ids in trained.encode(texts)] == texts


def test_an_empty_text_has_no_ids_and_no_texts_have_no_lists(trained: SentencePiece) -> None:
    assert len(trained.encode([""])[0]) == 0
    assert trained.encode([]) == []


def test_specials_never_come_from_a_text(trained: SentencePiece) -> None:
    everything = "".join(specials.SPECIALS)
    ids = trained.encode([everything])[0]
    assert min(ids) >= specials.COUNT
    assert trained.decode(ids) == everything


def test_specials_are_no_part_of_the_text_of_ids(trained: SentencePiece) -> None:
    content = trained.encode(["春天"])[0]
    assert trained.decode([1, *content, 2, 3, trained.special_id("<|end|>")]) == "春天"


def test_a_lone_surrogate_becomes_the_replacement_character_and_a_pair_its_character(
    trained: SentencePiece,
) -> None:
    found = trained.encode(["好\ud800吗", "\ud83d\ude00", "好"])
    assert [trained.decode(ids) for ids in found] == ["好\ufffd吗", "😀", "好"]


def test_the_sign_that_stands_for_a_space_is_text_like_any_other(trained: SentencePiece) -> None:
    assert trained.decode(trained.encode(["a▁b ▁"])[0]) == "a▁b ▁"


def test_an_unknown_special_names_those_there_are(trained: SentencePiece) -> None:
    with pytest.raises(InputError, match=r"<\|usr\|>") as caught:
        trained.special_id("<|usr|>")
    assert "<|user|>" in caught.value.where


@pytest.mark.parametrize("wrong", [-1, 1200])
def test_an_id_outside_the_vocabulary_is_refused(trained: SentencePiece, wrong: int) -> None:
    with pytest.raises(InputError, match=str(wrong)):
        trained.decode([5, wrong])


def test_a_saved_folder_loads_as_the_same_tokenizer(trained: SentencePiece, folder: Path) -> None:
    again = load_tokenizer(str(folder))
    assert isinstance(again, SentencePiece)
    assert again.sha256 == trained.sha256
    assert load_tokenizer(str(folder / "tokenizer.model")).sha256 == trained.sha256


def test_saving_twice_gives_the_same_bytes(trained: SentencePiece, folder: Path, tmp_path: Path) -> None:
    load_tokenizer(str(folder)).save(str(tmp_path))
    assert {f.name: f.read_bytes() for f in tmp_path.iterdir()} == {
        f.name: f.read_bytes() for f in folder.iterdir()
    }


@pytest.mark.parametrize("kind", ["trained", "byte_level"])
def test_a_tokenizer_travels_to_a_worker(kind: str, request: pytest.FixtureRequest) -> None:
    given = request.getfixturevalue(kind)
    tokenizer = given if isinstance(given, Tokenizer) else load_tokenizer(str(given))
    again = pickle.loads(pickle.dumps(tokenizer))
    assert again.sha256 == tokenizer.sha256
    assert np.array_equal(again.encode(["春天"])[0], tokenizer.encode(["春天"])[0])


def test_a_folder_whose_fast_tokenizer_was_changed_counts_by_the_changed_one(
    folder: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    changed = AutoTokenizer.from_pretrained(folder)
    changed.add_tokens(["大模型"])
    changed.save_pretrained(tmp_path)
    loaded = load_tokenizer(str(tmp_path))
    assert isinstance(loaded, HuggingFace)
    assert loaded.encode(["大模型"])[0].tolist() == [1200]
    assert loaded.vocab_size == 1201


def test_a_byte_level_folder_gives_whole_texts_and_ends_documents_with_its_eos(byte_level: Path) -> None:
    tokenizer = load_tokenizer(str(byte_level))
    texts = [text for text in HARD if text]
    assert [tokenizer.decode(ids) for ids in tokenizer.encode(texts)] == texts
    assert tokenizer.eos_id == tokenizer.bos_id == tokenizer.special_id("<|im_end|>")
    assert tokenizer.pad_id == tokenizer.special_id("<|endoftext|>")


def test_a_foreign_folder_is_saved_as_it_was_found(
    byte_level: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    target = tmp_path_factory.mktemp("copy")
    load_tokenizer(str(byte_level)).save(str(target))
    assert {f.name: f.read_bytes() for f in target.iterdir()} == {
        f.name: f.read_bytes() for f in byte_level.iterdir()
    }


def test_a_slow_tokenizer_is_converted_by_transformers(
    byte_level: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    slow = tmp_path_factory.mktemp("slow")
    fast = tokenizers.Tokenizer.from_file(str(byte_level / "tokenizer.json"))
    fast.model.save(str(slow))  # vocab.json and merges.txt
    names = {"tokenizer_class": "GPT2Tokenizer", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    (slow / "tokenizer_config.json").write_text(json.dumps(names))
    text = "春天到了 the model\n"
    fast.no_truncation()
    assert load_tokenizer(str(slow)).encode([text])[0].tolist() == fast.encode(text).ids


def test_a_folder_without_a_tokenizer_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the folder has no tokenizer") as caught:
        load_tokenizer(str(tmp_path))
    assert caught.value.where == str(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x00" * 100])
def test_a_damaged_model_is_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.model").write_bytes(content)
    for path in (tmp_path, tmp_path / "tokenizer.model"):
        with pytest.raises(InputError) as caught:
            load_tokenizer(str(path))
        assert caught.value.where == str(path)


def test_a_cut_off_model_is_an_error(folder: Path, tmp_path: Path) -> None:
    whole = (folder / "tokenizer.model").read_bytes()
    (tmp_path / "tokenizer.model").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError):
        load_tokenizer(str(tmp_path))


@pytest.mark.parametrize("name", [convert.TOKENIZER, convert.CONFIG])
def test_damaged_json_is_an_error_that_names_the_folder(byte_level: Path, name: str) -> None:
    (byte_level / name).write_text('{"half": ')
    with pytest.raises(InputError, match="not"):
        load_tokenizer(str(byte_level))


def test_a_tokenizer_without_an_end_of_document_is_refused(byte_level: Path) -> None:
    (byte_level / "tokenizer_config.json").write_text("{}")
    with pytest.raises(InputError, match="eos_token"):
        load_tokenizer(str(byte_level))
