"""Attention that keeps the documents of a packed row apart, with PyTorch's own kernels.

Shapes: B sequences, T positions, H heads, D head width, P pieces of documents.

transformers finds documents by looking for positions that do not rise; that look costs a host synchronisation
in each forward pass, and under torch.compile it always ends in a T x T mask. So `attend` is registered as an
attention of our own, which gets the pieces from the caller:

* no pieces, on a GPU: causal SDPA, a flash kernel;
* pieces, in bf16 or fp16 on a GPU: the variable-length flash kernel that PyTorch ships
  (`torch.nn.attention.varlen`, no flash-attn package): each piece costs its length squared and nothing is
  masked;
* on a CPU: causal SDPA of one piece after the other, each row being one where none are given. Against one
  call with a mask that is 1.1 to 2 times as fast at 512 positions and 1.7 to 7 times at 2,048; against one
  causal call, 1.2 times;
* pieces elsewhere: SDPA with a B x 1 x T x T mask, made once for all layers.

It is for training and scoring: whole rows, no cache and no padding mask. Exported models use transformers'
own.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

#: The name of `attend` in configurations of transformers.
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
    """The attention output [B, T, H, D]. Keys and values may have fewer heads than queries."""
    if attention_mask is None and query_BHTD.device.type == "cpu":
        return _piece_by_piece(query_BHTD, key_BHTD, value_BHTD, piece_ends, scaling), None
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


# lengths vary from batch to batch: a compiled loop over them would recompile each time
@torch.compiler.disable
def _piece_by_piece(
    query_BHTD: torch.Tensor,
    key_BHTD: torch.Tensor,
    value_BHTD: torch.Tensor,
    ends: torch.Tensor | None,
    scaling: float | None,
) -> torch.Tensor:
    """Causal attention within pieces, output [B, T, H, D]; without `ends` each row is one piece."""
    batch, heads, tokens, width = query_BHTD.shape
    sizes = [tokens] * batch if ends is None else ends.diff().tolist()
    grouped = heads != key_BHTD.shape[1]
    split = (
        x.transpose(1, 2).reshape(batch * tokens, -1, width).transpose(0, 1).split(sizes, dim=1)
        for x in (query_BHTD, key_BHTD, value_BHTD)
    )
    pieces = [
        scaled_dot_product_attention(
            q[None], k[None], v[None], is_causal=True, scale=scaling, enable_gqa=grouped
        )[0]
        for q, k, v in zip(*split, strict=True)
    ]
    return torch.cat(pieces, dim=1).transpose(0, 1).reshape(batch, tokens, heads, width)


def _varlen(
    query_BHTD: torch.Tensor, key_BHTD: torch.Tensor, value_BHTD: torch.Tensor, ends: torch.Tensor
) -> torch.Tensor:
    """Causal attention within pieces with the flash kernel, output [B, T, H, D], scaled by 1 / sqrt(D)."""
    from torch.nn.attention.varlen import varlen_attn

    batch, heads, tokens, width = query_BHTD.shape
    query, key, value = (
        x.transpose(1, 2).reshape(batch * tokens, -1, width) for x in (query_BHTD, key_BHTD, value_BHTD)
    )
    grouped: dict[str, Any] = {"enable_gqa": True} if heads != key_BHTD.shape[1] else {}
    # No piece is longer than a row. An upper limit instead of the length itself: a varying number would
    # recompile.
    out = varlen_attn(query, key, value, ends, ends, tokens, tokens, window_size=(-1, 0), **grouped)
    return cast(torch.Tensor, out).view(batch, tokens, heads, width)


def piece_ends(documents_BT: torch.Tensor) -> torch.Tensor:
    """The ends of pieces in the concatenated rows, from 0: int32 [P + 1]. Waits for the GPU."""
    new_BT = torch.ones_like(documents_BT, dtype=torch.bool)
    new_BT[:, 1:] = documents_BT[:, 1:] != documents_BT[:, :-1]
    starts = new_BT.flatten().nonzero().flatten()
    return torch.cat([starts, starts.new_tensor([documents_BT.numel()])]).to(torch.int32)


def piece_mask(documents_BT: torch.Tensor) -> torch.Tensor:
    """True where a position may attend: to earlier ones in its own piece. Boolean [B, 1, T, T]."""
    same = documents_BT[:, :, None] == documents_BT[:, None, :]
    return same.tril()[:, None]


def has_pieces(documents_BT: torch.Tensor) -> bool:
    """True if some row holds several pieces. Plain causal attention would then mix documents."""
    return bool((documents_BT > 0).any())


AttentionInterface.register(NAME, attend)
