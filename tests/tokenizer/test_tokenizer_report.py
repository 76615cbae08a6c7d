"""The report of a tokenizer: totals by group, and what each kind of character costs."""

from __future__ import annotations

import pytest

from ctllm_ray.tokenizer import report
from ctllm_ray.tokenizer.tokenizer import SentencePiece


def test_totals_of_a_group_are_those_of_its_documents(trained: SentencePiece) -> None:
    texts = ["12", "345", "𠮷"]
    rows = report.by_group(trained, texts, trained.encode(texts), ["a", "a", "b"])
    assert rows["a"] == {
        "documents": 2, "chars": 5, "bytes": 5, "tokens": 5, "byte_tokens": 0,
        "chars_per_token": 1.0, "bytes_per_token": 1.0, "byte_token_share": 0.0,
    }  # fmt: skip
    assert (rows["b"]["tokens"], rows["b"]["byte_tokens"], rows["b"]["chars_per_token"]) == (4, 4, 0.25)


def test_a_group_of_empty_documents_has_no_ratios(trained: SentencePiece) -> None:
    rows = report.by_group(trained, [""], trained.encode([""]), ["empty"])
    assert rows == {"empty": {"documents": 1, "chars": 0, "bytes": 0, "tokens": 0, "byte_tokens": 0}}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("天", "Han"),
        ("model", "Latin"),
        ("7", "digit"),
        ("\n", "space"),
        ("    ", "space"),
        ("，", "mark"),
        ("𠮷", "byte"),
    ],
)
def test_every_kind_of_character_is_told_apart(trained: SentencePiece, text: str, kind: str) -> None:
    assert [*report.by_character(trained, trained.encode([text]))] == [kind]


def test_shares_by_character_sum_to_one(trained: SentencePiece, documents: list[str]) -> None:
    rows = report.by_character(trained, trained.encode(documents))
    assert sum(row["token_share"] for row in rows.values()) == pytest.approx(1, abs=1e-3)
    assert rows["digit"]["chars_per_token"] == 1


def test_the_vocabulary_is_counted_once_each(trained: SentencePiece) -> None:
    counts = report.vocabulary(trained)
    assert sum(counts.values()) == trained.vocab_size
    assert counts["special"] == 64
    assert counts["byte"] == 128  # ASCII bytes are whole characters
