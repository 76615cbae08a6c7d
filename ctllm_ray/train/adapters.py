"""LoRA through peft: the model is frozen, and small matrices beside some of its own are trained (Hu et al.
2021).

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

_ADAPTER = "default"  # peft's name for the only adapter
MODEL = "model"  # key in the run's lineage: hash of the initial model


def adapt(model: torch.nn.Module, lora: Lora, seed: int) -> None:
    """Freezes the model and adds new adapters to the matrices that the recipe names."""
    from peft import LoraConfig, inject_adapter_in_model  # the import takes seconds

    alpha: Any = lora.alpha  # annotated as an int there, but divided by the rank
    settings = LoraConfig(
        r=lora.rank, lora_alpha=alpha, lora_dropout=lora.dropout, target_modules=list(lora.targets)
    )
    inject_adapter_in_model(settings, model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(_initial(name, parameter.shape, seed))


#: What goes wrong if `leaves_specials_untaught`, and what to do.
UNTAUGHT = {
    "why": "answers will hardly ever end: LoRA does not train the special tokens of turns, which the base lacks",
    "remedy": "train without train.lora, or start from a model trained on conversations without LoRA",
}


def leaves_specials_untaught(recipe: Recipe) -> bool:
    """True if a run trains conversations with adapters on our own export that only had pretraining.

    The rows of `<|user|>`, `<|assistant|>` and `<|end|>` are then still random, and stay so.
    """
    model, train = recipe.training()
    if train.lora is None or not model.path or not objective.find_objective(train).teaches_chat:
        return False
    return is_base(read_lineage(model.path))


def _initial(name: str, shape: torch.Size, seed: int) -> torch.Tensor:
    """Initial weights of an adapter: `up` zero, `down` uniform within 1 / sqrt(inputs)."""
    if ".lora_B." in name:
        return torch.zeros(shape)
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
    bound = 1 / math.sqrt(shape[1])
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)


def merge_adapters(
    model: llama.LlamaForCausalLM, lora: Lora, adapter: Callable[[str], torch.Tensor]
) -> Callable[[str], torch.Tensor]:
    """The fp32 weights of an adapted model by their names without adapters.
    `adapter` returns adapter weights."""
    held = {name: parameter.detach() for name, parameter in model.named_parameters()}

    def weights(name: str) -> torch.Tensor:
        module = name.removesuffix(".weight")
        if module.rpartition(".")[2] not in lora.targets:
            return held[name]
        down, up = (adapter(f"{module}.lora_{part}.{_ADAPTER}.weight") for part in "AB")
        return held[name] + lora.alpha / lora.rank * (up @ down)

    return weights


def weights_of(recipe: Recipe, vocabulary: Vocabulary, saved: Checkpoint) -> Callable[[str], torch.Tensor]:
    """The fp32 weights of the model in a checkpoint by parameter name, with adapters merged.

    Raises `VersionConflict` if the model that the adapters belong to has changed.
    """
    model, train = recipe.training()
    if train.lora is None:
        return lambda name: saved.tensor(f"model.{name}")
    seed = recipe.train_seed
    check_same(saved.state.lineage, initial_model.identity(model, vocabulary, seed), saved.folder)
    config = for_recipe(model, vocabulary.vocab_size, train.sequence_tokens)
    begun = initial_model.build_initial_model(model, config, vocabulary, seed, attention="sdpa")
    return merge_adapters(begun, train.lora, lambda name: saved.tensor(f"model.{name}"))


def check_same(lineage: Mapping[str, str], text: str, where: str) -> None:
    """Raises `VersionConflict` if the initial model of a run has changed."""
    then = lineage.get(MODEL, text)
    if then != text:
        raise VersionConflict(
            f"the initial model of this run has changed: its hash was {then[:12]}..., now "
            f"it is {text[:12]}...",
            where=where,
            remedy="restore the folder of model.path (perhaps an export was written again), or "
            "start a run with another name: train.run=<name>",
        )
