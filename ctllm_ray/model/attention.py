"""Attention that keeps the documents of a packed row apart, on PyTorch's own kernels.

Shapes: B sequences, T positions, H heads, D head width, P pieces of documents.

transformers finds documents by looking for positions that do not rise; that look costs a host synchronisation in each
forward pass, and under torch.compile it always ends in a T x T mask. So `attend` is registered as an attention of our
own, which gets the pieces from the caller:

* no pieces: causal SDPA, which is a flash kernel on a GPU and skips the upper half on a CPU;
* pieces, in bf16 or fp16 on a GPU: the variable-length flash kernel that PyTorch ships (`torch.nn.attention.varlen`,
  no flash-attn package): each piece costs its length squared and nothing is masked;
* pieces elsewhere: SDPA with a B x 1 x T x T mask, made once for all layers.

It is for training and scoring: whole rows, no cache and no padding mask. Exported models use transformers' own.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

#: How configurations of transformers name `attend`.
NAME = "ctllm_documents"


def attend(
    module: torch.nn.Module,
    query_BHTD: torch.Tensor,
    key_BHTD: torch.Tensor,
    value_BHTD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    piece_ends: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attended values [B, T, H, D]; keys and values may have fewer heads than queries."""
    if piece_ends is not None:
        return _varlen(query_BHTD, key_BHTD, value_BHTD, piece_ends), None
    out_BHTD = scaled_dot_product_attention(
        query_BHTD,
        key_BHTD,
        value_BHTD,
        attn_mask=attention_mask,
        is_causal=attention_mask is None,
        scale=scaling,
        enable_gqa=query_BHTD.shape[1] != key_BHTD.shape[1],
    )
    return out_BHTD.transpose(1, 2).contiguous(), None


def _varlen(
    query_BHTD: torch.Tensor, key_BHTD: torch.Tensor, value_BHTD: torch.Tensor, ends: torch.Tensor
) -> torch.Tensor:
    """Attended values [B, T, H, D] of causal attention within pieces, by the flash kernel, scaled by 1 / sqrt(D)."""
    from torch.nn.attention.varlen import varlen_attn

    batch, heads, tokens, width = query_BHTD.shape
    query, key, value = (
        x.transpose(1, 2).reshape(batch * tokens, -1, width) for x in (query_BHTD, key_BHTD, value_BHTD)
    )
    grouped: dict[str, Any] = {"enable_gqa": True} if heads != key_BHTD.shape[1] else {}
    # No piece is longer than a row. A bound and not the length itself: a number that varies would compile anew.
    out = varlen_attn(query, key, value, ends, ends, tokens, tokens, window_size=(-1, 0), **grouped)
    return cast(torch.Tensor, out).view(batch, tokens, heads, width)


def piece_ends(documents_BT: torch.Tensor) -> torch.Tensor:
    """Where pieces end in the rows laid end to end, from 0: int32 [P + 1]. On a GPU this waits for the device."""
    new_BT = torch.ones_like(documents_BT, dtype=torch.bool)
    new_BT[:, 1:] = documents_BT[:, 1:] != documents_BT[:, :-1]
    starts = new_BT.flatten().nonzero().flatten()
    return torch.cat([starts, starts.new_tensor([documents_BT.numel()])]).to(torch.int32)


def piece_mask(documents_BT: torch.Tensor) -> torch.Tensor:
    """True where a position may look: back, within its own piece. Boolean [B, 1, T, T]."""
    same = documents_BT[:, :, None] == documents_BT[:, None, :]
    return same.tril()[:, None]


def has_pieces(documents_BT: torch.Tensor) -> bool:
    """True where some row holds several pieces, so that plain causal attention would look across documents."""
    return bool((documents_BT > 0).any())


AttentionInterface.register(NAME, attend)
