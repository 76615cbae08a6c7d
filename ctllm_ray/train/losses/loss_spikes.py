"""Detects loss spikes: compares a batch's loss with the median and the noise of recently accepted losses.

A mean and a standard deviation would be moved by the very spikes they should find. The noise is the median
absolute difference of neighbouring losses, times 1.4826 (as for a MAD; Rousseeuw & Croux 1993) over sqrt(2),
since a difference has the noise of two. Deviations from the window's own median would not do: at batch 200 of
a falling curve its slope makes them five times as large, and a spike of 1.5 nats passes. A falling loss lies
below the median of its window, so the steep start of a run is no spike. What is not finite always is one.

With normal noise and 6 deviations a normal loss is flagged 0.2 times in a million after 128 losses, 2.3 times
after 64, 33 after 32 and 3,000 after 8 (simulated, 1.2 million windows each): hence nothing finite is judged
before half of the window is filled.

Skipped batches do not enter the window; else a few spikes would become normal. A loss that stays high (a
harder mixture begins) would then be skipped forever, so after `MOST_IN_A_ROW` the window is cleared and
filled again. If the loss is still not finite then, the run has diverged and ends with an error.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections import deque
from collections.abc import Sequence

from ctllm_ray.base.errors import Diverged
from ctllm_ray.base.recipe_training import Spikes

MAD_TO_DEVIATION = 1.4826  # 1 / (third quartile of the standard normal distribution)
LEAST_LOSSES = 8  # and half of the window: earlier, finite losses are not checked
#: Nats per token. If losses hardly vary (memorized text), noise must not count as a spike.
LEAST_DEVIATION = 0.005
MOST_IN_A_ROW = 8  # skipped batches in a row; then the higher loss is the new level


class Detector:
    """Compares losses in nats per token with earlier ones. Its
    state is `recent` and the number of skipped batches in a row."""

    def __init__(self, spikes: Spikes, recent: Sequence[float] = (), in_a_row: int = 0) -> None:
        self._deviations = spikes.deviations
        self._ready = max(LEAST_LOSSES, spikes.window_steps // 2)
        self._recent = deque(recent, maxlen=spikes.window_steps)
        self._in_a_row = in_a_row

    @property
    def recent(self) -> tuple[float, ...]:
        """The window: accepted losses, oldest first."""
        return tuple(self._recent)

    @property
    def bound(self) -> float:
        """The threshold: a higher loss is a spike, nats per
        token. Infinite while too few losses are known."""
        if len(self._recent) < self._ready:
            return math.inf
        median = statistics.median(self._recent)
        steps = statistics.median(abs(b - a) for a, b in itertools.pairwise(self._recent))
        deviation = MAD_TO_DEVIATION * steps / math.sqrt(2)
        return median + self._deviations * max(deviation, LEAST_DEVIATION)

    def is_spike(self, loss: float) -> bool:
        """True for a loss far above earlier ones, and for one that is not finite. Changes nothing."""
        return not math.isfinite(loss) or loss > self.bound

    def add(self, loss: float) -> None:
        """Call after an update with this loss. A loss that is not finite never enters the window."""
        self._in_a_row = 0
        if math.isfinite(loss):
            self._recent.append(loss)

    def passed_over(self) -> None:
        """Call after a batch without an update. Raises `Diverged` if even a new window does not help."""
        self._in_a_row += 1
        if self._in_a_row == MOST_IN_A_ROW:
            self._recent.clear()
        if self._in_a_row > MOST_IN_A_ROW:
            raise Diverged(
                f"the loss of {self._in_a_row} batches in a row is NaN or infinite",
                where="train.spikes",
                remedy="the last checkpoint is good: lower train.schedule.peak_rate, use a longer "
                "warm-up, or train in fp32",
            )


def in_a_row(passed_over: Sequence[int], batch: int) -> int:
    """How many consecutive batches just before `batch` were skipped: the detector's state after a resume."""
    numbers = set(passed_over)
    count = 0
    while batch - 1 - count in numbers:
        count += 1
    return count
