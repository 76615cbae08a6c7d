"""Pretraining by next-token prediction, optionally conditional on quality (Korbak et al. 2023).

With `control_score`, the BOS that a document begins with is handed to the model as `<|good|>` or `<|bad|>`
according to that score column; a share of documents keeps BOS, so that the model also works without a control
token. It costs nothing: no position is added and BOS is never a target.

This file is imported when a recipe is read, so torch comes in only where the loss is computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ctllm_ray.base.errors import RecipeError
from ctllm_ray.train.objective import Per

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Pretraining:
    """The loss, and the control token of each document."""

    control_score: str = ""  # a column of tokens.scores; empty: no control tokens
    control_max: float = 0.0  # documents with at most this score are good
    control_drop_share: float = 0.0  # of documents that keep BOS
    fused: bool = False  # use Liger's kernel, on a GPU
    per: Per = "target"
    needs_reference: bool = False
    teaches_chat: bool = False
    sums: tuple[str, ...] = ()

    def loss(self, model: Any, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The total negative log-likelihood of the targets in nats, fp32 [1]."""
        from ctllm_ray.model.llama import forward_hidden
        from ctllm_ray.train.losses import head_loss

        hidden_BTD = forward_hidden(model, tensors)
        nats = head_loss.fused_nats if self.fused else head_loss.nats
        return nats(hidden_BTD, model.lm_head.weight, tensors["labels"]).reshape(1)


def pretrain(
    *, control_score: str = "", control_max: float = 0.0, control_drop_share: float = 0.0
) -> Pretraining:
    """Next-token prediction on packed documents. Raises `RecipeError` for control options without a score."""
    if not 0 <= control_drop_share <= 1:
        raise RecipeError(
            f"control_drop_share is {control_drop_share:g}; it must be between 0 and 1",
            remedy="set a share between 0 and 1",
        )
    if not control_score and (control_max or control_drop_share):
        remedy = "set control_score to a column of tokens.scores, or remove the other two"
        raise RecipeError("control_max and control_drop_share need a control_score", remedy=remedy)
    return Pretraining(control_score, control_max, control_drop_share)
