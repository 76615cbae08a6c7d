"""Tells remote URIs from local paths."""

from __future__ import annotations

import re

_SCHEME = re.compile(r"^[a-z][a-z0-9+.-]*://")


def is_remote(uri: str) -> bool:
    """True for a URI with a scheme other than file://."""
    return bool(_SCHEME.match(uri)) and not uri.startswith("file://")
