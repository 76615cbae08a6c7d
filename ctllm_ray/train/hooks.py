"""The interface between a run and its surroundings: stop
requests, and news of checkpoints. Ray implements it in launch.py.

The loop calls these on all workers, at the same points and in the same order.
"""

from __future__ import annotations

import signal
import threading
import uuid
from collections.abc import Mapping
from types import FrameType, TracebackType
from typing import Protocol

from ctllm_ray.base.recipe import Recipe


class Hooks(Protocol):
    """Called by the loop on all workers."""

    #: Owner of the run. A start by the same owner takes the run over at once: Ray restarts worker groups.
    owner: str

    def should_stop(self) -> bool:
        """True once the run should save and end: the machine will stop. Called often;
        any worker may return True."""

    def after_save(self, step: int, metrics: Mapping[str, float]) -> None:
        """Called when the checkpoint of a step is complete."""

    def validate(self, step: int) -> None:
        """Called after `after_save` for steps to validate. The checkpoint is on storage."""


class Alone:
    """Hooks of a run in this process: SIGTERM stops it, and validation interrupts training."""

    def __init__(self, recipe: Recipe) -> None:
        self.owner = uuid.uuid4().hex
        self._recipe = recipe
        self._stop = False
        self._before: signal.Handlers | int | None = None

    def __enter__(self) -> Alone:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._stop_at_signal)  # type: ignore[assignment]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _stop_at_signal(self, number: int, frame: FrameType | None) -> None:
        self._stop = True

    def should_stop(self) -> bool:
        """True after SIGTERM."""
        return self._stop

    def after_save(self, step: int, metrics: Mapping[str, float]) -> None:
        """Nobody to notify."""

    def validate(self, step: int) -> None:
        """Training waits for it."""
        from ctllm_ray.train.checkpoint.checkpoint import folder_of
        from ctllm_ray.train.validation.validate import validate_checkpoint

        validate_checkpoint(
            self._recipe.model_dump(mode="json"), folder_of(self._recipe.folder("train"), step)
        )
