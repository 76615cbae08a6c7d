"""The loss of the output layer, computed in chunks so that the logits are never in memory as a whole.

What it costs: at 125,696 pieces the logits of 32,768 positions are 16 GB in fp32, and their gradient as much
again: more than all else in a step. Here the positions pass in chunks; each chunk's logits turn into the
gradients of the hidden states and of the output matrix at once and are dropped, so nothing is computed twice
(recomputing them in the backward pass, as torch.utils.checkpoint would, adds a fourth matrix product to three
and took 1.5 times as long on a CPU). Softmax and sums are fp32 whatever the matrix products are. Chunks share
their memory: on a CPU the first touch of fresh pages would cost a sixth of the time. The idea is that of
Liger Kernel's fused linear cross-entropy (Hsu et al. 2024), which `fused_nats` uses on NVIDIA cards; this one
is plain PyTorch and runs anywhere.

Shapes: N positions (B sequences times T), D width, V pieces.
"""

from __future__ import annotations

from typing import Any, cast

import torch

from ctllm_ray.base.errors import RecipeError
from ctllm_ray.train.data.batch import IGNORED

#: Size of a chunk's logits: 32 MB in fp32 on a CPU (more is no faster, less is slower), 1 GB on a GPU for
#: large matrix products.
CHUNK_LOGITS = {"cpu": 1 << 23, "cuda": 1 << 28}
LEAST_CHUNK = 128  # positions: smaller matrix products are slow (32: 1.5 times as long)


def nats(hidden_BTD: torch.Tensor, weight_VD: torch.Tensor, labels_BT: torch.Tensor) -> torch.Tensor:
    """The total negative log-likelihood of all targets in nats, an fp32 scalar.
    Labels IGNORED do not count."""
    hidden_ND, labels_N = hidden_BTD.flatten(0, -2), labels_BT.flatten()
    device = hidden_ND.device.type
    precision = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_ND.dtype
    chunk = max(LEAST_CHUNK, CHUNK_LOGITS.get(device, 1 << 23) // weight_VD.shape[0])
    with torch.autocast(device, enabled=False):
        if torch.is_grad_enabled():
            return _ChunkedNats.apply(hidden_ND, weight_VD, labels_N, chunk, precision)
        total = torch.zeros((), dtype=torch.float32, device=hidden_ND.device)
        surprise = _Surprise(weight_VD.to(precision), min(chunk, hidden_ND.shape[0]))
        for rows in _chunks(hidden_ND.shape[0], chunk):
            total += surprise.of(hidden_ND[rows].to(precision), labels_N[rows])[0]
        return total


def log_probabilities(
    hidden_KD: torch.Tensor, weight_VD: torch.Tensor, labels_K: torch.Tensor
) -> torch.Tensor:
    """Log-probabilities of K targets in nats, fp32 [K]; every label counts. For losses that
    weight documents afterwards.

    The weight of a target is known only after all targets of its document are summed. So gradients
    cannot be computed in the forward pass, as in `nats`. The backward pass computes each chunk's logits
    again, one matrix product in four. Remove positions without a target first: half of a preference
    pair is its prompt, twice.
    """
    device = hidden_KD.device.type
    precision = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_KD.dtype
    chunk = max(LEAST_CHUNK, CHUNK_LOGITS.get(device, 1 << 23) // weight_VD.shape[0])
    with torch.autocast(device, enabled=False):
        return cast(torch.Tensor, _ChunkedLogs.apply(hidden_KD, weight_VD, labels_K, chunk, precision))


def fused_nats(hidden_BTD: torch.Tensor, weight_VD: torch.Tensor, labels_BT: torch.Tensor) -> torch.Tensor:
    """The same with Liger's kernel: a few GPU launches per chunk."""
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    device = hidden_BTD.device.type
    precision = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_BTD.dtype
    loss = LigerFusedLinearCrossEntropyLoss(ignore_index=IGNORED, reduction="sum", accum_dtype=torch.float32)
    return loss(weight_VD.to(precision), hidden_BTD.flatten(0, -2).to(precision), labels_BT.flatten()).float()


def check_fused(gpu: bool) -> None:
    """Raises `RecipeError` if Liger's kernel cannot run."""
    where = "resources.train.fused_loss"
    if not gpu:
        raise RecipeError("the fused loss needs an NVIDIA GPU", where=where, remedy="set it to false")
    try:
        import liger_kernel  # noqa: F401
    except ImportError:
        remedy = (
            "pip install 'ctllm-ray[gpu]', or set it to false: the loss is then computed in chunks by PyTorch"
        )
        raise RecipeError("liger-kernel is not installed", where=where, remedy=remedy) from None


def _chunks(positions: int, size: int) -> list[slice]:
    return [slice(first, first + size) for first in range(0, positions, size)]


class _Surprise:
    """Computes one chunk after another in shared memory. `logs_NV` of the last one
    are log-probabilities, fp32."""

    def __init__(self, weight_VD: torch.Tensor, chunk: int) -> None:
        self._weight_VD = weight_VD
        self._logits = weight_VD.new_empty(chunk, weight_VD.shape[0])
        self._logs = self._logits.new_empty(self._logits.shape, dtype=torch.float32)

    def of(self, hidden_ND: torch.Tensor, labels_N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The sum over the targets in nats, and the log-probabilities [N, V], both fp32."""
        rows = slice(len(labels_N))
        logits_NV = torch.mm(hidden_ND, self._weight_VD.t(), out=self._logits[rows])
        logs_NV = torch.log_softmax(logits_NV, 1, dtype=torch.float32, out=self._logs[rows])
        of_label_N = logs_NV.gather(1, labels_N.clamp_min(0).unsqueeze(1)).squeeze(1)
        return -of_label_N.masked_fill(labels_N == IGNORED, 0).sum(), logs_NV


class _ChunkedNats(torch.autograd.Function):
    """Computes gradients in the forward pass; the backward pass only scales them."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: torch.Tensor,
        weight_VD: torch.Tensor,
        labels_N: torch.Tensor,
        chunk: int,
        precision: torch.dtype,
    ) -> torch.Tensor:
        weight = weight_VD.to(precision)
        by_hidden_ND = torch.empty_like(hidden_ND)
        by_weight_VD = torch.zeros_like(weight_VD, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        total = torch.zeros((), dtype=torch.float32, device=hidden_ND.device)
        surprise = _Surprise(weight, min(chunk, hidden_ND.shape[0]))
        for rows in _chunks(hidden_ND.shape[0], chunk):
            hidden, labels = hidden_ND[rows].to(precision), labels_N[rows]
            nats_of_chunk, logs_NV = surprise.of(hidden, labels)
            total += nats_of_chunk
            by_logits = logs_NV.exp_()  # softmax minus one at the label
            index = labels.clamp_min(0).unsqueeze(1)
            by_logits.scatter_add_(1, index, torch.full_like(index, -1, dtype=torch.float32))
            by_logits = by_logits.to(precision)
            ignored = (labels == IGNORED).unsqueeze(1)  # zero the narrow tensors, not the logits
            by_hidden_ND[rows] = (by_logits @ weight).masked_fill_(ignored, 0)
            hidden = hidden.masked_fill(ignored, 0)
            if by_weight_VD is not None and precision == torch.float32:
                by_weight_VD.addmm_(by_logits.t(), hidden)
            elif by_weight_VD is not None:
                by_weight_VD += by_logits.t() @ hidden
        ctx.save_for_backward(by_hidden_ND, by_weight_VD)
        return total

    @staticmethod
    def backward(ctx: Any, *by_total: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        by_hidden_ND, by_weight_VD = ctx.saved_tensors
        scale = by_total[0]
        return (
            by_hidden_ND.mul_(scale),
            None if by_weight_VD is None else by_weight_VD.mul_(scale),
            None,
            None,
            None,
        )


class _ChunkedLogs(torch.autograd.Function):
    """Keeps each position's log normalizer, one number, so that the backward pass need not recompute it."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_KD: torch.Tensor,
        weight_VD: torch.Tensor,
        labels_K: torch.Tensor,
        chunk: int,
        precision: torch.dtype,
    ) -> torch.Tensor:
        weight = weight_VD.to(precision)
        normalisers_K = torch.empty(len(labels_K), dtype=torch.float32, device=hidden_KD.device)
        of_label_K = torch.empty_like(normalisers_K)
        for rows in _chunks(len(labels_K), chunk):
            logits_NV = (hidden_KD[rows].to(precision) @ weight.t()).float()
            normalisers_K[rows] = logits_NV.logsumexp(1)
            of_label_K[rows] = logits_NV.gather(1, labels_K[rows].unsqueeze(1)).squeeze(1)
        ctx.save_for_backward(hidden_KD, weight_VD, labels_K, normalisers_K)
        ctx.chunk, ctx.precision = chunk, precision
        return of_label_K - normalisers_K

    @staticmethod
    def backward(ctx: Any, *by_logs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden_KD, weight_VD, labels_K, normalisers_K = ctx.saved_tensors
        by_logs_K, precision = by_logs[0], ctx.precision
        weight, by_hidden_KD = weight_VD.to(precision), torch.empty_like(hidden_KD)
        by_weight_VD = torch.zeros_like(weight_VD, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        for rows in _chunks(len(labels_K), ctx.chunk):
            hidden = hidden_KD[rows].to(precision)
            logits_NV = (hidden @ weight.t()).float()
            by_logits = logits_NV.sub_(normalisers_K[rows, None]).exp_().mul_(-by_logs_K[rows, None])
            by_logits.scatter_add_(1, labels_K[rows].unsqueeze(1), by_logs_K[rows, None])
            by_logits = by_logits.to(precision)
            by_hidden_KD[rows] = (by_logits @ weight).to(by_hidden_KD.dtype)
            if by_weight_VD is not None and precision == torch.float32:
                by_weight_VD.addmm_(by_logits.t(), hidden)
            elif by_weight_VD is not None:
                by_weight_VD += by_logits.t() @ hidden
        return (
            by_hidden_KD,
            None if by_weight_VD is None else by_weight_VD.to(weight_VD.dtype),
            None,
            None,
            None,
        )
