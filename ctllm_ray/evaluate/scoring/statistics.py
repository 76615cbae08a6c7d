"""Statistics of scores: standard errors, 95 % intervals, and paired tests.

Items are taken as drawn at random from those that might have been asked. A share of right answers gets
Wilson's interval (1927), which is honest for few items and for shares of 0 and 1, where the bootstrap's has
no width; marks and bits per byte get the percentile bootstrap (Efron 1979). The standard error of a mean is
lm-eval's: sample deviation over the root of the count.

Two models that answered the same items are compared item by item, which is far sharper than comparing two
intervals. For right and wrong answers McNemar's exact test looks at the items where they differ (1947); for
other scores signs of differences are flipped at random (Fisher 1935). Differences of ratios are treated as
their linear parts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Z95 = 1.959963984540054  # half-width of 95 % of the normal distribution, in standard deviations
CHUNK_DRAWS = 4_000_000  # bootstrap draws at once: 32 MB


@dataclass(frozen=True)
class Estimate:
    """A score with its standard error and 95 % interval; NaN if undefined."""

    value: float
    stderr: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """B minus A over the items that both answered. `p` is the probability of such a
    large difference by chance."""

    value: float
    low: float
    high: float
    p: float
    test: str
    items: int


def share(right: Sequence[float]) -> Estimate:
    """The share of ones among zeros and ones, with Wilson's interval."""
    n = len(right)
    if not n:
        return Estimate(math.nan, math.nan, math.nan, math.nan)
    result = mean_of(right)
    centre = (result + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * math.sqrt(result * (1 - result) / n + Z95**2 / (4 * n * n))
    return Estimate(result, stderr(right, np.ones(n)), max(0.0, centre - half), min(1.0, centre + half))


def ratio(above: Sequence[float], below: Sequence[float], seed: int, resamples: int) -> Estimate:
    """The sum of `above` divided by the sum of `below` (the mean, if all of these are 1),
    with a bootstrap interval."""
    a, b = np.asarray(above, np.float64), np.asarray(below, np.float64)
    if not len(a):
        return Estimate(math.nan, math.nan, math.nan, math.nan)
    drawn = _bootstrap(a, b, seed, resamples)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Estimate(float(a.sum() / b.sum()), stderr(a, b), float(low), float(high))


def mean_of(values: Sequence[float]) -> float:
    """The mean."""
    return math.fsum(values) / len(values)


def stderr(above: Sequence[float] | np.ndarray, below: Sequence[float] | np.ndarray) -> float:
    """The standard error of a ratio of sums, from its linear part; NaN for one item."""
    a, b = np.asarray(above, np.float64), np.asarray(below, np.float64)
    if len(a) < 2:
        return math.nan
    rest = a - a.sum() / b.sum() * b
    return float(np.sqrt((rest**2).sum() / (len(a) - 1) / len(a)) / b.mean())


def _bootstrap(above: np.ndarray, below: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """Ratios over bootstrap resamples of the items."""
    random, n = np.random.default_rng(seed), len(above)
    at_once = max(1, CHUNK_DRAWS // n)
    results = []
    for start in range(0, resamples, at_once):
        drawn = random.integers(0, n, (min(at_once, resamples - start), n))
        results.append(above[drawn].sum(1) / below[drawn].sum(1))
    return np.concatenate(results)


def compare_paired(
    a: Sequence[float], b: Sequence[float], below: Sequence[float], seed: int, resamples: int
) -> Difference:
    """B minus A over the same items; `below` weights them (bytes of a text, else 1)."""
    first, second, weight = (np.asarray(values, np.float64) for values in (a, b, below))
    if not len(first):
        return Difference(math.nan, math.nan, math.nan, math.nan, "none", 0)
    rest = second - first
    low, high = np.percentile(_bootstrap(rest, weight, seed, resamples), [2.5, 97.5])
    binary = np.isin(np.concatenate([first, second]), (0.0, 1.0)).all() and (weight == 1).all()
    p, test = (mcnemar(rest), "McNemar") if binary else (sign_flip_p(rest, seed, resamples), "permutation")
    return Difference(float(rest.sum() / weight.sum()), float(low), float(high), p, test, len(rest))


def mcnemar(differences: np.ndarray) -> float:
    """The exact two-sided probability of such an uneven split among items where exactly one is right."""
    up, down = int((differences > 0).sum()), int((differences < 0).sum())
    n, fewer = up + down, min(up, down)
    if not n:
        return 1.0
    log_half = n * math.log(2)
    tail = math.fsum(math.exp(_log_choose(n, k) - log_half) for k in range(fewer + 1))
    return min(1.0, 2 * tail)


def sign_flip_p(differences: np.ndarray, seed: int, resamples: int) -> float:
    """The share of random sign flips with a sum at least as far from zero, including the given signs."""
    random = np.random.default_rng(seed)
    there = differences[differences != 0]
    if not len(there):
        return 1.0
    far = abs(there.sum()) * (1 - 1e-12)
    at_once, as_far = max(1, CHUNK_DRAWS // len(there)), 0
    for start in range(0, resamples, at_once):
        signs = random.integers(0, 2, (min(at_once, resamples - start), len(there)), np.int8) * 2 - 1
        as_far += int((np.abs(signs @ there) >= far).sum())
    return (1 + as_far) / (1 + resamples)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
