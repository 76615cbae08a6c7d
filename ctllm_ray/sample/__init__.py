"""The built-in sample: a few hundred pages and conversations, so that the demo and tests need no download.

`path` finds the built files in the installed package;
`README.md` says what is in them and `build.py` makes them.
"""

from __future__ import annotations

from pathlib import Path

from ctllm_ray.base.errors import InputError

FOLDER = Path(__file__).parent

#: The built files: text records, HTML records, and one truth row per page of both; conversations in three
#: formats; preference pairs; an exam.
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
    """The absolute local path of a built file. Raises `InputError`, which lists the
    names, for an unknown name."""
    if name not in NAMES:
        raise InputError(
            "the built-in sample has no file of this name",
            where=name,
            remedy=f"use one of {', '.join(NAMES)}",
        )
    return str(FOLDER / name)


def locate(path_or_name: str) -> str:
    """A path as it is; one that begins with `sample:` becomes the path of the built file."""
    return path(path_or_name.removeprefix("sample:")) if path_or_name.startswith("sample:") else path_or_name
