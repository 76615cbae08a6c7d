"""Attention of one step over the slots of the KV cache. Each token attends to its own sequence, up to itself.

Shapes: N tokens of a step, S slots, C positions of a slot, H heads, K heads of keys and values, G = H / K, D
head width; in a call of SDPA: B sequences, T tokens of each.

Two ways to the same result. Both read the cache where it lies:

* `Sdpa`, on a CPU or in fp32: sequences with one token in neighbouring slots are one call with a mask, a
  piece of a prompt is a call by itself. Heads that share keys are rows of one query, so keys are never
  repeated.
* `Flash`, on a GPU in bf16: the whole step is one call of the variable-length flash kernel, a slot is its
  page.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

#: The paged flash kernel needs pages of a multiple of this size.
PAGE_TOKENS = 256


@dataclass(frozen=True)
class SequencePiece:
    """Tokens of one sequence to compute in a step: `ids` begin at position `start`;
    the last `rows` give logits."""

    slot: int
    start: int
    ids: Sequence[int]
    rows: int

    @property
    def end(self) -> int:
        """The position after the last token."""
        return self.start + len(self.ids)


@dataclass(frozen=True)
class AttentionRun:
    """Tokens [first, last) of a step for one attention call, and the slots and positions they attend to."""

    first: int
    last: int
    slots: slice
    positions: int
    mask: torch.Tensor | None  # added to scores; None: all positions are visible, or `causal`
    causal: bool  # a piece that starts at position 0 needs no mask


class Sdpa:
    """Attention by PyTorch's scaled dot product, one call per run."""

    def __init__(self, group: int, device: torch.device, dtype: torch.dtype) -> None:
        self._group, self._device, self._dtype = group, device, dtype

    def capacity(self, context_tokens: int) -> int:
        """The number of positions in a slot."""
        return context_tokens

    def plan(self, pieces: Sequence[SequencePiece]) -> list[AttentionRun]:
        """Prepares what all layers of a step share."""
        runs: list[AttentionRun] = []
        for together in _neighbours(pieces):
            first = runs[-1].last if runs else 0
            last = first + sum(len(piece.ids) for piece in together)
            slots = slice(together[0].slot, together[-1].slot + 1)
            positions = max(piece.end for piece in together)
            causal = together[0].start == 0 and len(together[0].ids) > 1 and self._group == 1
            mask = None if causal else self._mask(together, positions)
            runs.append(AttentionRun(first, last, slots, positions, mask, causal))
        return runs

    def attend(
        self, query_NHD: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, runs: Sequence[AttentionRun]
    ) -> torch.Tensor:
        """The attention output [N, H x D]; keys and values are [S, K, C, D]."""
        attended = [_attend_run(query_NHD[run.first : run.last], keys, values, run) for run in runs]
        return attended[0] if len(attended) == 1 else torch.cat(attended)

    def _mask(self, together: Sequence[SequencePiece], positions: int) -> torch.Tensor | None:
        """The mask added to scores, [B, 1, T x G, positions]: minus infinity after a token's own position."""
        own_BT = np.array([np.arange(piece.start, piece.end) for piece in together])
        hidden = np.arange(positions) > own_BT.repeat(self._group, axis=1)[:, None, :, None]
        if not hidden.any():
            return None
        added = np.where(hidden, np.float32(-np.inf), np.float32(0))
        return torch.from_numpy(added).to(self._device, self._dtype)


def _neighbours(pieces: Sequence[SequencePiece]) -> Iterator[list[SequencePiece]]:
    """Groups pieces of one token in neighbouring slots; every other piece stands alone."""
    together: list[SequencePiece] = []
    for piece in pieces:
        if together and not (
            len(piece.ids) == len(together[-1].ids) == 1 and piece.slot == together[-1].slot + 1
        ):
            yield together
            together = []
        together.append(piece)
    yield together


def _attend_run(
    query_NHD: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, run: AttentionRun
) -> torch.Tensor:
    """The attention output [N, H x D] of one run."""
    sequences, kv_heads = run.slots.stop - run.slots.start, keys.shape[1]
    key, value = (x[run.slots, :, : run.positions] for x in (keys, values))
    # [N, H, D] to [B, K, T x G, D]: the tokens of each sequence, and for each the heads of a group
    query = (
        query_NHD.unflatten(0, (sequences, -1))
        .unflatten(2, (kv_heads, -1))
        .permute(0, 2, 1, 3, 4)
        .flatten(2, 3)
    )
    out = scaled_dot_product_attention(query, key, value, attn_mask=run.mask, is_causal=run.causal)
    return (
        out.unflatten(2, (len(query_NHD) // sequences, -1)).permute(0, 2, 1, 3, 4).reshape(len(query_NHD), -1)
    )


class Flash:
    """Attention by PyTorch's variable-length flash kernel over pages."""

    def __init__(self, group: int, device: torch.device, context_tokens: int) -> None:
        self._group, self._device = group, device
        self._capacity = self.capacity(context_tokens)

    def capacity(self, context_tokens: int) -> int:
        """The number of positions in a slot: whole pages."""
        return -(-context_tokens // PAGE_TOKENS) * PAGE_TOKENS

    def plan(self, pieces: Sequence[SequencePiece]) -> dict[str, Any]:
        """Arguments of the kernel: where pieces begin, how far each attends, and which page is its slot."""
        begins = np.cumsum([0, *(len(piece.ids) for piece in pieces)])
        whole = np.concatenate([begins, [piece.end for piece in pieces], [piece.slot for piece in pieces]])
        numbers = torch.from_numpy(whole.astype(np.int32)).to(self._device, non_blocking=True)
        begins_P, ends_P, slots_P = numbers.split([len(begins), len(pieces), len(pieces)])
        return {
            "cu_seq_q": begins_P,
            "cu_seq_k": None,
            "max_q": max(len(piece.ids) for piece in pieces),
            "max_k": self._capacity,
            "seqused_k": ends_P,
            "block_table": slots_P.unsqueeze(1),
            "window_size": (-1, 0),
            "enable_gqa": self._group > 1,
        }

    def attend(
        self, query_NHD: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, plan: dict[str, Any]
    ) -> torch.Tensor:
        """The attention output [N, H x D]; keys and values are [S, K, C, D]."""
        from torch.nn.attention.varlen import varlen_attn

        return cast(
            torch.Tensor, varlen_attn(query_NHD, keys.transpose(1, 2), values.transpose(1, 2), **plan)
        ).flatten(1)
