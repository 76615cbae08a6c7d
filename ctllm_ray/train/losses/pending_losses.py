"""Losses on their way from the device to the records: fetched together, about once a second.

With the policy `report` no update waits for its loss, so a spike is told after its update was made, and a
loss that is no number ends the run within about a second. Steppers make no update from a gradient that is not
finite, and nothing is saved before the losses so far were looked at: what is on storage is good.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from ctllm_ray.base.errors import Diverged
from ctllm_ray.base.recipe_training import Train
from ctllm_ray.train.losses.loss_spikes import Detector
from ctllm_ray.train.tracking.records import Recorder, StepRecord


@dataclass(frozen=True)
class _Waiting:
    """An update whose loss, metrics and gradient norm are still on the device."""

    record: StepRecord
    sums: torch.Tensor  # [1 + names], loss first
    grad_norm: torch.Tensor


class Losses:
    """Updates that are not recorded yet.

    `names` are those of an objective's sums beside the loss, `documents`
    names those of a batch, `mfu` judges a speed in tokens/s.
    """

    def __init__(
        self,
        train: Train,
        records: Recorder,
        mfu: Callable[[float], float],
        documents: Callable[[int], list[str]],
        names: Sequence[str] = (),
    ) -> None:
        self._train, self._records, self._mfu, self._documents = train, records, mfu, documents
        self._names = tuple(names)
        self._waiting: list[_Waiting] = []
        self._since = time.monotonic()
        self.last: dict[str, float] = {}  # of the newest recorded update

    def add(self, record: StepRecord, sums: torch.Tensor, grad_norm: torch.Tensor) -> None:
        """Call after an update. `record` lacks the time and the values on the device."""
        self._waiting.append(_Waiting(record, sums, grad_norm))

    def restart_clock(self) -> None:
        """Call after a pause that is not training, so that it does not count in step times."""
        self._since = time.monotonic()

    def flush(self, detector: Detector) -> None:
        """Fetches and records all; only here does the host wait for the device. Raises
        `Diverged` if one is not finite."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        sums = torch.stack([w.sums.detach() for w in waiting]).tolist()
        norms = torch.stack([w.grad_norm.detach().to(w.sums.device) for w in waiting]).tolist()
        now = time.monotonic()
        seconds, self._since = (now - self._since) / len(waiting), now
        speed = self._train.batch_tokens / max(seconds, 1e-9)
        for w, (loss, *others), norm in zip(waiting, sums, norms, strict=True):
            if self._train.spikes.policy == "report":  # other policies checked before the update
                self._judge(detector, w.record, loss, norm)
            known = {"loss": loss, "grad_norm": norm, "seconds": seconds, "tokens_per_s": speed}
            metrics = dict(zip(self._names, others, strict=True))
            self._records.step(replace(w.record, **known, mfu=self._mfu(speed), metrics=metrics))
        self.last = {"loss": sums[-1][0], "grad_norm": norms[-1], "rate": waiting[-1].record.rate}

    def _judge(self, detector: Detector, record: StepRecord, loss: float, norm: float) -> None:
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise self._explain_divergence(record, loss, norm)
        if detector.is_spike(loss):
            facts = {"loss": loss, "bound": detector.bound, "documents": self._documents(record.batch)}
            self._records.event("spike", step=record.step, batch=record.batch, **facts)
        detector.add(loss)

    def _explain_divergence(self, record: StepRecord, loss: float, norm: float) -> Diverged:
        what = "gradient norm" if math.isfinite(loss) else "loss"
        named = self._documents(record.batch)
        return Diverged(
            f"the {what} of step {record.step} is NaN or infinite (loss {loss}, gradient norm {norm})",
            where=f"batch {record.batch}, documents {', '.join(named[:5])}{', ...' if len(named) > 5 else ''} "
            "(`ctllm batch` prints them all)",
            remedy="the last checkpoint is good. train.spikes.policy=skip skips such batches; if "
            "they are many: lower train.schedule.peak_rate, use a longer warm-up, or train "
            "in fp32",
        )
