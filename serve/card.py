"""What is told of the served model: its id, its context, whether it was taught to chat, and where it comes from."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from ctllm_ray.base import storage
from ctllm_ray.model.folder import GENERATION
from ctllm_ray.tokenizer import chat_template, convert
from ctllm_ray.tokenizer.tokenizer import Tokenizer
from ctllm_ray.train.export import LINEAGE

BASE_OBJECTIVES = ("pretrain",)  # all others teach a model to answer


@dataclass(frozen=True)
class Card:
    """`lineage` is that of the export as it stands, empty for a foreign model; `template` its chat template."""

    id: str
    context_tokens: int
    created: int = 0  # Unix seconds
    chat: bool = False
    template: str = ""
    stop_ids: frozenset[int] = frozenset()  # that end an answer, besides the tokenizer's EOS
    lineage: dict[str, Any] = field(default_factory=dict)


def read(folder: str, id_: str, tokenizer: Tokenizer, context_tokens: int) -> Card:
    """The card of a Hugging Face folder. A foreign model counts as taught to chat where it has a template."""
    lineage = _json(folder, LINEAGE)
    template = _template(tokenizer)
    return Card(
        id=id_,
        context_tokens=context_tokens,
        created=_written(folder),
        chat=bool(template) and _is_aligned(lineage),
        template=template,
        stop_ids=_stop_ids(_json(folder, GENERATION)),
        lineage=lineage,
    )


def _json(folder: str, name: str) -> dict[str, Any]:
    path = storage.join(folder, name)
    return storage.read_json(path) if storage.exists(path) else {}


def _is_aligned(lineage: dict[str, Any]) -> bool:
    objective = lineage.get("recipe", {}).get("train", {}).get("objective", {}).get("use", "")
    return objective not in BASE_OBJECTIVES


def _template(tokenizer: Tokenizer) -> str:
    """The template in its own file, else in the tokenizer's configuration; of several the one called default."""
    files = tokenizer.files()
    if chat_template.FILE in files:
        return files[chat_template.FILE].decode()
    found = json.loads(files.get(convert.CONFIG, b"{}")).get("chat_template") or ""
    if isinstance(found, list):
        found = {entry["name"]: entry["template"] for entry in found}.get("default", "")
    return found


def _stop_ids(generation: dict[str, Any]) -> frozenset[int]:
    found = generation.get("eos_token_id")
    return frozenset([found] if isinstance(found, int) else found or [])


def _written(folder: str) -> int:
    """When the model was written, as far as its storage tells."""
    version = storage.list_files(storage.join(folder, "config.json"))[0].version
    try:
        return int(float(version))
    except ValueError:  # an ETag
        return 0
