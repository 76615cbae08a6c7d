"""A model on another tokenizer: what both know is kept, what is new comes from what is known."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch.nn.functional import cross_entropy

from ctllm_ray.base.errors import InputError
from ctllm_ray.model import llama, vocabulary
from ctllm_ray.model.config import ModelConfig
from ctllm_ray.token_bytes import list_piece_bytes

TEXT = "春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。" * 6
OLD = [
    "<unk>",
    "<s>",
    "</s>",
    *(f"<0x{b:02X}>" for b in range(256)),
    *sorted(set(TEXT)),
    "▁the",
    "学",
    "习",
    "机器",
]
NEW = [
    "<pad>",
    "<s>",
    "</s>",
    *sorted(set(TEXT), reverse=True),
    "春眠",
    "处处",
    "机器学习",
    "花落",
    "<0xE4>",
    "ひ",
]
METHODS = ["mean_of_pieces", "multivariate_normal", "wechsel"]


def encode(text: str) -> list[int]:
    """By characters, 机器 as one, others by their bytes."""
    found, rest = [], text
    while rest:
        step = 2 if rest.startswith("机器") else 1
        piece, rest = rest[:step], rest[step:]
        found += [OLD.index(piece)] if piece in OLD else [3 + byte for byte in piece.encode()]
    return found


def config(tied: bool = False) -> ModelConfig:
    return ModelConfig(2, 32, 2, 2, 16, 64, len(OLD), 64, tied=tied)


def extended(
    method: str, tied: bool = False, seed: int = 1
) -> tuple[llama.LlamaForCausalLM, llama.LlamaForCausalLM]:
    """The model before, and one on the new vocabulary."""
    model = llama.build(config(tied), seed=5)
    return llama.build(config(tied), seed=5), vocabulary.extend(
        model, OLD, NEW, encode, method=method, seed=seed
    )


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_pieces_of_both_vocabularies_keep_their_rows(method: str, tied: bool) -> None:
    before, after = extended(method, tied)
    assert after.config.vocab_size == len(NEW)
    assert (after.lm_head.weight is after.model.embed_tokens.weight) == tied
    for old, new in [(before.model.embed_tokens, after.model.embed_tokens), (before.lm_head, after.lm_head)]:
        assert new.weight.shape == (len(NEW), 32)
        for number, piece in enumerate(NEW):
            if piece in OLD:
                assert torch.equal(new.weight[number], old.weight[OLD.index(piece)])
            else:
                assert new.weight[number].abs().sum() > 0


@pytest.mark.parametrize("method", METHODS)
def test_only_the_matrices_change(method: str) -> None:
    before, after = extended(method)
    kept = dict(after.named_parameters())
    for name, parameter in before.named_parameters():
        if "embed_tokens" not in name and "lm_head" not in name:
            assert torch.equal(parameter, kept[name])


def test_a_new_piece_is_the_mean_of_the_pieces_that_it_was_split_into() -> None:
    before, after = extended("mean_of_pieces")
    for matrix_before, matrix in [
        (before.model.embed_tokens, after.model.embed_tokens),
        (before.lm_head, after.lm_head),
    ]:
        parts = [OLD.index(piece) for piece in ("机器", "学", "习")]
        assert torch.allclose(matrix.weight[NEW.index("机器学习")], matrix_before.weight[parts].mean(0))
        doubled = matrix_before.weight[OLD.index("处")]
        assert torch.allclose(matrix.weight[NEW.index("处处")], doubled)
        of_bytes = [3 + byte for byte in "ひ".encode()]
        assert torch.allclose(matrix.weight[NEW.index("ひ")], matrix_before.weight[of_bytes].mean(0))


def test_wechsel_rows_are_convex_combinations_of_ten_rows_and_lean_on_their_kin() -> None:
    shared = vocabulary.shared_pieces(OLD, NEW)
    found = vocabulary.combinations(OLD, NEW, encode, shared, "wechsel")
    assert (found.weight > 0).all()
    for number in set(range(len(NEW))) - set(shared):
        weights = found.weight[found.new == number]
        if NEW[number] in ("春眠", "处处", "机器学习", "花落"):
            assert len(weights) == vocabulary.NEIGHBOURS
            assert weights.sum() == pytest.approx(1, abs=1e-5)
    kin = found.old[(found.new == NEW.index("机器学习")) & (found.weight > 0.02)]
    assert {"机器", "学", "习"} <= {OLD[number] for number in kin}


def test_wechsel_draws_what_has_no_kin_from_the_normal_distribution() -> None:
    shared = vocabulary.shared_pieces(OLD, NEW)
    found = vocabulary.combinations(OLD, NEW, encode, shared, "wechsel")
    assert NEW.index("ひ") not in found.new
    _, after = extended("wechsel", seed=1)
    _, other = extended("wechsel", seed=2)
    number = NEW.index("ひ")
    assert not torch.equal(after.lm_head.weight[number], other.lm_head.weight[number])
    assert torch.equal(after.lm_head.weight[NEW.index("春眠")], other.lm_head.weight[NEW.index("春眠")])


def test_normal_rows_have_the_mean_and_the_covariance_of_the_old_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(8, 8, generator=generator)
    old = torch.randn(500, 8, generator=generator) @ mixing + torch.arange(8.0)
    drawn = vocabulary.normal(old, 200_000, seed=3)
    # standard error of a mean over 200,000 draws is 0.2 % of a deviation, of a covariance about 0.3 % of the
    # variance
    assert torch.allclose(drawn.mean(0), old.mean(0), atol=0.02 * float(old.std()))
    assert torch.allclose(drawn.T.cov(), old.T.cov(), atol=0.02 * float(old.var()))
    assert torch.equal(drawn, vocabulary.normal(old, 200_000, seed=3))


def test_fewer_rows_than_dimensions_are_no_obstacle() -> None:
    assert bool(vocabulary.normal(torch.eye(4, 16), 10, seed=1).isfinite().all())


def test_byte_level_and_sentencepiece_spellings_of_one_text_are_one_piece() -> None:
    byte_level = ["Ġthe", "æľº", "ä", "Ċ", "A", "<|endoftext|>"]
    sentencepiece = ["▁the", "机", "<0xE4>", "<0x0A>", "A", "<|endoftext|>", "▁"]
    assert list_piece_bytes(byte_level)[:2] == [b" the", "机".encode()]
    shared = vocabulary.shared_pieces(byte_level, sentencepiece)
    assert {sentencepiece[n]: byte_level[o] for n, o in shared.items()} == {
        "▁the": "Ġthe", "机": "æľº", "<0xE4>": "ä", "A": "A", "<|endoftext|>": "<|endoftext|>",
    }  # fmt: skip


def test_pieces_named_as_the_same_take_that_row_whatever_their_spelling() -> None:
    model, before = llama.build(config(), seed=5), llama.build(config(), seed=5)
    vocabulary.extend(model, OLD, NEW, encode, method="mean_of_pieces", seed=1, same={0: 2})
    assert torch.equal(model.lm_head.weight[0], before.lm_head.weight[2])


def test_rows_that_only_pad_the_old_matrix_are_left_out_and_too_few_are_an_error() -> None:
    model = llama.build(config(), seed=5)
    vocabulary.extend(model, OLD[:-4], NEW, encode, method="multivariate_normal", seed=1)
    assert model.lm_head.weight.shape[0] == len(NEW)
    with pytest.raises(InputError, match="rows"):
        vocabulary.extend(llama.build(config(), seed=5), [*OLD, "x"], NEW, encode, method="wechsel", seed=1)


def nats_per_char(model: llama.LlamaForCausalLM, ids: Sequence[int]) -> torch.Tensor:
    row = torch.tensor([ids[:60]])
    logits = model.lm_head(llama.forward_hidden(model, {"input_ids": row[:, :-1]}))
    return cross_entropy(logits[0], row[0, 1:])


def trained() -> llama.LlamaForCausalLM:
    model = llama.build(config(), seed=5)
    adam = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(120):
        adam.zero_grad()
        nats_per_char(model, encode(TEXT)).backward()
        adam.step()
    return model


def test_a_trained_model_loses_nothing_to_a_permuted_vocabulary_and_little_to_merged_pieces() -> None:
    model = trained()
    before = nats_per_char(model, encode(TEXT)).item()
    vocabulary.extend(model, OLD, NEW, encode, method="mean_of_pieces", seed=1)
    by_character = [NEW.index(character) for character in TEXT]
    assert nats_per_char(model, by_character).item() == pytest.approx(
        before, abs=0.2
    )  # new pieces take a little
    pieces, rest = [], TEXT
    while rest:
        step = 2 if rest[:2] in NEW else 1
        pieces.append(NEW.index(rest[:step]))
        rest = rest[step:]
    fresh = llama.build(ModelConfig(2, 32, 2, 2, 16, 64, len(NEW), 64), seed=9)
    assert nats_per_char(model, pieces).item() < 0.6 * nats_per_char(fresh, pieces).item()
