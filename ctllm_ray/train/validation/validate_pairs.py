"""Validates preferences on held-out pairs: how often the model prefers the chosen answer.

Two accuracies, for they answer different questions. `preferred_share`: the model gives the chosen answer the
higher probability; the reference has that too (`reference_preferred_share`), and the difference is what was
learnt. Since probabilities of whole answers fall with length, both know that short answers are likely.
`accuracy`: the model prefers the chosen answer more than its reference does (the margin is above zero); it is
what the loss raises, and an untrained model has it nowhere.
"""

from __future__ import annotations

import numpy as np

from ctllm_ray.base.recipe import Recipe
from ctllm_ray.model import llama
from ctllm_ray.train.data import corpora, reference_log_probs


def preferences(recipe: Recipe, model: llama.LlamaForCausalLM) -> dict[str, dict[str, float]]:
    """By group with held-out pairs: their number, accuracy, margin in nats, and both preferred shares."""
    _, train = recipe.training()
    groups = {group for phase in train.mixture for group in phase.shares}
    own = corpora.read_sections(recipe.token_folders())
    validated = corpora.validation_sections(recipe, own)
    references = reference_log_probs.open_references(recipe)
    scores: dict[str, list[np.ndarray]] = {}
    for folder, shard in corpora.held_out_shards(validated):
        if shard.group not in groups:  # the reference has not scored them either
            continue
        both = np.stack([reference_log_probs.score(model, folder, shard, recipe), references(shard)])
        scores.setdefault(shard.group, []).append(both)
    return {group: score_pairs(*np.concatenate(each, 1)) for group, each in sorted(scores.items())}


def score_pairs(logs: np.ndarray, references: np.ndarray) -> dict[str, float]:
    """Compares log-probabilities of chosen, rejected, chosen, ... answers of the model and its reference."""
    chosen, rejected = logs[0::2], logs[1::2]
    reference_chosen, reference_rejected = references[0::2], references[1::2]
    margins = chosen - reference_chosen - (rejected - reference_rejected)
    return {
        "pairs": float(len(chosen)),
        "accuracy": float((margins > 0).mean()),
        "margin": float(margins.mean()),
        "preferred_share": float((chosen > rejected).mean()),
        "reference_preferred_share": float((reference_chosen > reference_rejected).mean()),
    }
