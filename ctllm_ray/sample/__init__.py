"""A few hundred pages written for this project, so that a demo and the tests need neither network nor shared data.

`path` finds the built files in the installed package; `README.md` says what is in them and `build.py` makes them.
"""

from __future__ import annotations

from pathlib import Path

from ctllm_ray.base.errors import InputError

FOLDER = Path(__file__).parent

#: The built files: text records, HTML records, and one row of truth for every page of both.
NAMES = ("pages.jsonl.zst", "pages.warc.gz", "truth.jsonl")


def path(name: str) -> str:
    """The absolute local path of a built file. Raises `InputError`, with the names that exist, for any other name."""
    if name not in NAMES:
        raise InputError("no such file in the embedded sample", where=name, remedy=f"names: {', '.join(NAMES)}")
    return str(FOLDER / name)
