"""A written folder is a model to transformers: the same logits, whatever the number of files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from ctllm_ray.model import folder, llama
from ctllm_ray.model.config import ModelConfig, of_folder

SMALL = ModelConfig(3, 64, 4, 2, 16, 96, 128, 64)
IDS = torch.arange(20)[None]


def written(config: ModelConfig, path: Path, dtype: torch.dtype, shard_bytes: int) -> llama.LlamaForCausalLM:
    model = llama.build(config, seed=3)
    held = dict(model.named_parameters())
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}
    folder.write_folder(
        str(path), config, lambda n: held[n].detach(), dtype=dtype, token_ids=ids, shard_bytes=shard_bytes
    )
    return model


@pytest.mark.parametrize("shard_bytes", [1, 50_000, 1 << 30])
@pytest.mark.parametrize(
    "change", [{}, {"tied": True}, {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}]
)
def test_transformers_opens_it_with_equal_logits(tmp_path: Path, shard_bytes: int, change: dict) -> None:
    config = replace(SMALL, **change)
    model = written(config, tmp_path, torch.float32, shard_bytes)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    with torch.no_grad():
        ours = model.lm_head(llama.forward_hidden(model, {"input_ids": IDS}))
        assert torch.allclose(loaded(IDS).logits, ours, atol=1e-6)
    assert of_folder(str(tmp_path)) == config
    assert loaded.config.eos_token_id == 2
    assert loaded.generation_config.eos_token_id == 2
    assert loaded.generate(IDS, max_new_tokens=3, do_sample=False).shape[1] <= 23


def test_a_bf16_folder_holds_the_rounded_weights_and_says_so(tmp_path: Path) -> None:
    model = written(SMALL, tmp_path, torch.bfloat16, 1 << 30)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.dtype == torch.bfloat16
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight.to(torch.bfloat16))
    plain = json.loads((tmp_path / "config.json").read_text())
    assert (plain["torch_dtype"], plain["architectures"]) == ("bfloat16", ["LlamaForCausalLM"])


def test_no_more_than_a_shard_is_held_at_a_time(tmp_path: Path) -> None:
    held, most = [0], [0]
    model = llama.build(SMALL, seed=3)
    weights = dict(model.named_parameters())

    def tensor(name: str) -> torch.Tensor:
        stands = len(list(tmp_path.glob("*.safetensors")))
        held[0] = held[0] + 1 if stands == most[0] else 1
        most[0] = stands
        assert held[0] <= 12, "parameters of several shards asked for before one was written"
        return weights[name].detach()

    folder.write_folder(str(tmp_path), SMALL, tensor, dtype=torch.float32, shard_bytes=50_000)
    files = sorted(p.name for p in tmp_path.glob("*.safetensors"))
    index = json.loads((tmp_path / folder.INDEX).read_text())
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    assert sorted(index["weight_map"]) == sorted(weights)
    assert set(index["weight_map"].values()) == set(files)


def test_save_writes_a_model_that_is_in_memory(tmp_path: Path) -> None:
    model = llama.build(SMALL, seed=3)
    folder.save_model(model, SMALL, str(tmp_path))
    assert torch.equal(llama.load(str(tmp_path)).lm_head.weight, model.lm_head.weight)


def test_it_is_written_to_an_object_store_as_well() -> None:
    model = llama.build(SMALL, seed=3)
    folder.save_model(model, SMALL, "memory://written/small")
    assert torch.equal(llama.load("memory://written/small").lm_head.weight, model.lm_head.weight)
