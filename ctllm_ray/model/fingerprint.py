"""Identifies the model in a Hugging Face folder by hashes of the files that determine its answers.

A folder may be replaced under its name, so names and sizes tell nothing. Weights count in every format that
transformers opens; what training leaves beside them (optimizer states, arguments, logs) does not.
"""

from __future__ import annotations

import hashlib
import re

from ctllm_ray.base import storage
from ctllm_ray.model.config import CONFIG

#: Weights, their indexes, and adapters, which transformers applies automatically.
_WEIGHTS = re.compile(
    r"(?!training_args|optimizer|scheduler|rng_state).*\.(safetensors|bin|pt|pth)(\.index\.json)?"
)
_BESIDE = {
    CONFIG,
    "generation_config.json",
    "adapter_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
}


def hash_weights(folder: str) -> dict[str, str]:
    """SHA-256 (hexadecimal) of each weight file by name. Reads them all, at about 1 GB/s."""
    return _hash(folder, [name for name in storage.list_names(folder) if _WEIGHTS.fullmatch(name)])


def hash_model(folder: str) -> str:
    """One SHA-256 (hexadecimal) over all that determines
    answers: weights, configuration, tokenizer, chat template."""
    names = [name for name in storage.list_names(folder) if _WEIGHTS.fullmatch(name) or name in _BESIDE]
    lines = [f"{name}:{sha256}\n" for name, sha256 in _hash(folder, names).items()]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _hash(folder: str, names: list[str]) -> dict[str, str]:
    return {name: storage.size_and_sha256(storage.join(folder, name))[1] for name in sorted(names)}
