"""The initial model of a run: a new one, or one from a
Hugging Face folder, for the tokenizer of the run's shards.

With `model.vocabulary: same` the folder's tokenizer, where it has one, must have the pieces of the run's: two
vocabularies of one size would train without an error, and every row would mean something else.
"""

from __future__ import annotations

import hashlib

from ctllm_ray.base import storage
from ctllm_ray.base.errors import InputError
from ctllm_ray.base.recipe_training import Model
from ctllm_ray.model import llama, vocabulary
from ctllm_ray.model.config import CONFIG, ModelConfig
from ctllm_ray.model.fingerprint import hash_weights
from ctllm_ray.tokenizer.tokenizer import Tokenizer, load_tokenizer
from ctllm_ray.train.data.corpora import Vocabulary

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model")


def build_initial_model(
    model: Model, config: ModelConfig, ours: Vocabulary, seed: int, attention: str
) -> llama.LlamaForCausalLM:
    """The initial model of a run, equal at each start. Raises like `load_initial_model`."""
    if not model.path:
        return llama.build(config, seed, attention=attention)
    return load_initial_model(model, ours, seed, attention)


def identity(model: Model, ours: Vocabulary, seed: int) -> str:
    """SHA-256 (hexadecimal) of what `first` depends on; for a folder its weights in all
    formats, hashed at 1 GB/s."""
    if not model.path:
        facts = [model.use, str(seed), str(ours.vocab_size)]
    else:
        hashes = {CONFIG: storage.size_and_sha256(storage.join(model.path, CONFIG))[1]} | hash_weights(
            model.path
        )
        facts = [f"{name}:{hashes[name]}" for name in sorted(hashes) if not name.endswith(".index.json")]
        facts += [] if model.vocabulary == "same" else [model.vocabulary, ours.sha256, str(seed)]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def load_initial_model(model: Model, ours: Vocabulary, seed: int, attention: str) -> llama.LlamaForCausalLM:
    """The model of `model.path` with one row per piece of the run's tokenizer.

    Raises `InputError` if the folder holds no Llama model,
    or if its tokenizer is needed but missing or different.
    """
    result = llama.load(model.path, attention=attention)
    if model.context_tokens:
        result.config.max_position_embeddings = model.context_tokens
    if model.vocabulary == "same":
        _check_same(model.path, ours)
        return result
    old, new = load_tokenizer(model.path), load_tokenizer(ours.folder)
    return vocabulary.extend(
        result,
        old.pieces,
        new.pieces,
        lambda text: old.encode([text])[0].tolist(),
        method=model.vocabulary,
        seed=seed,
        same={new.bos_id: old.bos_id, new.eos_id: old.eos_id},
    )


def _check_same(folder: str, ours: Vocabulary) -> None:
    if not any(storage.exists(storage.join(folder, name)) for name in _TOKENIZER_FILES):
        return
    differing = _differing(load_tokenizer(folder), load_tokenizer(ours.folder))
    if differing:
        raise InputError(
            f"the model's tokenizer differs from the run's: {differing}",
            where=folder,
            remedy="set model.vocabulary to mean_of_pieces, or tokenize the shards with the "
            "model's tokenizer: `tokenizer.path`",
        )


def _differing(theirs: Tokenizer, ours: Tokenizer) -> str:
    """The first difference in words; empty if there is none."""
    for number, (there, here) in enumerate(zip(theirs.pieces, ours.pieces, strict=False)):
        if there != here:
            return f"id {number} is {there!r} in the model and {here!r} in the run"
    counts = len(theirs.pieces), len(ours.pieces)
    return "" if counts[0] == counts[1] else f"{counts[0]} pieces in the model, {counts[1]} in the run"
