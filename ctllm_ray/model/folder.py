"""Writes a model as a Hugging Face folder, tensor by tensor, for transformers, vLLM and llama.cpp.

Weights go out in shards that are filled and dropped one after another, so a model larger than memory
is written within the size of one shard. Every file appears whole under its name, and config.json
after the weights: until then no program takes the folder for a model. Works on object stores, where
folders cannot be renamed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from safetensors.torch import save_file

from ctllm_ray.base import storage
from ctllm_ray.base.errors import InputError
from ctllm_ray.model import llama
from ctllm_ray.model.config import CONFIG, ModelConfig, to_hugging_face

GENERATION = "generation_config.json"
INDEX = "model.safetensors.index.json"

#: Size of one weight file. transformers' default is 50 GB; smaller files load in parallel and fit a laptop's
#: memory.
SHARD_BYTES = 2 << 30


def save_model(
    model: llama.LlamaForCausalLM, config: ModelConfig, folder: str, *, dtype: torch.dtype = torch.float32
) -> None:
    """Writes a model that is in memory."""
    held = dict(model.named_parameters())
    write_folder(folder, config, lambda name: held[name].detach(), dtype=dtype)


def write_folder(
    folder: str,
    config: ModelConfig,
    tensor: Callable[[str], torch.Tensor],
    *,
    dtype: torch.dtype,
    token_ids: Mapping[str, int | list[int]] | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Writes weights and configuration. `tensor` returns the weights of a parameter by its name.

    `token_ids` are `bos_token_id`, `eos_token_id` and
    `pad_token_id`. Raises `InputError` for weights of another shape.
    """
    shapes = {
        name: parameter.shape for name, parameter in llama.empty(config, device="meta").named_parameters()
    }
    shards = list(_shards(shapes, dtype.itemsize, shard_bytes))
    names = _file_names(len(shards))
    for file, parameters in zip(names, shards, strict=True):
        held = {
            name: _check_shape(tensor(name), shapes[name], name).to(dtype).contiguous() for name in parameters
        }
        with storage.writing(storage.join(folder, file)) as local:
            save_file(held, local, metadata={"format": "pt"})
    if len(names) > 1:
        storage.write_json(storage.join(folder, INDEX), _index(names, shards, shapes, dtype.itemsize))
    storage.write_json(storage.join(folder, GENERATION), dict(token_ids or {}))
    described = to_hugging_face(config, str(dtype).removeprefix("torch.")) | dict(token_ids or {})
    storage.write_json(storage.join(folder, CONFIG), described)


def _check_shape(weights: torch.Tensor, shape: torch.Size, name: str) -> torch.Tensor:
    if weights.shape == shape:
        return weights
    raise InputError(
        f"{name} has shape {list(weights.shape)}, but the recipe's model expects {list(shape)}",
        remedy="use the recipe that trained these weights: `model` or the tokenizer differs here",
    )


def _shards(shapes: dict[str, torch.Size], value_bytes: int, shard_bytes: int) -> Iterator[list[str]]:
    """Parameters in order, as many per shard as fit; a larger one has its own shard."""
    shard: list[str] = []
    filled = 0
    for name, shape in shapes.items():
        size = shape.numel() * value_bytes
        if shard and filled + size > shard_bytes:
            yield shard
            shard, filled = [], 0
        shard.append(name)
        filled += size
    yield shard


def _file_names(count: int) -> list[str]:
    if count == 1:
        return ["model.safetensors"]
    return [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]


def _index(
    names: list[str], shards: list[list[str]], shapes: dict[str, torch.Size], value_bytes: int
) -> dict[str, Any]:
    where = {parameter: file for file, shard in zip(names, shards, strict=True) for parameter in shard}
    total = sum(shape.numel() for shape in shapes.values())
    return {"metadata": {"total_size": total * value_bytes, "total_parameters": total}, "weight_map": where}
