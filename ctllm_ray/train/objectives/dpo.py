"""DPO: trains the model to prefer chosen answers more than its initial model does (Rafailov et al. 2023).

The log-probabilities of that model, the reference, are computed once and read from a cache
(train/data/reference_log_probs.py): no second model is in memory, and no step waits for one. The loss is a
sum over pairs, divided by the pairs of the global batch. `beta` is the penalty for moving away from the
reference. `label_smoothing` is the share of pairs assumed to have swapped labels.

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

SUMS = (
    "margin",  # beta x how much more than the reference the model prefers the chosen answer, nats
    "accuracy",  # share of pairs with a margin above zero
    "chosen_logprob", "rejected_logprob",  # of a whole answer, nats
    "chosen_gain", "rejected_gain",  # difference to the reference's log-probability
    "chosen_tokens", "rejected_tokens",  # length of an answer
)  # fmt: skip


@dataclass(frozen=True)
class PreferenceOptimisation:
    """The loss of pairs."""

    beta: float
    label_smoothing: float = 0.0
    per: Per = "pair"
    needs_reference: bool = True
    teaches_chat: bool = True
    sums: tuple[str, ...] = SUMS

    def loss(self, model: Any, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Sums over the pairs, fp32 [1 + len(SUMS)]. `references` [B, P] are per
        piece, NaN if there is none."""
        import torch

        from ctllm_ray.train.losses import preference_loss

        references_BP = tensors["references"]
        logs_BP, tokens_BP = preference_loss.of_pieces(model, tensors, references_BP.shape[1])
        is_pair = references_BP[:, 0::2].isfinite()  # [B, P / 2], like the following
        gains_BP = logs_BP - references_BP.nan_to_num()
        margins = gains_BP[:, 0::2] - gains_BP[:, 1::2]
        metrics = torch.stack(
            [
                preference_loss.losses(margins, self.beta, self.label_smoothing),
                self.beta * margins,
                (margins > 0).float(),
                *(part_BP[:, side::2] for part_BP in (logs_BP, gains_BP, tokens_BP) for side in (0, 1)),
            ]
        )
        return torch.where(is_pair, metrics, 0).sum((1, 2))


def dpo(*, beta: float = 0.1, label_smoothing: float = 0.0) -> PreferenceOptimisation:
    """Direct preference optimization on pairs. Raises `RecipeError` for invalid options."""
    if not beta > 0:
        raise RecipeError(
            f"beta is {beta:g}; it must be above 0", where="train.objective", remedy="0.1 is common"
        )
    if not 0 <= label_smoothing < 0.5:
        remedy = "set the share of pairs with swapped labels, below 0.5"
        raise RecipeError(
            f"label_smoothing is {label_smoothing:g}; it must be at least 0 and below 0.5",
            where="train.objective",
            remedy=remedy,
        )
    return PreferenceOptimisation(beta, label_smoothing)
