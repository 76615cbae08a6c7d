"""A few hundred pages and conversations written for this project: a demo and the tests need no network and no
data.

`path` finds the built files in the installed package; `README.md` says what is in them and `build.py` makes
them.
"""

from __future__ import annotations

from pathlib import Path

from ctllm_ray.base.errors import InputError

FOLDER = Path(__file__).parent

#: The built files: text records, HTML records, one row of truth for every page of both; conversations in
#: three forms; preference pairs; an exam.
NAMES = (
    "pages.jsonl.zst",
    "pages.warc.gz",
    "truth.jsonl",
    "talks.jsonl.zst",
    "talks_en.jsonl.zst",
    "instructions.jsonl.zst",
    "pairs.jsonl.zst",
    "exam.jsonl.zst",
)


def path(name: str) -> str:
    """The absolute local path of a built file. Raises `InputError`, with the names that exist, for any other
    name."""
    if name not in NAMES:
        raise InputError(
            "no such file in the embedded sample", where=name, remedy=f"names: {', '.join(NAMES)}"
        )
    return str(FOLDER / name)


def locate(given: str) -> str:
    """A path as it stands, but that of a built file for one that begins with `sample:`."""
    return path(given.removeprefix("sample:")) if given.startswith("sample:") else given
