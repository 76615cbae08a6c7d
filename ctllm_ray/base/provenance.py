"""Which code made something: the versions that decide its bytes, the commit, and whether files differ from
it.

A job on a cluster runs from a copy without git, so whoever sends it says there what was sent (`SOURCE`).
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ALWAYS = ("ctllm-ray", "numpy", "pyarrow", "ray")
SOURCE = "CTLLM_SOURCE"  # environment: JSON of commit, dirty and sent_sha256, as the sender of a job saw them


@cache
def of_code(packages: tuple[str, ...]) -> dict[str, str]:
    """Versions of the installed ones of these packages, of Python, and where the code comes from.

    That is `commit` and `dirty` (yes, no) of a checkout, and in a submitted job `sent_sha256` beside them.
    """
    results = {}
    for name in (*ALWAYS, *packages):
        try:
            results[name] = version(name)
        except PackageNotFoundError:
            continue
    return results | {"python": platform.python_version(), "commit": "not a checkout"} | _source()


def _source() -> dict[str, str]:
    if SOURCE in os.environ:
        return {str(key): str(value) for key, value in json.loads(os.environ[SOURCE]).items()}
    if not _git("ls-files", __file__):  # installed: a repository above it is somebody else's
        return {}
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return {"commit": _git("rev-parse", "HEAD"), "dirty": "yes" if changed else "no"}


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:  # no git here
        return ""
