"""Describes the served model: its id, context, chat template, and lineage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ctllm_ray.base import storage
from ctllm_ray.base.exports import LINEAGE, is_base, read_lineage
from ctllm_ray.tokenizer.conversations import read_template
from ctllm_ray.tokenizer.tokenizer import Tokenizer
from ctllm_ray.train.checkpoint.lineage import PARENT_MODEL, PARENT_SHA256

MOST_PHASES = 32  # maximum length of a lineage to follow


@dataclass(frozen=True)
class ModelCard:
    """`lineage` is that of the export, empty for a foreign model; `template` is its chat template."""

    id: str
    context_tokens: int
    created: int = 0  # Unix seconds
    chat: bool = False
    template: str = ""
    sha256: str = ""  # over everything that affects answers; empty if unknown
    trained_tokens: int = 0  # over all phases; 0 if unknown
    stop_ids: frozenset[int] = frozenset()  # end an answer, in addition to the tokenizer's EOS
    lineage: dict[str, Any] = field(default_factory=dict)


def read_card(
    folder: str, id_: str, tokenizer: Tokenizer, context_tokens: int, sha256: str = ""
) -> ModelCard:
    """Reads the model card of a Hugging Face folder with this hash.

    A foreign model counts as taught to chat where it has a template.
    """
    # imports torch, which takes 300 MB that users of a card do not need
    from ctllm_ray.model.folder import GENERATION

    lineage = read_lineage(folder)
    template = read_template(folder)
    return ModelCard(
        id=id_,
        context_tokens=context_tokens,
        created=_written_at(folder),
        chat=bool(template) and not is_base(lineage),
        template=template,
        sha256=sha256,
        trained_tokens=_trained_tokens(lineage),
        stop_ids=_stop_ids(_json(folder, GENERATION)),
        lineage=lineage,
    )


def _trained_tokens(lineage: dict[str, Any]) -> int:
    """Tokens of this run and of the runs before it; 0 if one of their lineages is missing or has changed."""
    total = 0
    for _ in range(MOST_PHASES):
        total += int(lineage.get("tokens", 0))
        code = lineage.get("code", {})
        if PARENT_MODEL not in code:
            return total
        path = storage.join(code[PARENT_MODEL], LINEAGE)
        if not storage.exists(path) or storage.size_and_sha256(path)[1] != code.get(PARENT_SHA256):
            return 0
        lineage = storage.read_json(path)
    return 0


def _json(folder: str, name: str) -> dict[str, Any]:
    path = storage.join(folder, name)
    return storage.read_json(path) if storage.exists(path) else {}


def _stop_ids(generation: dict[str, Any]) -> frozenset[int]:
    result = generation.get("eos_token_id")
    return frozenset([result] if isinstance(result, int) else result or [])


def _written_at(folder: str) -> int:
    """When the model was written, as far as its storage tells."""
    version = storage.list_files(storage.join(folder, "config.json"))[0].version
    try:
        return int(float(version))
    except ValueError:  # an ETag
        return 0
