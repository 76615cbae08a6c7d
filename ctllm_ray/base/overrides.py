"""Overrides `key=value` of the command line: a dotted path into the recipe, and a YAML value."""

from __future__ import annotations

from typing import Any

import yaml

from ctllm_ray.base import resolve, storage
from ctllm_ray.base.errors import RecipeError


class Yaml(yaml.SafeLoader):
    """YAML that rejects duplicate keys. Otherwise the first of two lists of rules would be lost silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping with unique keys."""
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} occurs twice", node.start_mark
                )
        return super().construct_mapping(node, deep)


def overridden(plain: dict[str, Any], override: str) -> dict[str, Any]:
    """A copy with one `key=value` applied. The value is YAML; `@FILE` reads it from a file."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise RecipeError(f"{override!r} is not an override", remedy="write key=value, for example root=out")
    file = text.removeprefix("@") if text.startswith("@") else ""
    try:
        value = yaml.load(storage.read_bytes(file) if file else text, Yaml)
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        remedy = "correct the file" if file else "put quotes around the whole override"
        raise RecipeError(f"the value of {key!r} is not YAML: {error}", where=file, remedy=remedy) from None
    return _place_value(plain, key, value, key)


def _place_value(node: Any, path: str, value: Any, whole: str) -> Any:
    """Sets `value` at a dotted path below `node`. Items of a list are addressed by name, `use` or index."""
    if not path:
        return value
    if isinstance(node, list):
        for index, item in enumerate(node):
            for label in (item.get("name"), item.get("use")) if isinstance(item, dict) else ():
                if label and (path == label or path.startswith(label + ".")):
                    return [
                        *node[:index],
                        _place_value(item, path[len(label) + 1 :], value, whole),
                        *node[index + 1 :],
                    ]
        head, _, rest = path.partition(".")
        if not head.isdecimal() or int(head) >= len(node):
            names = [str(i.get("name") or i.get("use")) if isinstance(i, dict) else str(i) for i in node]
            raise RecipeError(
                f"the list has no item {head!r}", where=whole, remedy=resolve.nearest(head, names)
            )
        return [*node[: int(head)], _place_value(node[int(head)], rest, value, whole), *node[int(head) + 1 :]]
    head, _, rest = path.partition(".")
    if node is not None and not isinstance(node, dict):
        raise RecipeError(
            f"{head!r} cannot be set: the key above it holds a plain value",
            where=whole,
            remedy="check the dotted path",
        )
    base = node or {}
    return base | {head: _place_value(base.get(head), rest, value, whole)}
