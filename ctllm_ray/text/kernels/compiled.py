"""`compiled`: numba's `njit` with a disk cache that cannot go stale.

Numba's own cache looks at the file of the compiled function only, so a change in a function that it calls in
another file goes unnoticed. Here the cache folder is named after a hash of all sources of this package and
the numba version: a change anywhere starts a new folder. Set CTLLM_CACHE_DIR to move it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba


@cache
def cache_folder() -> Path:
    """The folder of compiled kernels for the current sources; it is created if missing."""
    digest = hashlib.sha256(numba.__version__.encode())
    for file in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(file.read_bytes())
    home = Path(os.environ.get("CTLLM_CACHE_DIR") or Path.home() / ".cache" / "ctllm_ray")
    folder = home / f"kernels-{digest.hexdigest()[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles the function at its first call and caches it on disk for later processes."""
    numba.config.CACHE_DIR = str(cache_folder())  # type: ignore[attr-defined]
    return numba.njit(cache=True)(function)
