"""The forward pass over ragged steps, and what the flash kernel of a GPU is asked for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from ctllm_ray.base.errors import InputError
from ctllm_ray.inference.attention import PAGE_TOKENS, Flash, SequencePiece
from ctllm_ray.inference.weights import take
from ctllm_ray.model.config import ModelConfig
from tests.inference.tiny_engines import PLAIN, SHAPE, decoder, expected_logprobs, model, prompts

SHAPES = pytest.mark.parametrize("shape", [SHAPE, PLAIN], ids=["grouped", "plain"])

#: Sequences in slots 0, 1 and 3: a whole prompt, a prompt in pieces that ends, one that goes on; then one
#: token each.
FIRST, SECOND, THIRD = prompts(3, 30, 40)
STEPS = [
    [
        SequencePiece(0, 0, FIRST[:-2], 1),
        SequencePiece(1, 0, SECOND[:7], 0),
        SequencePiece(3, 0, THIRD[:1], 0),
    ],
    [
        SequencePiece(0, len(FIRST) - 2, FIRST[-2:-1], 1),
        SequencePiece(1, 7, SECOND[7:], len(SECOND) - 7),
        SequencePiece(3, 1, THIRD[1:20], 2),
    ],
    [SequencePiece(0, len(FIRST) - 1, FIRST[-1:], 1), SequencePiece(3, 20, THIRD[20:21], 1)],
]


def computed(of: Any) -> list[torch.Tensor]:
    """Log-probabilities of each step's rows."""
    return [of.logits(of.forward(pieces)).log_softmax(-1) for pieces in STEPS]


@SHAPES
def test_rows_of_ragged_steps_are_those_of_each_sequence_alone(shape: ModelConfig) -> None:
    first, second, third = (expected_logprobs(ids, shape) for ids in (FIRST, SECOND, THIRD))
    exact = [
        first[len(FIRST) - 3][None],
        torch.cat([first[len(FIRST) - 2][None], second[7:], third[18:20]]),
        torch.stack([first[-1], third[20]]),
    ]
    for mine, its in zip(computed(decoder(shape)), exact, strict=True):
        torch.testing.assert_close(mine, its, atol=1e-4, rtol=0)


def paged(
    query: Any, keys: Any, values: Any, cu_seq_q: Any, cu_seq_k: Any, max_q: int, max_k: int, **named: Any
) -> Any:
    """What `varlen_attn` documents, in plain torch: a stand-in, for the kernel needs a GPU."""
    assert cu_seq_k is None
    assert named["window_size"] == (-1, 0)
    assert keys.shape[1] % PAGE_TOKENS == 0
    assert max_k == keys.shape[1]
    found = []
    for n, (begin, end) in enumerate(zip(cu_seq_q[:-1].tolist(), cu_seq_q[1:].tolist(), strict=True)):
        used, page = int(named["seqused_k"][n]), int(named["block_table"][n, 0])
        assert end - begin <= max_q
        mask = torch.ones(end - begin, used, dtype=torch.bool).tril(used - (end - begin))
        q, k, v = (x.transpose(0, 1) for x in (query[begin:end], keys[page, :used], values[page, :used]))
        out = scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=named["enable_gqa"])
        found.append(out.transpose(0, 1))
    return torch.cat(found)


@SHAPES
def test_the_flash_kernel_is_asked_for_the_same_attention(
    shape: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", paged)
    with_flash = decoder(shape)
    attention = Flash(shape.heads // shape.kv_heads, torch.device("cpu"), shape.context_tokens)
    with_flash._attention = attention
    layers, slots, heads, _, width = with_flash._cache.shape
    with_flash._cache = torch.zeros(layers, slots, heads, attention.capacity(shape.context_tokens), width)
    for mine, its in zip(computed(with_flash), computed(decoder(shape)), strict=True):
        torch.testing.assert_close(mine, its, atol=1e-5, rtol=0)


def test_a_copied_prefix_is_as_if_it_had_been_computed() -> None:
    of = decoder()
    of.forward([SequencePiece(2, 0, FIRST, 1)])
    of.copy(2, 0, 20)
    found = of.logits(of.forward([SequencePiece(0, 20, FIRST[20:], 1)]))
    torch.testing.assert_close(found[0].log_softmax(-1), expected_logprobs(FIRST)[-1], atol=1e-4, rtol=0)


def test_a_rope_that_moves_with_the_length_is_refused() -> None:
    moving = ModelConfig(1, 64, 4, 2, 16, 96, 128, 96, rope_scaling={"rope_type": "dynamic", "factor": 2.0})
    with pytest.raises(InputError, match="dynamic"):
        take(model(moving), moving, 96, torch.device("cpu"), torch.float32)
