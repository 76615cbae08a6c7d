"""The training loop: batch, gradients, checks, update; also records, checkpoints and agreement of workers.

Batch n does not depend on who requests it, the rate is a function of tokens, and randomness in a step is
seeded by the batch's number. So a resumed run needs only the position in the run state, and continues as if
it had never stopped, bit for bit on a CPU.

The GPU is never waited for in a step: losses are fetched about once a second, together. Policies that may
refuse an update (skip, rewind) have to look at each loss first and do wait. A rewind loads the newest
checkpoint and steps over the batch when the run comes to it again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch

from ctllm_ray.base.recipe_training import Train, TrainResources
from ctllm_ray.train.checkpoint.run_state import RunState
from ctllm_ray.train.checkpoint.saver import Saved, Saver
from ctllm_ray.train.data.batch import Batch
from ctllm_ray.train.data.batches import DocumentPiece
from ctllm_ray.train.devices.collectives import most
from ctllm_ray.train.hooks import Hooks
from ctllm_ray.train.losses.loss_spikes import Detector, in_a_row
from ctllm_ray.train.losses.pending_losses import Losses
from ctllm_ray.train.schedule import rate
from ctllm_ray.train.stepper import Stepper
from ctllm_ray.train.tracking.records import Recorder, StepRecord

BEAT_S = 1.0  # between agreements of the workers, approximately
MOST_STEPS = 50  # maximum number of steps between agreements
NAMED_DOCUMENTS = 100  # documents of a bad batch to name in an event; `ctllm batch` prints all


class Source(Protocol):
    """The source of batches; implemented in train/data/batches.py."""

    count: int
    sequences: int

    def share(self, rank: int, world: int) -> tuple[int, int]:
        """Rows of a rank."""

    def targets(self, number: int) -> int:
        """Trained labels in a global batch."""

    def divisor(self, number: int) -> int:
        """The loss divisor of a global batch."""

    def pieces(self, number: int, first: int, last: int) -> list[DocumentPiece]:
        """The document pieces in rows of a global batch."""

    def stream(
        self, numbers: Iterable[int], first: int, last: int, micro_sequences: int
    ) -> Generator[list[Batch], None, None]:
        """These batches, prefetched."""


@dataclass(frozen=True)
class Parts:
    """The parts of a run. `restore` loads the newest checkpoint into the stepper and returns its state."""

    train: Train
    resources: TrainResources
    stepper: Stepper
    batches: Source
    saver: Saver
    records: Recorder
    hooks: Hooks
    restore: Callable[[], RunState]
    still_ours: Callable[[], None]  # raises if another start took the run over
    mfu: Callable[[float], float]  # of tokens per second
    seed: int
    is_new: bool  # has no checkpoint of its own yet
    sums: tuple[str, ...] = ()  # of the objective, besides the loss


class Loop:
    """A run from `state` on. All workers execute it in the same way."""

    def __init__(self, parts: Parts, state: RunState) -> None:
        self.parts, self.state = parts, state
        self._train, self._stepper, self._world = parts.train, parts.stepper, parts.stepper.world
        self._judges = self._train.spikes.policy != "report"
        self._losses = Losses(parts.train, parts.records, parts.mfu, self._documents, parts.sums)
        self._stopped = False
        self._saved_at, self._saved = time.monotonic(), state
        self._awaited: dict[int, tuple[bool, dict[str, float]]] = {}  # by step: whether to validate, metrics
        self._validated: set[int] = set()
        self._stalls: dict[int, float] = {}
        self._beat_at, self._beat_step, self._pace = time.monotonic(), state.step, 1
        self._learn(state)

    def run(self) -> RunState:
        """Runs to the end or until stopped. Returns the state; its checkpoint is complete."""
        if self._train.spikes.policy == "rewind" and self.parts.is_new:
            self._save(to_validate=False)  # else a rewind would have no checkpoint
        while self.state.batch < self.parts.batches.count and not self._stopped:
            self._through(self._numbers())
        self._end()
        return self._describe_state()

    def _learn(self, state: RunState) -> None:
        self._detector = Detector(
            self._train.spikes, state.recent_losses, in_a_row(state.passed_over, state.batch)
        )

    def _numbers(self) -> list[int]:
        """The remaining batches."""
        known = set(self.state.passed_over)
        return [n for n in range(self.state.batch, self.parts.batches.count) if n not in known]

    def _through(self, numbers: list[int]) -> None:
        """Trains until the end, a stop, or a rewind, after which the batches change."""
        first, last = self.parts.batches.share(self._stepper.rank, self._world)
        stream = self.parts.batches.stream(numbers, first, last, self.parts.resources.micro_sequences)
        with closing(stream):
            for number in numbers:
                before = time.perf_counter()
                micro_batches = next(stream)
                self._step_over(number)
                if not self._take(number, micro_batches, time.perf_counter() - before):
                    return
                if self._beat_is_due():
                    self._beat()
                if self._stopped:
                    return
        self._step_over(self.parts.batches.count)

    def _step_over(self, number: int) -> None:
        """Moves to a batch, past those that an earlier life of the run skipped."""
        for _ in range(self.state.batch, number):
            self._detector.passed_over()
        self.state = replace(self.state, batch=number, tokens=number * self._train.batch_tokens)

    def _take(self, number: int, micro_batches: list[Batch], wait_s: float) -> bool:
        """Trains on a batch. False if the run rewound."""
        targets = self.parts.batches.targets(number)
        torch.manual_seed(self.parts.seed * 1_000_003 + number)
        tokens = (number + 1) * self._train.batch_tokens
        rate_now = rate(self._train.schedule, tokens, self._train.tokens)
        sums = self._stepper.backward(micro_batches, self.parts.batches.divisor(number))
        if self._judges and self._detector.is_spike(float(sums[0])):
            self._stepper.discard()
            return self._refuse(number, float(sums[0]))
        grad_norm = self._stepper.apply(rate_now)
        if self._judges and not math.isfinite(float(grad_norm)):  # the stepper made no update
            return self._refuse(number, float(sums[0]))
        before = self.state
        self.state = replace(
            before, step=before.step + 1, batch=number + 1, tokens=tokens, targets=before.targets + targets
        )
        if self._judges:
            self._detector.add(float(sums[0]))
        record = StepRecord(
            self.state.step, number, tokens, targets, math.nan, math.nan, rate_now, math.nan, wait_s, math.nan
        )
        self._losses.add(record, sums, grad_norm)
        self._save_at_marks(before.tokens, tokens)
        return True

    def _refuse(self, number: int, loss: float) -> bool:
        """Skips a batch without an update. False if the run rewound because of it."""
        self._flush()
        facts = {
            "batch": number,
            "loss": loss,
            "bound": self._detector.bound,
            "documents": self._documents(number),
        }
        self._detector.passed_over()
        passed_over = tuple(sorted({*self.state.passed_over, number}))
        if self._train.spikes.policy == "skip":
            self.parts.records.event("skipped", step=self.state.step, **facts)
            tokens = (number + 1) * self._train.batch_tokens
            self.state = replace(self.state, batch=number + 1, tokens=tokens, passed_over=passed_over)
            return True
        self._rewind(passed_over, facts)
        return False

    def _rewind(self, passed_over: tuple[int, ...], facts: dict[str, Any]) -> None:
        """Rewinds to the newest checkpoint."""
        from_step = self.state.step
        self.parts.saver.wait()
        most([0], self._world)  # rank 0 finishes saving last: now the checkpoint is there for all
        state, now = self.parts.restore(), self.state
        both = tuple(sorted({*state.passed_over, *passed_over}))
        self.state = replace(state, passed_over=both, data=now.data, recipe=now.recipe, lineage=now.lineage)
        self._learn(state)
        self._beat_step = self.state.step
        self.parts.records.rewind(self.state.step + 1)
        self.parts.records.event("rewound", step=from_step, to_step=self.state.step, **facts)

    def _documents(self, number: int) -> list[str]:
        pieces = self.parts.batches.pieces(number, 0, self.parts.batches.sequences)
        return list(dict.fromkeys(piece.doc_id for piece in pieces))[:NAMED_DOCUMENTS]

    def _flush(self) -> None:
        self._losses.flush(self._detector)

    def _beat_is_due(self) -> bool:
        if self._world == 1 and self.parts.hooks.should_stop():
            return True
        return self.state.step - self._beat_step >= self._pace

    def _beat(self) -> None:
        """About once a second: flushes records, and agrees on saving, stopping and the
        newest complete checkpoint."""
        self._flush()
        self.parts.still_ours()
        now = time.monotonic()
        step_s = (now - self._beat_at) / max(1, self.state.step - self._beat_step)
        self._beat_at = now
        pace = min(MOST_STEPS, max(1, round(BEAT_S / max(step_s, 1e-6))))
        is_first = self._stepper.rank == 0
        stop, save, pace, done = most(
            [
                self.parts.hooks.should_stop(),
                is_first and time.monotonic() - self._saved_at >= self.parts.resources.checkpoint_s,
                pace if is_first else 0,
                self._newly_complete(),
            ],
            self._world,
        )
        self._beat_step, self._pace = self.state.step, pace
        self._tell(done)
        self._stopped = bool(stop)
        if save and not stop:
            self._save(to_validate=False)

    def _newly_complete(self) -> int:
        """The step of the newest checkpoint that rank 0 completed since the last call, or 0."""
        finished = self.parts.saver.take_finished()
        if self._stepper.rank:
            return 0
        for saved in finished:
            self._record_checkpoint(saved)
        return max((saved.state.step for saved in finished), default=0)

    def _record_checkpoint(self, saved: Saved) -> None:
        self.parts.records.event(
            "checkpoint",
            step=saved.state.step,
            folder=saved.folder,
            bytes=saved.bytes,
            write_s=round(saved.seconds, 3),
            stall_s=round(self._stalls.pop(saved.state.step, 0.0), 3),
        )

    def _tell(self, done: int) -> None:
        """Notifies all workers of the checkpoints up to a step."""
        for step in sorted(step for step in self._awaited if step <= done):
            to_validate, metrics = self._awaited.pop(step)
            self.parts.hooks.after_save(step, metrics)
            if to_validate:
                self.parts.hooks.validate(step)
                self._losses.restart_clock()

    def _save_at_marks(self, before: int, tokens: int) -> None:
        """Saves at token counts that the recipe wants kept or validated; all workers know these steps."""
        validation = self._train.validation
        to_validate = validation is not None and passes(validation.every_tokens, before, tokens)
        keep = self.parts.resources.keep_every_tokens
        if to_validate or (keep and passes(keep, before, tokens)):
            self._save(to_validate=to_validate)

    def _save(self, *, to_validate: bool) -> None:
        """Starts a checkpoint. Records of its steps are on storage before it can be complete."""
        self._flush()
        began = time.perf_counter()
        self.parts.records.roll(self.state.step + 1)
        state = self._describe_state()
        self.parts.saver.save(state, self._stepper.tensors())
        self._stalls[state.step] = time.perf_counter() - began
        self._awaited[state.step] = (to_validate, {"tokens": float(state.tokens)} | self._losses.last)
        if to_validate:
            self._validated.add(state.step)
        self._saved, self._saved_at = self.state, time.monotonic()

    def _describe_state(self) -> RunState:
        """The state with the loss window and the lineage."""
        return replace(
            self.state,
            world=self._world,
            stepper=self._stepper.kind,
            zero_stage=self._stepper.zero_stage,
            recent_losses=self._detector.recent,
        )

    def _end(self) -> None:
        """Completes the last checkpoint on all workers, and notifies them."""
        self._flush()
        finished = not self._stopped
        to_validate = (
            finished and self._train.validation is not None and self.state.step not in self._validated
        )
        if self.state != self._saved:
            self._save(to_validate=to_validate)
        elif to_validate:
            self._awaited[self.state.step] = (True, self._losses.last)
        self.parts.saver.wait()
        self._newly_complete()
        most([0], self._world)
        self._tell(self.state.step)
        self.parts.records.event(
            "finished" if finished else "stopped", step=self.state.step, tokens=self.state.tokens
        )


def passes(every: int, before: int, tokens: int) -> bool:
    """True if (before, tokens] contains a multiple of `every`."""
    return tokens // every > before // every
