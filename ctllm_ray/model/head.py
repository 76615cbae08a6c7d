"""From hidden states to the loss: cross-entropy in nats, in one go or in chunks that never hold all logits.

Shapes: B sequences, T positions, D width, N = B x T, V vocabulary, C positions of a chunk.

At CT-LLM's vocabulary the logits of one sequence of 4096 are 2.06 GB in fp32 and their gradient as much again, more
than all activations of the blocks with checkpointing. `chunked_nats` takes C positions at a time and makes the
gradients of hidden states and matrix at once, while the logits of the chunk are there (the idea of Liger's fused
kernel, Hsu et al. 2024; this is plain PyTorch): nothing is computed twice, and V x C logits are all that is held.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM

#: The label of a position that is not trained.
IGNORED = -100

#: 256 MiB of fp32 logits at a vocabulary of 125,696 are 534 positions; matrices this tall still fill a GPU.
CHUNK_TOKENS = 1024


def nats(model: LlamaForCausalLM, hidden_BTD: torch.Tensor, labels_BT: torch.Tensor) -> torch.Tensor:
    """Sum of the cross-entropy over all targets in nats, an fp32 scalar."""
    logits_NV = model.lm_head(hidden_BTD.flatten(0, 1))
    return cross_entropy(logits_NV.float(), labels_BT.flatten(), ignore_index=IGNORED, reduction="sum")


def chunked_nats(
    model: LlamaForCausalLM, hidden_BTD: torch.Tensor, labels_BT: torch.Tensor, *, chunk_tokens: int = CHUNK_TOKENS
) -> torch.Tensor:
    """The same sum and gradients as `nats`, holding the logits of `chunk_tokens` positions at a time.

    It reads the matrix itself and not the module, so it is not for partitioned parameters (ZeRO 3).
    """
    total: torch.Tensor = _ChunkedNats.apply(
        hidden_BTD.flatten(0, 1), model.lm_head.weight, labels_BT.flatten(), chunk_tokens
    )
    return total


def token_nats(
    model: LlamaForCausalLM, hidden_BTD: torch.Tensor, labels_BT: torch.Tensor, *, chunk_tokens: int = CHUNK_TOKENS
) -> torch.Tensor:
    """Cross-entropy of each target in nats, fp32 [B, T], 0 where there is none. For scoring: it keeps no gradients."""
    with torch.no_grad():
        chunks = zip(hidden_BTD.flatten(0, 1).split(chunk_tokens), labels_BT.flatten().split(chunk_tokens), strict=True)
        parts = [
            cross_entropy(model.lm_head(h).float(), labels, ignore_index=IGNORED, reduction="none")
            for h, labels in chunks
        ]
    return torch.cat(parts).view(labels_BT.shape)


class _ChunkedNats(torch.autograd.Function):
    """The sum of cross-entropies and, as it goes, its gradients: they wait for `backward`, which scales them."""

    @staticmethod
    def forward(
        ctx: Any, hidden_ND: torch.Tensor, weight_VD: torch.Tensor, labels_N: torch.Tensor, chunk_tokens: int
    ) -> torch.Tensor:
        matrix_VD = weight_VD.to(hidden_ND.dtype)  # under autocast: fp32 weights, bf16 hidden states
        # One matrix of sums for all chunks, in fp32: bf16 would lose what small chunks add.
        grad_VD = torch.zeros_like(weight_VD, dtype=torch.float32) if weight_VD.requires_grad else None
        grad_ND = torch.empty_like(hidden_ND)
        total = hidden_ND.new_zeros((), dtype=torch.float32)
        for start in range(0, hidden_ND.shape[0], chunk_tokens):
            part = slice(start, start + chunk_tokens)
            nats_of_chunk, grad_CV = _chunk(hidden_ND[part] @ matrix_VD.T, labels_N[part])
            total += nats_of_chunk
            torch.mm(grad_CV, matrix_VD, out=grad_ND[part])
            if grad_VD is not None:
                grad_VD += grad_CV.T @ hidden_ND[part]
        ctx.save_for_backward(grad_ND, *([] if grad_VD is None else [grad_VD.to(weight_VD.dtype)]))
        return total

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grad_ND, *of_weight = ctx.saved_tensors
        scale = grads[0]
        return grad_ND * scale, (of_weight[0] * scale if of_weight else None), None, None


def _chunk(logits_CV: torch.Tensor, labels_C: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum of cross-entropies of a chunk, and the gradient of the logits in their own number type."""
    targets = labels_C != IGNORED
    safe_C = labels_C.where(targets, 0)
    logs_CV = torch.log_softmax(logits_CV.float(), dim=-1)
    total = -(logs_CV.gather(1, safe_C[:, None])[:, 0] * targets).sum()
    grad_CV = logs_CV.exp_()
    grad_CV[torch.arange(len(safe_C), device=safe_C.device), safe_C] -= 1
    return total, (grad_CV * targets[:, None]).to(logits_CV.dtype)
