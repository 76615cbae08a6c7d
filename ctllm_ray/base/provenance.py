"""Records which code made an output: package versions, the commit, and whether files differ from it.

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
# environment variable: JSON of commit, dirty and sent_sha256, as the sender of a job saw them
SOURCE = "CTLLM_SOURCE"


@cache
def of_code(packages: tuple[str, ...]) -> dict[str, str]:
    """Versions of those packages that are installed, of Python, and the origin of the code."""
    versions = {}
    for name in (*ALWAYS, *packages):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions | {"python": platform.python_version(), "commit": "not a checkout"} | _source()


def _source() -> dict[str, str]:
    if SOURCE in os.environ:
        return {str(key): str(value) for key, value in json.loads(os.environ[SOURCE]).items()}
    if not _git("ls-files", __file__):  # installed package: a repository above it belongs to somebody else
        return {}
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return {"commit": _git("rev-parse", "HEAD"), "dirty": "yes" if changed else "no"}


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:  # git is not installed
        return ""
