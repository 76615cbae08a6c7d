"""Llama's forward pass over one step of many sequences, with keys and values in cache slots.

Shapes: N tokens of a step, R rows whose logits are wanted, S slots, C positions of a slot, W width, H heads,
K heads of keys and values, D head width, V vocabulary.

transformers computes a rectangle of sequences at a time. Here a step is ragged: one token of each sequence
that is being answered and pieces of prompts, laid end to end, so that the linear layers (nearly all of the
work, and bound by reading weights while tokens are few) see all of it at once. Only attention looks at
sequences by themselves.

A layer's cache is [S, 2K, C, D], keys and then values: a step writes it with one operation, attention reads
views, nothing is gathered. The positions of a head lie side by side because attention is bound by reading
them: with the heads of a token side by side, 16 sequences of 1,000 tokens took a CPU 2.4 times as long.
Logits are made of the rows that need them, and the last layer computes no others after its attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import embedding, rms_norm, silu

from ctllm_ray.inference.attention import Flash, Sdpa, SequencePiece
from ctllm_ray.inference.weights import Weights


@dataclass(frozen=True)
class _Step:
    """A step as tensors on the device."""

    ids_N: torch.Tensor
    turns: torch.Tensor  # complex [N, 1, D / 2]: the RoPE rotation of each token's position
    slots_N: torch.Tensor
    positions_N: torch.Tensor
    wanted_R: torch.Tensor
    attention: Any  # the plan of the attention in use


class Decoder:
    """A model's weights and the slots of its cache, on one device."""

    def __init__(self, weights: Weights, slots: int, context_tokens: int) -> None:
        self.config, self.slots, self.context_tokens = weights.config, slots, context_tokens
        self._weights = weights
        self._device, dtype = weights.embedding.device, weights.embedding.dtype
        group = self.config.heads // self.config.kv_heads
        self._attention: Any = Sdpa(group, self._device, dtype)
        if self._device.type == "cuda" and dtype != torch.float32:
            self._attention = Flash(group, self._device, context_tokens)
        capacity = self._attention.capacity(context_tokens)
        # Zeros: unwritten positions are masked, but 0 x NaN would be NaN. Memory is used only once it is
        # written.
        shape = (self.config.layers, slots, 2 * self.config.kv_heads, capacity, self.config.head_width)
        self._cache = torch.zeros(shape, device=self._device, dtype=dtype)

    @torch.inference_mode()
    def copy(self, source: int, target: int, tokens: int) -> None:
        """Copies the first tokens of one slot to another."""
        self._cache[:, target, :, :tokens] = self._cache[:, source, :, :tokens]

    @torch.inference_mode()
    def forward(self, pieces: Sequence[SequencePiece]) -> torch.Tensor:
        """Hidden states [R, W] of the rows that need logits, piece by piece; pieces
        are in order of their slots."""
        step, weights = self._step(pieces), self._weights
        epsilon, width = self.config.norm_epsilon, (self.config.width,)
        x = embedding(step.ids_N, weights.embedding)
        for block, cache in zip(weights.blocks, self._cache, strict=True):
            normed = rms_norm(x, width, block.attention_norm, epsilon)
            attended = self._attend(_times(normed, block.qkv, block.qkv_bias), cache, step)
            if block is weights.blocks[-1]:
                x, attended = x[step.wanted_R], attended[step.wanted_R]
            _add(x, attended, block.out, block.out_bias)
            normed = rms_norm(x, width, block.ffn_norm, epsilon)
            gate, up = _times(normed, block.gate_up, block.gate_up_bias).chunk(2, dim=1)
            _add(x, silu(gate).mul_(up), block.down, block.down_bias)
        return rms_norm(x, width, weights.norm, epsilon)

    @torch.inference_mode()
    def logits(self, hidden_RW: torch.Tensor) -> torch.Tensor:
        """Logits [R, V] in fp32."""
        return (hidden_RW @ self._weights.head).float()

    def _attend(self, qkv: torch.Tensor, cache_SKCD: torch.Tensor, step: _Step) -> torch.Tensor:
        """The attention output [N, H x D]. It also writes the keys and values of the step to the cache."""
        heads, kv_heads = self.config.heads, self.config.kv_heads
        qkv_NHD = qkv.unflatten(1, (heads + 2 * kv_heads, -1))
        _turn(qkv_NHD[:, : heads + kv_heads], step.turns)
        cache_SKCD[step.slots_N, :, step.positions_N] = qkv_NHD[:, heads:]
        keys, values = cache_SKCD.split(kv_heads, dim=1)
        return self._attention.attend(qkv_NHD[:, :heads], keys, values, step.attention)

    def _step(self, pieces: Sequence[SequencePiece]) -> _Step:
        sizes = [len(piece.ids) for piece in pieces]
        ids = np.concatenate([piece.ids for piece in pieces])
        positions = np.concatenate([np.arange(piece.start, piece.end) for piece in pieces])
        slots = np.repeat([piece.slot for piece in pieces], sizes)
        wanted = [np.arange(end - p.rows, end) for p, end in zip(pieces, np.cumsum(sizes), strict=True)]
        # one transfer to the device for all of them
        whole = torch.from_numpy(np.concatenate([ids, slots, positions, *wanted])).to(
            self._device, non_blocking=True
        )
        ids_N, slots_N, positions_N, wanted_R = whole.split([len(ids)] * 3 + [len(whole) - 3 * len(ids)])
        turns = self._weights.turns_CD[positions_N].unsqueeze(1)
        return _Step(ids_N, turns, slots_N, positions_N, wanted_R, self._attention.plan(pieces))


def _turn(x_NHD: torch.Tensor, turns: torch.Tensor) -> None:
    """Rotates pairs of numbers by RoPE's angles, in place; computed in fp32 whatever the storage type."""
    pairs = x_NHD.unflatten(-1, (-1, 2))
    if x_NHD.dtype == torch.float32:
        torch.view_as_complex(pairs).mul_(turns)
    else:
        pairs.copy_(torch.view_as_real(torch.view_as_complex(pairs.float()) * turns))


def _times(x_NW: torch.Tensor, matrix: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return x_NW @ matrix if bias is None else torch.addmm(bias, x_NW, matrix)


def _add(x_NW: torch.Tensor, of: torch.Tensor, matrix: torch.Tensor, bias: torch.Tensor | None) -> None:
    """Adds a projection to the residual stream in place: one operation if there is no bias."""
    x_NW.addmm_(of, matrix)
    if bias is not None:
        x_NW.add_(bias)
