"""A measure of one text run by Python itself, view by view; for the tests of measures."""

from __future__ import annotations

from typing import Any

import numpy as np

from ctllm_ray.base.resolve import MEASURES, resolve
from ctllm_ray.text.kernels import characters, fuse, views


def measured(name: str, text: str, **options: Any) -> float:
    """The value of a kernel measure, "document.char_count" for example, with the views that it reads."""
    function = resolve(MEASURES, name)
    found: dict[str, Any] = {
        "points": np.array([ord(c) for c in text], np.uint32),
        "table": characters.table(),
    }
    for view in fuse.needed_views([function]):
        found[view] = getattr(views, view)(*(found[n] for n in fuse.reads(getattr(views, view))))
    return float(function(*(found[n] for n in fuse.reads(function)), **options))
