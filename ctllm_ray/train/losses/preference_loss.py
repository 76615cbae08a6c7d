"""The math of preference learning on packed rows: log-probability of each piece, loss of each pair.

A pair is two neighbouring pieces of one row, the chosen answer and then the rejected one, each behind the
prompt: piece 2k and piece 2k + 1. The log-probability of a piece is the sum over its targets, which are its
answer's tokens.

The loss is that of DPO (Rafailov et al. 2023) with the label smoothing of conservative DPO (Mitchell 2023): a
share of the pairs is taken to be labelled the wrong way round.

Shapes: B rows, T positions, K targets of all rows, P pieces
of the row that has most of them, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F

from ctllm_ray.model.llama import forward_hidden
from ctllm_ray.train.data.batch import IGNORED
from ctllm_ray.train.losses.head_loss import log_probabilities


def of_pieces(
    model: Any, tensors: Mapping[str, torch.Tensor], pieces: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of each piece's targets in nats, and
    their number, both fp32 [B, P]; 0 for missing pieces."""
    hidden_BTD, labels_BT = forward_hidden(model, tensors), tensors["labels"]
    is_target_BT = labels_BT != IGNORED
    rows_K, columns_K = is_target_BT.nonzero(as_tuple=True)
    logs_K = log_probabilities(
        hidden_BTD[rows_K, columns_K], model.lm_head.weight, labels_BT[rows_K, columns_K]
    )
    logs_BT = torch.zeros(labels_BT.shape, device=logs_K.device).index_put((rows_K, columns_K), logs_K)
    numbers_P = torch.arange(pieces, device=labels_BT.device, dtype=tensors["documents"].dtype)
    inside_BPT = (tensors["documents"].unsqueeze(1) == numbers_P[:, None]).float()
    # a matrix product, whose summation order is fixed
    with torch.autocast(logs_K.device.type, enabled=False):
        return tuple((inside_BPT @ torch.stack([logs_BT, is_target_BT.float()], 2)).unbind(2))  # type: ignore[return-value]


def losses(margins: torch.Tensor, beta: float, label_smoothing: float) -> torch.Tensor:
    """The loss of each pair in nats: -log of the probability that its label is right, under Bradley-Terry.

    A margin is how much more than the reference the model prefers the chosen answer, in nats.
    """
    scaled = beta * margins
    return -(1 - label_smoothing) * F.logsigmoid(scaled) - label_smoothing * F.logsigmoid(-scaled)
