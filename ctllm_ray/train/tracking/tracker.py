"""The interface of trackers, and what the modules of train/tracking/trackers/ share."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ctllm_ray.base.errors import RecipeError


class Tracker(Protocol):
    """A service that shows curves."""

    def values(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers at a step, by name."""

    def note(self, step: int, kind: str, text: str) -> None:
        """An event at a step."""

    def flush(self) -> None:
        """Called at each checkpoint."""

    def close(self) -> None:
        """Called at the end."""


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker knows of a run. `identity` stays the same when the run resumes."""

    identity: str  # 21 characters, which SwanLab once wanted exactly
    project: str
    name: str
    settings: dict[str, Any]


def load_client(module: str, package: str) -> Any:
    """Imports the client of a service. Raises `RecipeError` if it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise RecipeError(
            f"{package} is not installed: {error}",
            where="resources.train.trackers",
            remedy="pip install 'ctllm-ray[trackers]' on the workers, or remove it from "
            "resources.train.trackers",
        ) from None


def finite_only(values: Mapping[str, float]) -> dict[str, float]:
    """The finite values: services do not draw NaN."""
    return {name: value for name, value in values.items() if math.isfinite(value)}
