"""Groups the runs of each mixture, and estimates their noise: how much a result changes with the seed.

Every interval and every choice of a sweep depends on this noise. It is the spread of runs of one mixture,
pooled over mixtures, as in an analysis of variance: s^2 = sum over mixtures and runs of (y_mk - mean_m)^2 /
sum of (R_m - 1) (Fisher 1925, "Statistical Methods for Research Workers"). If no mixture ran twice, the noise
is unknown and no choice is possible. A mixture with a diverged run is not a candidate; its other runs are
left out too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ctllm_ray.mixture.results import Trial


@dataclass(frozen=True)
class Tried:
    """A mixture whose runs all finished. `values` are weighted bits per byte of its runs."""

    number: int
    shares: dict[str, float]
    runs: tuple[Trial, ...]
    bits: dict[str, float]  # mean over runs, by held-out group
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Weighted bits per byte."""
        return math.fsum(self.values) / len(self.values)

    @property
    def seconds(self) -> float:
        """Seconds of all its runs."""
        return math.fsum(run.seconds for run in self.runs)


@dataclass(frozen=True)
class Noise:
    """Noise of one run: pooled standard deviation of replicates (NaN: unknown),
    and its degrees of freedom."""

    deviation: float
    freedom: int

    def of_means(self, tried: Sequence[Tried]) -> float:
        """The standard deviation of the mean of a mixture's runs; 0 if unknown."""
        return self.deviation / math.sqrt(average_runs(tried)) if self.freedom else 0.0


UNKNOWN = Noise(math.nan, 0)


def average_runs(tried: Sequence[Tried]) -> float:
    """The harmonic mean of runs per mixture: the variance of a mean is proportional to 1 / runs."""
    return len(tried) / math.fsum(1 / len(each.values) for each in tried)


def gather_runs(trials: Sequence[Trial], weights: Mapping[str, float]) -> list[Tried]:
    """The mixtures whose runs all finished, in order."""
    by_number: dict[int, list[Trial]] = {}
    for trial in trials:
        by_number.setdefault(trial.number, []).append(trial)
    return [
        Tried(
            number,
            runs[0].shares,
            tuple(runs),
            {domain: math.fsum(run.bits[domain] for run in runs) / len(runs) for domain in runs[0].bits},
            tuple(run.objective(weights) for run in runs),
        )
        for number, runs in sorted(by_number.items())
        if all(run.status == "finished" for run in runs)
    ]


def pool_noise(values: Sequence[Sequence[float]]) -> Noise:
    """The noise of one run, from values of runs by mixture."""
    freedom = sum(len(each) - 1 for each in values)
    if not freedom:
        return UNKNOWN
    squares = math.fsum(float(((np.asarray(each) - np.mean(each)) ** 2).sum()) for each in values)
    return Noise(math.sqrt(squares / freedom), freedom)
