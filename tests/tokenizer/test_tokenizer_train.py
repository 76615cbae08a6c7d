"""Training: the properties that CT-LLM's tokenizer has, and the same bytes each time."""

from __future__ import annotations

import psutil
import pytest

from ctllm_ray.base.errors import InputError, RecipeError
from ctllm_ray.tokenizer import specials
from ctllm_ray.tokenizer.tokenizer import SentencePiece
from ctllm_ray.tokenizer.train import PIECE_CHARS, SENTENCE_BYTES, sentences, train


def test_the_same_texts_give_the_same_bytes(documents: list[str]) -> None:
    assert train(documents, 900) == train(documents, 900)


def test_specials_come_first_and_bytes_after_them(trained: SentencePiece) -> None:
    assert tuple(trained.pieces[: specials.COUNT]) == specials.SPECIALS
    assert trained.pieces[specials.COUNT : specials.COUNT + 256] == [f"<0x{i:02X}>" for i in range(256)]
    assert (trained.bos_id, trained.eos_id, trained.pad_id) == (1, 2, 3)


def test_the_vocabulary_has_the_size_that_was_asked_for(trained: SentencePiece) -> None:
    assert trained.vocab_size == len(trained.pieces) == 1200


def test_every_digit_is_a_piece_of_its_own(trained: SentencePiece) -> None:
    ids = trained.encode(["2026年０0月"])[0]
    assert [trained.pieces[i] for i in ids if any(c.isdigit() for c in trained.pieces[i])] == [*"2026０0"]
    assert not [p for p in trained.pieces[320:] if len(p) > 1 and any(c.isdigit() for c in p)]


def test_no_space_is_put_before_a_text(trained: SentencePiece) -> None:
    assert trained.pieces[trained.encode(["model"])[0][0]] == "model"


def test_indentation_is_few_pieces(trained: SentencePiece) -> None:
    assert [trained.pieces[i] for i in trained.encode(["        "])[0]] == ["▁" * 8]


def test_a_newline_is_its_byte_and_no_piece_spans_lines(trained: SentencePiece) -> None:
    assert [trained.pieces[i] for i in trained.encode(["\n\n"])[0]] == ["<0x0A>", "<0x0A>"]
    assert not [piece for piece in trained.pieces if "\n" in piece]


def test_a_character_without_a_piece_is_its_bytes(trained: SentencePiece) -> None:
    pieces = [trained.pieces[i] for i in trained.encode(["𠮷"])[0]]
    assert pieces == ["<0xF0>", "<0xA0>", "<0xAE>", "<0xB7>"]


def test_no_piece_is_longer_than_the_bound(trained: SentencePiece) -> None:
    assert max(len(piece) for piece in trained.pieces[320:]) <= PIECE_CHARS


def test_a_long_line_is_cut_and_nothing_of_it_is_lost() -> None:
    text = "春天到了" * 5000 + "\n\n" + "x" * 10_000 + "短"
    parts = list(sentences([text]))
    assert "".join(parts) == text.replace("\n", "")
    assert max(len(part.encode()) for part in parts) <= SENTENCE_BYTES


def test_a_sentence_with_the_trainers_own_mark_is_not_left_out() -> None:
    assert list(sentences(["进度▅▅完成\x00后"])) == ["进度", "完成", "后"]


def test_rare_characters_take_at_most_half_of_a_small_vocabulary() -> None:
    rare = "".join(chr(point) for point in range(0x4E00, 0x4E00 + 1000))
    tokenizer = SentencePiece(train([rare, *["天地玄黄宇宙洪荒日月盈昃辰宿列张" * 99] * 50], 700))
    learnt = tokenizer.pieces[320:]
    assert sum(len(piece) == 1 for piece in learnt) <= len(learnt) / 2 + 1
    assert tokenizer.decode(tokenizer.encode([rare])[0]) == rare


def test_a_vocabulary_without_room_for_the_common_characters_is_refused() -> None:
    every = "".join(chr(point) for point in range(0x4E00, 0x4E00 + 3000))
    with pytest.raises(RecipeError, match="too few for the common characters") as caught:
        train([every], 700)
    assert "3261" in caught.value.remedy


def test_a_vocabulary_that_the_sample_cannot_give_names_the_largest(documents: list[str]) -> None:
    with pytest.raises(RecipeError, match="it allows") as caught:
        train(documents[:2], 50_000)
    largest = int("".join(filter(str.isdigit, caught.value.remedy.partition(",")[0])))
    assert SentencePiece(train(documents[:2], largest)).vocab_size == largest


def test_a_vocabulary_without_room_for_learnt_pieces_is_refused(documents: list[str]) -> None:
    with pytest.raises(RecipeError, match="300 pieces"):
        train(documents, 300)


@pytest.mark.parametrize("text", ["", "\n\n", "▁▁\n▁", "\x00\n"])
def test_a_sample_without_text_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="no text"):
        train([text, text], 1000)


def test_what_stands_for_a_space_or_for_its_sign_is_in_no_sentence() -> None:
    assert list(sentences(["春▁▁天 \ufdd0来\ufdd1了"])) == ["春", "天 ", "来", "了"]


def test_a_sample_that_the_memory_does_not_hold_is_refused_before_training(
    documents: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    free = type("Free", (), {"available": 1_000_000})
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    with pytest.raises(RecipeError, match="memory"):
        train(documents, 1000)
