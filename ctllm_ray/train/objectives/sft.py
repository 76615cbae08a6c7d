"""Supervised fine-tuning: next-token prediction on what an assistant says, including the end of its turn.

The batch already marks the answers (train/data/packed_shards.py), so this is the pretraining loss over fewer
labels. The sum is divided by the answer targets of the global batch, so an answer counts by its length,
independent of packing. (The mean of conversations' means would be another objective, with more weight on
short answers.)

On a CPU the output layer is computed for answers alone, which saves as much of it as the prompts are long; on
a GPU picking positions would make the host wait, and all are computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ctllm_ray.train.objective import Per

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class FineTuning:
    """The loss."""

    fused: bool = False  # use Liger's kernel, on a GPU
    per: Per = "answer"
    needs_reference: bool = False
    teaches_chat: bool = True
    sums: tuple[str, ...] = ()

    def loss(self, model: Any, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The total negative log-likelihood of the answers' tokens in nats, fp32 [1]."""
        from ctllm_ray.model.llama import forward_hidden
        from ctllm_ray.train.data.batch import IGNORED
        from ctllm_ray.train.losses import head_loss

        hidden_BTD, labels_BT = forward_hidden(model, tensors), tensors["labels"]
        if self.fused:
            return head_loss.fused_nats(hidden_BTD, model.lm_head.weight, labels_BT).reshape(1)
        if not labels_BT.is_cuda:
            answered_BT = labels_BT != IGNORED
            hidden_BTD, labels_BT = hidden_BTD[answered_BT], labels_BT[answered_BT]
        return head_loss.nats(hidden_BTD, model.lm_head.weight, labels_BT).reshape(1)


def sft() -> FineTuning:
    """Next-token prediction on answers in packed conversations. A plain text in the
    mixture counts as one answer."""
    return FineTuning()
