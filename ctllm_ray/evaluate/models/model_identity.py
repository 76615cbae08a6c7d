"""Identifies the model and the engine of an evaluation.
Two evaluations are equal only if all of this is equal.

Weights count by their hashes, whatever their format; so do the files beside them that change answers. An
export of ours says the hashes in lineage.json, which is written last: they hold as long as no file of the
folder was touched since.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ctllm_ray.base import resolve, storage
from ctllm_ray.base.exports import LINEAGE, read_lineage
from ctllm_ray.base.recipe_serving import Serve
from ctllm_ray.model import fingerprint
from ctllm_ray.tokenizer.tokenizer import Tokenizer

#: Weight files of our exports; the same that `fingerprint.hash_weights` hashes.
_EXPORTED = (".safetensors", ".safetensors.index.json")
#: Files besides weights and tokenizer that change answers: shape, end tokens, chat template.
_SETTINGS = (
    "config.json", "generation_config.json", "adapter_config.json", "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
)  # fmt: skip
_CHANGED = ("created", "LastModified", "updated", "last_modified")  # fsspec: local (ctime), S3, GCS, Azure


def identify_model(folder: str, tokenizer: Tokenizer) -> dict[str, Any]:
    """SHA-256 of the weights by file, of the tokenizer, and of other files that change answers."""
    there = storage.list_names(folder)
    settings = {
        name: storage.size_and_sha256(storage.join(folder, name))[1] for name in _SETTINGS if name in there
    }
    weights = _exported_weights(folder, there) or fingerprint.hash_weights(folder)
    return {"weights": weights, "settings": settings, "tokenizer": tokenizer.sha256}


def describe_engine(serve: Serve, engine: str) -> dict[str, str]:
    """The engine and its settings: bf16 and fp32, or two engines, give scores
    that differ by more than noise."""
    device = "cuda" if serve.gpus else "cpu"
    auto = resolve.declared_value(resolve.ENGINES, engine, "AUTO_PRECISION")
    auto = auto or ("bf16" if serve.gpus else "fp32")
    return {
        "engine": engine,
        "device": device,
        "precision": auto if serve.precision == "auto" else serve.precision,
    }


def weights_of_lineage(lineage: dict[str, Any]) -> dict[str, str]:
    """SHA-256 of weight files, from a lineage.json; empty if it has none."""
    files = lineage.get("files", {})
    return {name: file["sha256"] for name, file in sorted(files.items()) if name.endswith(_EXPORTED)}


def _exported_weights(folder: str, there: list[str]) -> dict[str, str]:
    """The hashes of an export without reading its weights; empty if a file was changed after the export."""
    if LINEAGE not in there:
        return {}
    lineage = read_lineage(folder)
    files, written = lineage.get("files", {}), _changed_at(storage.join(folder, LINEAGE))
    if {*there} - {LINEAGE} != {*files}:
        return {}
    for name, file in files.items():
        uri = storage.join(folder, name)
        if not 0 < _changed_at(uri) <= written or _size(uri) != file["bytes"]:
            return {}
    return weights_of_lineage(lineage)


def _changed_at(uri: str) -> float:
    """When the file was last written or replaced, Unix seconds; 0 if the storage does not say.

    Of a local file that is its ctime: copying tools carry the mtime along.
    """
    fs, path = storage.filesystem(uri)
    info = fs.info(path)
    changed = next((info[name] for name in _CHANGED if info.get(name)), 0.0)
    if isinstance(changed, str):
        changed = datetime.fromisoformat(changed)
    return changed.timestamp() if isinstance(changed, datetime) else float(changed)


def _size(uri: str) -> int:
    fs, path = storage.filesystem(uri)
    return int(fs.info(path)["size"])
