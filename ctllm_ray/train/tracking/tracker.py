"""The contract of a tracker, and what the modules of train/tracking/trackers/ share."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ctllm_ray.base.errors import RecipeError


class Tracker(Protocol):
    """A place for curves."""

    def values(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers at a step, by name."""

    def note(self, step: int, kind: str, text: str) -> None:
        """An event at a step."""

    def flush(self) -> None:
        """At each checkpoint."""

    def close(self) -> None:
        """At the end."""


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told of a run. `identity` stays the same when the run is resumed."""

    identity: str  # 21 characters, which SwanLab once wanted exactly
    project: str
    name: str
    settings: dict[str, Any]


def load_client(module: str, package: str) -> Any:
    """The service's own client. Raises `RecipeError` if it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise RecipeError(
            f"{package} is not installed: {error}",
            where="resources.train.trackers",
            remedy="pip install 'ctllm-ray[trackers]' on the workers, or take it out of the list",
        ) from None


def finite_only(values: Mapping[str, float]) -> dict[str, float]:
    """The values that are numbers: services draw no NaN."""
    return {name: value for name, value in values.items() if math.isfinite(value)}
