"""tokenizer.json gives the ids that the SentencePiece model gives, here and in transformers."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ctllm_ray.base.errors import InputError
from ctllm_ray.tokenizer import convert
from ctllm_ray.tokenizer.tokenizer import HuggingFace, SentencePiece
from ctllm_ray.tokenizer.train import train
from tests.tokenizer.hard_texts import HARD


@pytest.fixture(scope="module")
def transformer(folder: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(folder)


def differing(tokenizer: SentencePiece, texts: list[str]) -> list[str]:
    other = HuggingFace(tokenizer.files()).encode(texts)
    own = tokenizer.encode(texts)
    return [text for text, a, b in zip(texts, own, other, strict=True) if not np.array_equal(a, b)]


def foreign(documents: list[str], **options: object) -> SentencePiece:
    """A SentencePiece model with other habits than ours."""
    model = io.BytesIO()
    lines = [line for document in documents[:400] for line in document.split("\n")]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        vocab_size=1000,
        minloglevel=2,
        num_threads=1,
        **options,
    )
    return SentencePiece(model.getvalue())


def test_ids_are_equal_on_hard_texts(trained: SentencePiece, documents: list[str]) -> None:
    assert differing(trained, [*HARD, *documents, "".join(HARD)]) == []


def test_ids_are_equal_on_random_runs_of_pieces(trained: SentencePiece) -> None:
    draw = random.Random(5)
    parts = [piece.replace("▁", " ") for piece in trained.pieces[320:]] + [
        " ",
        "\n",
        "-",
        "哈",
        "\t",
        "<s>",
        "𠮷",
        "\x00",
        "▁",
        "\ufdd1",
    ]
    texts = ["".join(p * draw.randrange(1, 6) for p in draw.choices(parts, k=12)) for _ in range(3000)]
    assert differing(trained, texts) == []


def test_ids_are_equal_where_pieces_overlap_in_many_ways(trained: SentencePiece) -> None:
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(trained.files()[convert.MODEL])
    learnt = model.SentencePiece.Type.NORMAL
    del model.pieces[320:]
    for i, piece in enumerate(
        ["ab", "ba", "aba", "bab", "ababa", "baba", "abab", "aa", "aaa", "aaaaa", "a", "b"]
    ):
        model.pieces.add(piece=piece, score=-i, type=learnt)
    tokenizer = SentencePiece(model.SerializeToString())
    draw = random.Random(1)
    assert (
        differing(tokenizer, ["".join(draw.choices("ab", k=draw.randrange(2, 40))) for _ in range(5000)])
        == []
    )


@pytest.mark.parametrize(
    "options",
    [
        {"model_type": "bpe", "byte_fallback": True},  # NFKC, a dummy prefix, runs of spaces squeezed
        {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity"},
        {"model_type": "bpe"},  # unknown characters
        {
            "model_type": "bpe",
            "normalization_rule_name": "identity",
            "add_dummy_prefix": False,
            "remove_extra_whitespaces": False,
            "user_defined_symbols": ["春天", "▁▁▁"],
        },  # looked for before all else
    ],
)
def test_a_foreign_model_keeps_its_habits(documents: list[str], options: dict[str, object]) -> None:
    texts = [*documents[400:600], " 前面 有  空格 ", "ＡＢＣ全角　空格", "don't  stop"]
    assert differing(foreign(documents, **options), texts) == []


def test_a_model_that_is_not_bpe_is_refused(documents: list[str]) -> None:
    with pytest.raises(InputError, match="BPE"):
        foreign(documents, model_type="unigram").files()


def test_transformers_loads_the_folder_as_a_fast_tokenizer_with_equal_ids(
    trained: SentencePiece, transformer: PreTrainedTokenizerBase, documents: list[str]
) -> None:
    texts = [*HARD, *documents[:200]]
    found = transformer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert transformer.is_fast
    assert found == [ids.tolist() for ids in trained.encode(texts)]
    assert [transformer.decode(ids) for ids in found] == texts


def test_transformers_begins_a_text_with_bos_as_pretraining_does(
    trained: SentencePiece, transformer: PreTrainedTokenizerBase
) -> None:
    found = transformer("春天")
    assert found["input_ids"] == [trained.bos_id, *trained.encode(["春天"])[0]]
    assert sorted(found) == ["attention_mask", "input_ids"]


def test_transformers_knows_the_specials(
    trained: SentencePiece, transformer: PreTrainedTokenizerBase
) -> None:
    assert (transformer.bos_token_id, transformer.eos_token_id, transformer.pad_token_id) == (1, 2, 3)
    assert len(transformer) == trained.vocab_size
    assert transformer.convert_tokens_to_ids("<|end|>") == trained.special_id("<|end|>")
    assert transformer.decode([1, 7, *trained.encode(["好"])[0], 2], skip_special_tokens=True) == "好"


def test_ids_are_equal_on_ten_thousand_real_documents(shared_data: Path) -> None:
    texts = real_documents(shared_data, each=600)
    draw = random.Random(3)
    tokenizer = SentencePiece(train(draw.sample([text[:2000] for text in texts], 3000), 10_000))
    assert len(texts) >= 10_000
    assert differing(tokenizer, texts) == []
    assert [tokenizer.decode(ids) for ids in tokenizer.encode(texts)] == texts


def real_documents(shared_data: Path, each: int) -> list[str]:
    """At most so many documents of each file, evenly through it; all but each fiftieth cut at 2,000
    characters."""
    import orjson
    import zstandard

    found = []
    for path in sorted((shared_data / "text").glob("*.jsonl.zst")):
        with path.open("rb") as stream:
            lines = zstandard.ZstdDecompressor().stream_reader(stream).read().splitlines()
        found += [orjson.loads(line)["text"] for line in lines[:: max(1, len(lines) // each)][:each]]
    return [text[: 50_000 if i % 50 == 0 else 2_000] for i, text in enumerate(found)]
