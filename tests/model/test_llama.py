"""Building, loading and running Llama models; the law of document attention."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM
from transformers.utils import logging

from ctllm_ray.base.errors import InputError, RecipeError
from ctllm_ray.model import attention, llama
from ctllm_ray.model import folder as hugging_face
from ctllm_ray.model.config import ModelConfig

SMALL = ModelConfig(3, 64, 4, 2, 16, 96, 128, 64, tied=False)
PIECES = [(0, 9), (9, 10), (10, 24)]  # of a row of 32; the rest is padding


@dataclass
class Rows:
    input_ids: np.ndarray
    labels: np.ndarray
    positions: np.ndarray
    documents: np.ndarray
    references: np.ndarray


def rows(documents_apart: int = 1) -> Rows:
    ids = np.random.default_rng(5).integers(0, 128, (2, 32))
    positions = np.tile(np.arange(32), (2, 1))
    documents = np.zeros((2, 32), np.int32)
    if documents_apart:
        documents[0] = -1
        for number, (start, end) in enumerate(PIECES):
            documents[0, start:end] = number
            positions[0, start:end] = np.arange(end - start)
    return Rows(ids, np.roll(ids, -1, axis=1), positions, documents, np.empty((0, 0), np.float32))


def logits(model: LlamaForCausalLM, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        return model.lm_head(llama.forward_hidden(model, batch))


def largest_difference(model: LlamaForCausalLM, packed: Rows) -> float:
    """Between the logits of each piece in its row and of the piece alone."""
    whole = logits(model, llama.tensors(packed, torch.device("cpu")))[0]
    alone = [logits(model, {"input_ids": torch.from_numpy(packed.input_ids[:1, a:b])})[0] for a, b in PIECES]
    return max(float((whole[a:b] - one).abs().max()) for (a, b), one in zip(PIECES, alone, strict=True))


@pytest.mark.parametrize("kind", ["sdpa", "eager"])
def test_with_document_attention_a_piece_in_a_packed_row_has_the_logits_of_the_piece_alone(kind: str) -> None:
    model = llama.build(SMALL, seed=3, attention=kind)
    assert largest_difference(model, rows()) < 1e-5


def test_without_document_attention_it_has_not() -> None:
    assert largest_difference(llama.build(SMALL, seed=3), rows(documents_apart=0)) > 0.01


def test_without_pieces_no_mask_is_made() -> None:
    assert set(llama.tensors(rows(0), torch.device("cpu"))) == {"input_ids", "labels", "positions"}


def test_our_attention_agrees_with_that_of_transformers() -> None:
    model = llama.build(SMALL, seed=3)
    batch = llama.tensors(rows(), torch.device("cpu"))
    ours = logits(model, batch)
    model.set_attn_implementation("sdpa")  # finds the pieces by their positions, padding included
    with torch.no_grad():
        theirs = model(input_ids=batch["input_ids"], position_ids=batch["positions"], use_cache=False).logits
    assert torch.allclose(ours[0, :24], theirs[0, :24], atol=1e-5)
    assert torch.allclose(ours[1], theirs[1], atol=1e-5)


def test_piece_ends_lay_the_rows_end_to_end() -> None:
    assert attention.piece_ends(torch.from_numpy(rows().documents)).tolist() == [0, 9, 10, 24, 32, 64]


def test_gradients_do_not_cross_documents() -> None:
    model = llama.build(SMALL, seed=3)
    batch = llama.tensors(rows(), torch.device("cpu"))
    vectors = model.model.embed_tokens(batch["input_ids"]).detach().requires_grad_()
    mask = attention.piece_mask(batch["documents"])
    out = model.model(
        inputs_embeds=vectors, position_ids=batch["positions"], attention_mask=mask, use_cache=False
    )
    out.last_hidden_state[0, 12].sum().backward()
    assert vectors.grad is not None
    reached = vectors.grad[0].abs().sum(-1).nonzero().flatten().tolist()
    assert reached == [10, 11, 12]


def test_one_seed_gives_one_model_and_another_seed_another() -> None:
    first, again, other = (llama.build(SMALL, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


def test_initial_weights_have_the_deviation_that_the_shape_names_and_less_into_the_residual_stream() -> None:
    model = llama.build(replace(SMALL, width=256, head_width=64, ffn_width=512), seed=1)
    block = model.model.layers[0]
    assert block.mlp.up_proj.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert block.mlp.down_proj.weight.std().item() == pytest.approx(0.02 / 6**0.5, rel=0.02)
    assert block.self_attn.o_proj.weight.std().item() == pytest.approx(0.02 / 6**0.5, rel=0.02)
    assert bool((block.input_layernorm.weight == 1).all())


def test_tied_matrices_are_one_memory() -> None:
    model = llama.build(replace(SMALL, tied=True), seed=1)
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_a_cast_to_bf16_leaves_the_frequencies_of_rope_exact(tmp_path: Path) -> None:
    model = llama.build(SMALL, seed=3)
    model.save_pretrained(tmp_path)
    for one in (model, llama.load(str(tmp_path))):
        before = one.model.rotary_emb.inv_freq.clone()
        one.to(torch.bfloat16)
        assert one.lm_head.weight.dtype == torch.bfloat16
        assert one.model.rotary_emb.inv_freq.dtype == torch.float32
        assert torch.equal(one.model.rotary_emb.inv_freq, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_folder_of_transformers_loads_in_fp32_with_the_same_logits(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    model = llama.build(SMALL, seed=3).to(dtype)
    model.save_pretrained(tmp_path)
    loaded = llama.load(str(tmp_path))
    batch = llama.tensors(rows(), torch.device("cpu"))
    assert loaded.lm_head.weight.dtype == torch.float32
    assert torch.equal(logits(model.float(), batch), logits(loaded, batch))


def test_loading_draws_no_bar_and_leaves_the_callers_bars_as_they_were(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    llama.build(SMALL, seed=3).save_pretrained(tmp_path)
    capfd.readouterr()
    for switch, is_on in ((logging.enable_progress_bar, True), (logging.disable_progress_bar, False)):
        switch()
        llama.load(str(tmp_path))
        assert logging.is_progress_bar_enabled() is is_on
    logging.enable_progress_bar()
    assert "Loading weights" not in "".join(capfd.readouterr())


def test_a_damaged_model_folder_is_an_input_error(tmp_path: Path) -> None:
    llama.build(SMALL, seed=3).save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match="cannot be loaded"):
        llama.load(str(tmp_path))


def test_a_folder_that_lacks_a_weight_is_an_input_error_and_not_filled_with_random_numbers(
    tmp_path: Path,
) -> None:
    hugging_face.save_model(llama.build(SMALL, 1), SMALL, str(tmp_path))
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(
        InputError, match=r"1 weights are missing, for example model\.layers\.1\.mlp\.up_proj\.weight"
    ):
        llama.load(str(tmp_path))


def test_a_folder_in_an_object_store_loads(tmp_path: Path) -> None:
    import fsspec

    model = llama.build(SMALL, seed=3)
    model.save_pretrained(tmp_path)
    fsspec.filesystem("memory").put(str(tmp_path) + "/", "/models/small/", recursive=True)
    loaded = llama.load("memory://models/small")
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)


@pytest.mark.parametrize("kind", ["flash_attention_2", "flash_attention_3"])
def test_an_attention_whose_package_is_missing_is_an_error_with_the_remedy(kind: str) -> None:
    with pytest.raises(RecipeError, match=r"(?s)cannot be used.*resources.train.attention=sdpa"):
        llama.build(SMALL, seed=1, attention=kind)


def test_activation_checkpointing_changes_no_gradient() -> None:
    batch = llama.tensors(rows(), torch.device("cpu"))
    gradients = []
    for change in (lambda model: None, llama.checkpoint_activations):
        model = llama.build(SMALL, seed=3).train()
        change(model)
        llama.forward_hidden(model, batch).square().sum().backward()
        gradients.append(model.model.layers[0].mlp.up_proj.weight.grad)
    assert torch.equal(*gradients)


def varlen_by_hand(*given: Any, window_size: tuple[int, int], enable_gqa: bool = False) -> torch.Tensor:
    """What the flash kernel computes, piece by piece."""
    query, key, value, ends, _, longest, _ = given
    assert window_size == (-1, 0)
    bounds = ends.tolist()
    assert max(np.diff(bounds)) <= longest
    out = torch.empty_like(query)
    for start, end in pairwise(bounds):
        piece = [x[start:end].transpose(0, 1) for x in (query, key, value)]
        attended = torch.nn.functional.scaled_dot_product_attention(
            *piece, is_causal=True, enable_gqa=enable_gqa
        )
        out[start:end] = attended.transpose(0, 1)
    return out


@pytest.mark.parametrize("key_heads", [4, 2])
def test_pieces_by_the_flash_kernel_one_after_the_other_and_under_a_mask_are_the_same(
    key_heads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_by_hand)
    documents = torch.from_numpy(rows().documents)
    (batch, tokens), draw = documents.shape, torch.Generator().manual_seed(1)
    query, key, value = (
        torch.randn(batch, heads, tokens, 8, generator=draw) for heads in (4, key_heads, key_heads)
    )
    ends, mask = attention.piece_ends(documents), attention.piece_mask(documents)
    by_mask, _ = attention.attend(torch.nn.Identity(), query, key, value, mask)
    in_turn, _ = attention.attend(torch.nn.Identity(), query, key, value, None, piece_ends=ends)
    assert torch.allclose(in_turn, by_mask, atol=1e-6)
    assert torch.allclose(attention._varlen(query, key, value, ends), by_mask, atol=1e-6)
