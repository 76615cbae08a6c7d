"""Caches shards of an object store on a local disk, where
they can be memory-mapped. Downloads each when first needed.

All workers of a machine share a copy, whose name is the shard's SHA-256. Copies stay until the machine
goes or someone deletes the folder: `ctllm-shards` in CTLLM_CACHE_DIR, by default in the system's
folder for temporary files. It must hold all shards that the machine draws from; where it cannot, mount
the store as a file system.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from ctllm_ray.base import storage
from ctllm_ray.base.errors import InputError

_BLOCK_BYTES = 8 << 20


def cache_shard(uri: str, digest: str) -> str:
    """The local path of a shard with this SHA-256: its own path, or a copy. Raises
    `InputError` if it changed."""
    if not storage.is_remote(uri):
        return uri
    copy = Path(os.environ.get("CTLLM_CACHE_DIR") or tempfile.gettempdir(), "ctllm-shards", f"{digest}.arrow")
    if not copy.exists():
        with storage.writing(str(copy)) as path, storage.reading(uri) as source:
            with Path(path).open("wb") as target:
                shutil.copyfileobj(source, target, _BLOCK_BYTES)
            if storage.size_and_sha256(path)[1] != digest:
                remedy = "restore it, or start a new run with another `train.run`"
                raise InputError(
                    "a shard changed since it was written: its SHA-256 differs", where=uri, remedy=remedy
                )
    return str(copy)
