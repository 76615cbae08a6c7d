"""Fingerprints and differences of decisions, given as plain values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def fingerprint(decisions: Mapping[str, Any]) -> str:
    """SHA-256 (hexadecimal) of the decisions."""
    return hashlib.sha256(json.dumps(decisions, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def changes(old: Any, new: Any, path: str = "") -> list[str]:
    """One line per changed decision: its place, the old value, the new value."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        return [c for k in keys for c in changes(old.get(k), new.get(k), f"{path}.{k}" if path else str(k))]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [
            c
            for i, pair in enumerate(zip(old, new, strict=True))
            for c in changes(*pair, f"{path}.{_label(pair, i)}")
        ]
    if (
        isinstance(old, list)
        and isinstance(new, list)
        and (named := (_by_name(old), _by_name(new)))
        and all(named)
    ):
        return changes(*named, path)
    return [] if old == new else [f"{path}: {short(old)} -> {short(new)}"]


def _by_name(items: list[Any]) -> dict[str, Any]:
    """The items by name or `use`; empty if these are not unique."""
    by_name = {str(item.get("name") or item.get("use")): item for item in items if isinstance(item, dict)}
    return by_name if len(by_name) == len(items) else {}


def _label(pair: tuple[Any, Any], index: int) -> str:
    names = {item.get("name") or item.get("use") for item in pair if isinstance(item, dict)}
    name = names.pop() if len(names) == 1 else None
    return name if isinstance(name, str) else str(index)


def short(value: Any) -> str:
    """A value in the form that a message shows."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."
