"""Text that comes id by id is the text that comes at once, with no character cut and no stop string let
through."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Fast
from tokenizers import decoders, models, pre_tokenizers, trainers

from ctllm_ray.inference.stream import TextStream, spellings
from ctllm_ray.tokenizer.tokenizer import HuggingFace, SentencePiece, Tokenizer
from ctllm_ray.tokenizer.train import train
from tests.tokenizer.conftest import document

HARD = "天朗气清，👩‍👩‍👧‍👦 𠮷野家 e\u0301 é\r\n\t  中英mixed文字 🇨🇳!? \u2028 ﷽ ѣ 한국어 \x00 ก็"
MARKS = "▁ ▁▁\ufdd1\ufdd0▁\ufdd01\ufdd10\ufdd1"  # U+2581 and what stands for it


@pytest.fixture(scope="module", params=["SentencePiece", "byte level"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    documents = [document(seed) for seed in range(1200)]
    if request.param == "SentencePiece":
        return SentencePiece(train(documents, 1200))
    fast = Fast(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    fast.train_from_iterator(
        documents,
        trainers.BpeTrainer(vocab_size=900, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet),
    )
    files = {"tokenizer.json": fast.to_str().encode(), "tokenizer_config.json": b'{"eos_token": "</s>"}'}
    return HuggingFace(files)


def streamed(tokenizer: Tokenizer, ids: list[int], seed: int = 0, stop: tuple[str, ...] = ()) -> list[str]:
    """The pieces of text that come when ids come one or a few at a time."""
    draw, stream, at = random.Random(seed), TextStream(tokenizer, stop), 0
    found = []
    while at < len(ids):
        step = draw.choice([1, 1, 1, 2, 5])
        found.append(stream.push(ids[at : at + step]))
        at += step
    return [*found, stream.finish()]


def once(text: str | list[str]) -> str:
    """Text with one U+FFFD where SentencePiece has one for each byte and UTF-8's rule one for each broken
    sequence."""
    return re.sub("\ufffd+", "\ufffd", "".join(text))


@pytest.mark.parametrize("text", [HARD, document(7), "", "\ufffd本来就有\ufffd", "🙂" * 9, MARKS])
def test_pieces_joined_are_the_text_and_each_is_whole_characters(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode([text])[0].tolist()
    for seed in range(5):
        pieces = streamed(tokenizer, ids, seed)
        assert "".join(pieces) == tokenizer.decode(ids) == text
        if "\ufffd" not in text:
            assert not any("\ufffd" in piece for piece in pieces)


def test_any_ids_give_the_text_that_decoding_them_at_once_gives(tokenizer: Tokenizer) -> None:
    draw = random.Random(1)
    usual = [id_ for id_ in range(tokenizer.vocab_size) if id_ not in tokenizer.specials.values()]
    for _ in range(50):
        ids = draw.choices(usual, k=30)
        assert once(streamed(tokenizer, ids)) == once(tokenizer.decode(ids))


def test_specials_have_no_text(tokenizer: Tokenizer) -> None:
    assert "".join(streamed(tokenizer, [tokenizer.eos_id, tokenizer.bos_id])) == ""
    assert spellings(tokenizer)[tokenizer.eos_id] == b""


def test_half_a_character_is_held_back_and_is_one_replacement_at_the_end(tokenizer: Tokenizer) -> None:
    emoji = next(ids for ids in [tokenizer.encode(["🙂"])[0].tolist()] if len(ids) > 1)
    stream = TextStream(tokenizer)
    assert stream.push(emoji[:-1]) == ""
    assert stream.finish() == "\ufffd"


def test_an_escape_without_its_end_is_text(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(["\ufdd1"])[0].tolist()
    stream = TextStream(tokenizer)
    assert stream.push(ids[:3]) + stream.finish() == tokenizer.decode(ids[:3]) == "\ufdd1"


def test_a_stop_string_may_have_the_sign_that_stands_for_a_space(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(["甲 乙▁丙"])[0].tolist()
    for seed in range(8):
        assert "".join(streamed(tokenizer, ids, seed, ("▁",))) == "甲 乙"


@pytest.mark.parametrize(
    ("stop", "rest"),
    [
        (("乙丙",), "甲"),
        (("丙丁", "乙丙丁戊"), "甲乙"),  # the one that is complete first
        (("己", "没有"), "甲乙丙丁戊"),
        (("没有",), "甲乙丙丁戊己己"),
        (("己没",), "甲乙丙丁戊己己"),  # what is held back comes at the end
        (("", "甲"), ""),
    ],
)
def test_text_ends_before_a_stop_string_however_it_was_cut(
    tokenizer: Tokenizer, stop: tuple[str, ...], rest: str
) -> None:
    ids = tokenizer.encode(["甲乙丙丁戊己己"])[0].tolist()
    for seed in range(8):
        assert "".join(streamed(tokenizer, ids, seed, stop)) == rest


@pytest.mark.parametrize("stop", [("丁戊", "丙丁戊己"), ("丙丁戊己", "丁戊")])
def test_of_two_stop_strings_the_one_that_was_complete_first_ends_the_text(
    tokenizer: Tokenizer, stop: tuple[str, ...]
) -> None:
    """丙丁戊己 begins before 丁戊 and ends after it: character by character, 丁戊 comes first."""
    ids = tokenizer.encode(["甲乙丙丁戊己己"])[0].tolist()
    stream = TextStream(tokenizer, stop)
    assert stream.push(ids) + stream.finish() == "甲乙丙"
    assert {"".join(streamed(tokenizer, ids, seed, stop)) for seed in range(8)} == {"甲乙丙"}


def test_nothing_that_may_begin_a_stop_string_is_let_through(tokenizer: Tokenizer) -> None:
    stream = TextStream(tokenizer, ["\n\nuser:"])

    def push(text: str) -> str:
        return stream.push(tokenizer.encode([text])[0].tolist())

    assert push("好\n") == "好"
    assert push("\nus") == ""
    assert push("e") == ""
    assert push("d") == "\n\nused"
    assert push("\n\nuser:x") == ""
    assert stream.stopped
    assert push("more") == "" == stream.finish()


def test_the_folder_of_a_tokenizer_gives_the_same_spellings(tokenizer: Tokenizer, tmp_path: Path) -> None:
    from ctllm_ray.tokenizer.tokenizer import load_tokenizer

    tokenizer.save(str(tmp_path))
    assert spellings(load_tokenizer(str(tmp_path))) == spellings(tokenizer)
