"""Which code made something: the versions that decide its bytes, and the commit."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ALWAYS = ("ctllm-ray", "numpy", "pyarrow", "ray")


@cache
def of_code(packages: tuple[str, ...]) -> dict[str, str]:
    """Versions of the installed ones of these packages, of Python, and the commit where the code is a checkout."""
    found = {}
    for name in (*ALWAYS, *packages):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found | {"python": platform.python_version(), "commit": _commit() or "not a checkout"}


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:  # no git here
        return ""
