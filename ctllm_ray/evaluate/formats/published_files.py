"""Reads benchmark files whose rows are lists instead of objects: C3's .json and MGSM's .tsv."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ctllm_ray import benchmark_files
from ctllm_ray.base.errors import InputError
from ctllm_ray.benchmark_files import ID, BenchmarkTable, Row


def read_table(uri: str, of_list: Callable[[Sequence[Any], str], Row]) -> BenchmarkTable:
    """Like `benchmark_files.table`; `of_list` converts a row that is a list, given the file's name.

    Raises `InputError` that names the row.
    """
    raw_table = benchmark_files.table(uri)
    return BenchmarkTable([_name_values(row, of_list) for row in raw_table.rows], raw_table.files)


def _name_values(row: Row, of_list: Callable[[Sequence[Any], str], Row]) -> Row:
    values = benchmark_files.list_values(row)
    if not values:
        return row
    try:
        return of_list(values, row[ID].rpartition("#")[0]) | {ID: row[ID]}
    except (ValueError, IndexError, TypeError) as error:
        remedy = "give the file in its published form"
        raise InputError(f"the row cannot be read: {error}", where=row[ID], remedy=remedy) from error
