"""Shapes: the formulas against the built model, CT-LLM's published size, and what a recipe may ask for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ctllm_ray.base.errors import InputError, RecipeError
from ctllm_ray.base.recipe_training import Model
from ctllm_ray.model import config as shapes
from ctllm_ray.model import llama
from ctllm_ray.model.config import SIZES, ModelConfig

SMALL = ModelConfig(2, 64, 4, 2, 16, 96, 128, 64, tied=True)  # grouped: 4 query heads on 2 of keys and values


def built(config: ModelConfig) -> torch.nn.Module:
    return llama.empty(config, device="meta")


def test_ct_llm_has_2133985280_parameters() -> None:
    config = SIZES["ct_llm_2b"]
    assert (config.layers, config.width, config.heads, config.head_width, config.ffn_width) == (
        32,
        2048,
        16,
        128,
        5504,
    )
    assert (config.vocab_size, config.context_tokens, config.tied) == (125_696, 4096, False)
    assert (config.norm_epsilon, config.rope_theta) == (1e-5, 10_000.0)
    assert shapes.parameters(config) == 2_133_985_280
    assert sum(p.numel() for p in built(config).parameters()) == 2_133_985_280


@pytest.mark.parametrize("name", SIZES)
def test_the_parameter_formula_counts_the_built_model(name: str) -> None:
    model = built(SIZES[name])
    assert shapes.parameters(SIZES[name]) == sum(p.numel() for p in model.parameters())
    linear = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear))
    assert shapes.matmul_parameters(SIZES[name]) == linear


@pytest.mark.parametrize(
    "change", [{}, {"tied": False}, {"attention_bias": True}, {"mlp_bias": True}, {"kv_heads": 4}]
)
def test_the_parameter_formula_holds_for_any_shape(change: dict) -> None:
    config = replace(SMALL, **change)
    assert shapes.parameters(config) == sum(p.numel() for p in built(config).parameters())


def test_small_sizes_count_what_their_names_say_at_32000_pieces() -> None:
    for name, nominal in {"25m": 25e6, "110m": 110e6, "350m": 350e6}.items():
        assert SIZES[name].vocab_size == 32_000
        assert shapes.parameters(SIZES[name]) == pytest.approx(nominal, rel=0.02)
    assert 1e6 < shapes.parameters(SIZES["tiny"]) - shapes.embedding_parameters(SIZES["tiny"]) < 2e6


def test_flops_of_ct_llm_are_14_48_billion_a_token_and_12_87_with_causal_attention() -> None:
    assert shapes.flops_per_token(SIZES["ct_llm_2b"], 4096) == 14_479_785_984
    assert shapes.causal_flops_per_token(SIZES["ct_llm_2b"], 4096) == 12_869_173_248


def test_the_flop_formula_is_what_a_counter_sees_forward_and_backward() -> None:
    config, tokens = replace(SMALL, tied=False), 48
    model = llama.build(
        config, seed=0, attention="eager"
    )  # which computes the whole square, as the convention counts
    ids = torch.arange(tokens)[None] % config.vocab_size
    with FlopCounterMode(display=False) as counter:
        model.lm_head(llama.forward_hidden(model, {"input_ids": ids})).sum().backward()
    assert counter.get_total_flops() == shapes.flops_per_token(config, tokens) * tokens


def test_a_token_of_ct_llm_holds_256_kib_of_kv_cache() -> None:
    assert shapes.kv_bytes_per_token(SIZES["ct_llm_2b"]) == 256 * 1024


def test_a_shape_survives_its_config_json() -> None:
    stretched = {"rope_type": "linear", "factor": 2.0}
    for config in [
        *SIZES.values(),
        replace(SMALL, rope_scaling=stretched, rope_theta=5e5, attention_bias=True),
    ]:
        assert shapes.from_hugging_face(json.loads(json.dumps(shapes.to_hugging_face(config)))) == config


def test_old_and_new_forms_of_config_json_tell_the_same_shape() -> None:
    new = shapes.to_hugging_face(replace(SMALL, rope_theta=5e5))
    old = {k: v for k, v in new.items() if k not in ("rope_parameters", "head_dim", "rope_scaling")}
    assert shapes.from_hugging_face(old) == shapes.from_hugging_face(new)


def test_a_recipe_takes_a_size_at_its_tokenizers_vocabulary() -> None:
    config = shapes.for_recipe(Model(use="25m"), vocab_size=9000, sequence_tokens=512)
    assert config == replace(SIZES["25m"], vocab_size=9000)
    assert shapes.for_recipe(Model(use="tiny", context_tokens=2048), 9000, 2048).context_tokens == 2048


def test_a_sequence_longer_than_the_context_is_an_error_with_the_remedy() -> None:
    with pytest.raises(RecipeError, match=r"(?s)4096 tokens.*context of 512.*model.context_tokens=4096"):
        shapes.for_recipe(Model(use="tiny"), 9000, 4096)


def test_an_unknown_size_is_an_error_that_names_the_sizes() -> None:
    with pytest.raises(RecipeError, match=r"(?s)'2b'.*ct_llm_2b"):
        shapes.for_recipe(Model(use="2b"), 9000, 512)


def folder_of(config: ModelConfig, tmp_path: Path, **change: object) -> str:
    (tmp_path / "config.json").write_text(json.dumps(shapes.to_hugging_face(config) | change))
    return str(tmp_path)


def test_a_folder_with_another_vocabulary_is_an_error_with_the_ways_to_bring_it_over(tmp_path: Path) -> None:
    folder = folder_of(SMALL, tmp_path)
    with pytest.raises(InputError, match=r"(?s)128 embedding rows.*9000 pieces.*mean_of_pieces"):
        shapes.for_recipe(Model(path=folder), 9000, 64)
    assert shapes.for_recipe(Model(path=folder, vocabulary="wechsel"), 9000, 64).vocab_size == 9000


def test_rows_that_pad_the_vocabulary_of_a_folder_are_kept(tmp_path: Path) -> None:
    assert shapes.for_recipe(Model(path=folder_of(SMALL, tmp_path)), 125, 64) == SMALL


def test_a_folder_of_another_architecture_and_one_without_a_model_are_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.json is missing"):
        shapes.of_folder(str(tmp_path / "none"))
    with pytest.raises(InputError, match=r"not a Llama: model_type 'gpt2'"):
        shapes.of_folder(folder_of(SMALL, tmp_path, model_type="gpt2"))
