"""Benchmark files that are lists instead of objects, as some are published: C3's .json and MGSM's .tsv."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from ctllm_ray.base import rows, storage
from ctllm_ray.base.errors import InputError
from ctllm_ray.base.rows import ID, Row, Table


def read_table(uri: str, of_list: Callable[[Sequence[Any], str], Row]) -> Table:
    """As `rows.table`; a row that is a list becomes what `of_list` makes of it and of its file's name.

    Raises `InputError` that names the file.
    """
    found: list[Row] = []
    files = {}
    for file in storage.list_files(uri):
        files[file.uri] = storage.size_and_sha256(file.uri)[1]
        name = file.uri.rpartition("/")[2]
        try:
            lists = _read_lists(file.uri)
            made = [of_list(values, name) | {ID: f"{name}#{at}"} for at, values in enumerate(lists)]
        except (ValueError, IndexError, TypeError) as error:
            remedy = "give the file as it is published, in UTF-8"
            raise InputError(f"not readable: {error}", where=file.uri, remedy=remedy) from error
        found += made or rows.of_file(file.uri)
    return Table(found, files)


def _read_lists(uri: str) -> list[Sequence[Any]]:
    """The rows of a file of lists; none where it is one of objects."""
    if uri.endswith(".tsv"):
        text = storage.read_bytes(uri).decode("utf-8-sig")
        return [line.rstrip("\r").split("\t") for line in text.split("\n") if line.strip()]
    if uri.endswith(".json"):
        content = json.loads(storage.read_bytes(uri))
        return content if isinstance(content, list) and content and isinstance(content[0], list) else []
    return []
