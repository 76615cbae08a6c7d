"""What preference learning computes on packed rows: the log-probability of each piece, and the loss of each pair.

A pair is two neighbouring pieces of one row, the chosen answer and then the rejected one, each behind the prompt: piece
2k and piece 2k + 1. The log-probability of a piece is the sum over its targets, which are its answer's tokens.

The loss is that of DPO (Rafailov et al. 2023) with the label smoothing of conservative DPO (Mitchell 2023): a share of
the pairs is taken to be labelled the wrong way round.

Shapes: B rows, T positions, K targets of all rows, P pieces of the row that has most of them, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F

from ctllm_ray.model.llama import forward_hidden
from ctllm_ray.train.batch import IGNORED
from ctllm_ray.train.head_loss import log_probabilities


def of_pieces(model: Any, tensors: Mapping[str, torch.Tensor], pieces: int) -> torch.Tensor:
    """Log-probability of every piece's targets in nats, fp32 [B, P]; 0 where a row has fewer pieces."""
    hidden_BTD, labels_BT = forward_hidden(model, tensors), tensors["labels"]
    rows_K, columns_K = (labels_BT != IGNORED).nonzero(as_tuple=True)
    logs_K = log_probabilities(hidden_BTD[rows_K, columns_K], model.lm_head.weight, labels_BT[rows_K, columns_K])
    logs_BT = torch.zeros(labels_BT.shape, device=logs_K.device).index_put((rows_K, columns_K), logs_K)
    return summed(logs_BT, tensors["documents"], pieces)


def summed(values_BT: torch.Tensor, documents_BT: torch.Tensor, pieces: int) -> torch.Tensor:
    """The sum of the values of each piece [B, P]: a matrix product, whose order of addition never varies."""
    numbers_P = torch.arange(pieces, device=documents_BT.device, dtype=documents_BT.dtype)
    inside_BPT = (documents_BT.unsqueeze(1) == numbers_P[:, None]).to(values_BT.dtype)
    with torch.autocast(values_BT.device.type, enabled=False):
        return (inside_BPT @ values_BT.unsqueeze(2)).squeeze(2)


def margins(logs_BP: torch.Tensor, references_BP: torch.Tensor) -> torch.Tensor:
    """How much more than the reference the model prefers the chosen answer, nats [B, P / 2]; NaN where is no pair."""
    gains_BP = logs_BP - references_BP
    return gains_BP[:, 0::2] - gains_BP[:, 1::2]


def losses(margins_N: torch.Tensor, beta: float, label_smoothing: float) -> torch.Tensor:
    """The loss of each pair in nats: -log of the probability that its label is right, under Bradley and Terry."""
    scaled_N = beta * margins_N
    return -(1 - label_smoothing) * F.logsigmoid(scaled_N) - label_smoothing * F.logsigmoid(-scaled_N)
