"""LoRA: a frozen model, and beside some of its matrices two small ones that are trained (Hu et al. 2021),
through peft.

peft makes the layers; the model stays the Llama that everything else knows. Steppers train what asks for
gradients, so a checkpoint holds the adapters and their moments only: 12 bytes for each of their parameters
and none for the model's, which is a folder that the run names and whose hash it remembers. A run that comes
back finds that model, or stops. An export is the merged model, W + alpha / rank x up @ down, and serving need
not know that there ever were adapters.

Initial adapters are a function of (seed, name), as all weights are (model/llama.py): `down` is uniform as in
peft, `up` zero, so that an adapted model begins as the model it adapts. Dropout draws from the seed of each
batch, in each worker alike: a resumed run equals one that never stopped, but with dropout the number of
workers changes the drawing.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from ctllm_ray.base.errors import VersionConflict
from ctllm_ray.base.exports import is_base, read_lineage
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.base.recipe_training import Lora
from ctllm_ray.model import llama
from ctllm_ray.model.config import for_recipe
from ctllm_ray.train import initial_model, objective
from ctllm_ray.train.checkpoint.checkpoint import Checkpoint
from ctllm_ray.train.data.corpora import Vocabulary

_ADAPTER = "default"  # peft's name for the only one
MODEL = "model"  # of the run's lineage: the hash of the model that it began with


def adapt(model: torch.nn.Module, lora: Lora, seed: int) -> None:
    """Freezes the model and puts new adapters beside the matrices that the recipe names."""
    from peft import LoraConfig, inject_adapter_in_model  # takes seconds to import

    alpha: Any = lora.alpha  # annotated as an int there, and divided by the rank
    given = LoraConfig(
        r=lora.rank, lora_alpha=alpha, lora_dropout=lora.dropout, target_modules=list(lora.targets)
    )
    inject_adapter_in_model(given, model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(_initial(name, parameter.shape, seed))


#: What happens where `leaves_specials_untaught`, and what to do.
UNTAUGHT = {
    "why": "the base never saw the marks of turns, and LoRA trains no rows of the vocabulary: hardly an answer ends",
    "remedy": "train without train.lora, or begin with a model that was taught turns without it",
}


def leaves_specials_untaught(recipe: Recipe) -> bool:
    """True where a run teaches turns by adapters to an export of ours that only pretraining made.

    The rows of `<|user|>`, `<|assistant|>` and `<|end|>` are then as they were drawn, and stay so.
    """
    model, train = recipe.training()
    if train.lora is None or not model.path or not objective.of(train).teaches_chat:
        return False
    return is_base(read_lineage(model.path))


def _initial(name: str, shape: torch.Size, seed: int) -> torch.Tensor:
    """What an adapter begins with: `up` zero, `down` uniform within one over the root of its inputs."""
    if ".lora_B." in name:
        return torch.zeros(shape)
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
    bound = 1 / math.sqrt(shape[1])
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)


def merge_adapters(
    model: llama.LlamaForCausalLM, lora: Lora, adapter: Callable[[str], torch.Tensor]
) -> Callable[[str], torch.Tensor]:
    """The fp32 weights of an adapted model by their names without adapters; `adapter` gives those of the
    adapters."""
    held = {name: parameter.detach() for name, parameter in model.named_parameters()}

    def weights(name: str) -> torch.Tensor:
        module = name.removesuffix(".weight")
        if module.rpartition(".")[2] not in lora.targets:
            return held[name]
        down, up = (adapter(f"{module}.lora_{part}.{_ADAPTER}.weight") for part in "AB")
        return held[name] + lora.alpha / lora.rank * (up @ down)

    return weights


def weights_of(recipe: Recipe, vocabulary: Vocabulary, saved: Checkpoint) -> Callable[[str], torch.Tensor]:
    """The fp32 weights of the model in a checkpoint, merged where it holds adapters, by parameter name.

    Raises `VersionConflict` where the model that they adapt is no longer what it was.
    """
    model, train = recipe.training()
    if train.lora is None:
        return lambda name: saved.tensor(f"model.{name}")
    seed = recipe.train_seed
    check_same(saved.state.lineage, initial_model.identity(model, vocabulary, seed), saved.folder)
    config = for_recipe(model, vocabulary.vocab_size, train.sequence_tokens)
    begun = initial_model.first(model, config, vocabulary, seed, attention="sdpa")
    return merge_adapters(begun, train.lora, lambda name: saved.tensor(f"model.{name}"))


def check_same(lineage: Mapping[str, str], text: str, where: str) -> None:
    """Raises `VersionConflict` where the model that a run began with is another one now."""
    then = lineage.get(MODEL, text)
    if then != text:
        raise VersionConflict(
            f"the model that this run began with has changed: its hash was {then[:12]}..., now it is "
            f"{text[:12]}...",
            where=where,
            remedy="restore the folder of model.path (an export that was written again?), or begin a run of another "
            "name: train.run=<name>",
        )
