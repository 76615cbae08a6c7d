"""Checks of clients' JSON schemas: nesting depth, and circular `$ref`s."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from typing import Any
from urllib.parse import unquote


def depth(value: Any) -> int:
    """Nesting depth of lists and objects: 0 for a plain value."""
    level, result = [value], 0
    while level := [inner for outer in level for inner in _inside(outer)]:
        result += 1
    return result


def find_loop(schema: dict[str, Any]) -> str:
    """A `$ref` that leads back to itself without any part of a value in between; empty if there is none.

    A `$ref` below `properties` or `items` may lead back: that is how trees are written.
    """
    graph = {ref: _refs(_resolve(schema, ref)) for ref in _all_refs(schema)}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1][0]
    return ""


def _all_refs(schema: Any) -> set[str]:
    """The `$ref`s anywhere in a schema."""
    level, refs = [schema], set()
    while level:
        refs |= {
            each["$ref"] for each in level if isinstance(each, dict) and isinstance(each.get("$ref"), str)
        }
        level = [inner for outer in level for inner in _inside(outer)]
    return refs


def _refs(schema: Any) -> set[str]:
    """The `$ref`s that apply to the same value as the schema itself."""
    if not isinstance(schema, dict):
        return set()
    own = {schema["$ref"]} if isinstance(schema.get("$ref"), str) else set()
    parts = schema.get("allOf")
    return own.union(*map(_refs, parts if isinstance(parts, list) else []))


def _resolve(schema: Any, ref: str) -> Any:
    """The target of a `$ref` in this document; None if it is external or missing."""
    if not ref.startswith("#"):
        return None
    place = schema
    for part in ref.split("/")[1:]:
        key = unquote(part).replace("~1", "/").replace("~0", "~")
        if isinstance(place, list) and key.isdecimal() and int(key[:9]) < len(place):
            place = place[int(key)]
        else:
            place = place.get(key) if isinstance(place, dict) else None
    return place


def _inside(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
