"""The weights of a Llama model in the layout of the decoder: matrices that share an input are joined.

Shapes: C positions, D head width, W width, V vocabulary.

A small model on a CPU spends a good part of a step in the number of operations and not in their work, so
q, k and v are one matrix here, and so are gate and up. Rows of q and k that RoPE turns together stand side
by side (transformers has them half a head apart), so that it is one multiplication of complex numbers.
Both are put in the same order, which leaves their products as they were. On a CPU matrices lie in memory
as [in, out]: with few tokens MKL reads them in that order 1.3 (16 tokens) to 2.5 times (one) as fast as in
the order of a checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LlamaForCausalLM

from ctllm_ray.base.errors import InputError
from ctllm_ray.model.config import ModelConfig

#: Kinds of RoPE whose frequencies change with the length of the text: cached keys would become wrong.
_MOVING_ROPE = ("dynamic", "longrope")


@dataclass(frozen=True)
class Block:
    """One layer. Matrices are [in, out]; biases are None if the model has none."""

    attention_norm: torch.Tensor
    qkv: torch.Tensor
    qkv_bias: torch.Tensor | None
    out: torch.Tensor
    out_bias: torch.Tensor | None
    ffn_norm: torch.Tensor
    gate_up: torch.Tensor
    gate_up_bias: torch.Tensor | None
    down: torch.Tensor
    down_bias: torch.Tensor | None


@dataclass(frozen=True)
class Weights:
    """All weights on one device, in one number type."""

    config: ModelConfig
    embedding: torch.Tensor
    blocks: Sequence[Block]
    norm: torch.Tensor
    head: torch.Tensor  # [W, V]
    turns_CD: torch.Tensor  # complex [C, D / 2]: the RoPE rotation of each position


def take(
    model: LlamaForCausalLM, config: ModelConfig, positions: int, device: torch.device, dtype: torch.dtype
) -> Weights:
    """Takes the weights out of a model. The model loses its layers, so that a large one is not held twice.

    Raises `InputError` for weights that are no finite numbers, and for a RoPE that moves with the length.
    """
    if config.rope_scaling.get("rope_type") in _MOVING_ROPE:
        kind = config.rope_scaling["rope_type"]
        raise InputError(
            f"the torch engine does not support RoPE of type {kind!r}", remedy="serve this model with vLLM"
        )
    turns_CD = _turns(model, positions).to(device)
    embedding = _place_weights(model.model.embed_tokens.weight, device, dtype)
    head = _place_weights(model.lm_head.weight.T, device, dtype)
    blocks = []
    for number, layer in enumerate(model.model.layers):
        blocks.append(_block(layer, config, device, dtype))
        model.model.layers[number] = torch.nn.Identity()
    norm = _place_weights(model.model.norm.weight, device, dtype)
    held = [
        embedding,
        head,
        norm,
        *(each for block in blocks for each in vars(block).values() if each is not None),
    ]
    if not all(bool(torch.isfinite(each).all()) for each in held):
        raise InputError("the model's weights contain NaN or infinity", remedy="restore the model's folder")
    return Weights(config, embedding, blocks, norm, head, turns_CD)


def _place_weights(weights: torch.Tensor, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    placed = weights.detach().to(device, dtype)
    return placed.contiguous() if device.type == "cpu" else placed


def _block(layer: Any, config: ModelConfig, device: torch.device, dtype: torch.dtype) -> Block:
    attention, ffn = layer.self_attn, layer.mlp
    turned = (attention.q_proj, attention.k_proj)

    def join(linears: Sequence[torch.nn.Linear], what: str) -> Any:
        parts = [getattr(each, what) for each in linears]
        if parts[0] is None:
            return None
        width = config.head_width
        parts = [
            _pair_rows(rows, width) if of in turned else rows for rows, of in zip(parts, linears, strict=True)
        ]
        result = torch.cat(parts)
        return _place_weights(result.T if result.dim() == 2 else result, device, dtype)

    linears = {
        "qkv": [*turned, attention.v_proj],
        "out": [attention.o_proj],
        "gate_up": [ffn.gate_proj, ffn.up_proj],
        "down": [ffn.down_proj],
    }
    return Block(
        attention_norm=_place_weights(layer.input_layernorm.weight, device, dtype),
        ffn_norm=_place_weights(layer.post_attention_layernorm.weight, device, dtype),
        **{name: join(some, "weight") for name, some in linears.items()},
        **{f"{name}_bias": join(some, "bias") for name, some in linears.items()},
    )


def _pair_rows(rows: torch.Tensor, head_width: int) -> torch.Tensor:
    """Rows of q or k reordered so that the two rows rotated together are neighbours."""
    return rows.unflatten(0, (-1, 2, head_width // 2)).transpose(1, 2).flatten(0, 2)


def _turns(model: LlamaForCausalLM, positions: int) -> torch.Tensor:
    """RoPE rotations as complex numbers [C, D / 2], with the scaling of the model's configuration."""
    cos, sin = model.model.rotary_emb(torch.zeros(1), torch.arange(positions)[None])
    half = cos.shape[-1] // 2
    return torch.complex(cos[0, :, :half].float(), sin[0, :, :half].float())
