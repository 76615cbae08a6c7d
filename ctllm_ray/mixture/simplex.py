"""Designs the mixtures to try: points of the simplex within
bounds, evenly around the token shares, reproducible.

A mixture is whole sequences of a block (`train.block_sequences`): that is what training deals out, so a law
is fitted to what was trained and not to what was asked for. Its distribution is a Dirichlet around a middle,
cut off at the bounds: the groups are drawn one after another from the Beta distribution that a Dirichlet has
for the rest of the stick, each within the bounds that leave the others theirs. So every draw obeys the bounds
and none is thrown away; the price is that, where bounds cut deep, later groups (by name) take more of what is
pushed about than earlier ones.

The draws are no random numbers but an additive recurrence with a seeded start (Roberts 2018, "The
unreasonable effectiveness of quasirandom sequences"): a dozen points cover the space without clumps, and the
first n are the same however many follow, so a sweep may be made longer later.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import betainc, betaincinv

from ctllm_ray.base.errors import RecipeError

#: Smaller fractions of a sequence are rounding errors of the bounds.
_ROUNDING = 1e-9
#: If less of a Beta distribution lies between the bounds, quantiles there are meaningless and the draw is
#: uniform.
_LEAST_MASS = 1e-9
#: Draws in a row without a new mixture, after which no others are expected.
_MOST_REPEATS = 1000


@dataclass(frozen=True)
class Region:
    """The mixtures with `least` to `most` sequences of each group in a block; groups by name."""

    groups: tuple[str, ...]
    least: tuple[int, ...]
    most: tuple[int, ...]
    block: int

    def shares(self, counts: np.ndarray) -> dict[str, float]:
        """A mixture by group; its shares sum to one."""
        return {name: int(count) / self.block for name, count in zip(self.groups, counts, strict=True)}


def region(bounds: Mapping[str, tuple[float, float]], caps: Mapping[str, float], block: int) -> Region:
    """The mixtures that bounds and caps (maximum shares by epochs) allow. Raises `RecipeError`."""
    groups = tuple(sorted(bounds))
    least = tuple(math.ceil(bounds[name][0] * block - _ROUNDING) for name in groups)
    most = tuple(math.floor(min(bounds[name][1], caps[name]) * block + _ROUNDING) for name in groups)
    for name, low, high in zip(groups, least, most, strict=True):
        if low > high and caps[name] < bounds[name][0]:
            raise RecipeError(
                f"group {name!r} is too small for its bounds: its epochs allow a share of "
                f"{caps[name]:.2%}, but the minimum is {bounds[name][0]:.2%}",
                where="sweep.bounds",
                remedy=f"lower its minimum share or train.tokens, raise train.epoch_caps.{name}, or add data",
            )
        if low > high:
            remedy = "widen the bounds, or raise train.block_sequences"
            raise RecipeError(
                f"no share of {name!r} within its bounds is a whole number of {block} sequences",
                where="sweep.bounds",
                remedy=remedy,
            )
    if not sum(least) <= block <= sum(most):
        raise RecipeError(_no_mixture(groups, bounds, caps), where="sweep.bounds", remedy=_REMEDY)
    return Region(groups, least, most, block)


_REMEDY = "widen the bounds, lower train.tokens, raise train.max_epochs or train.epoch_caps, or add data"


def _no_mixture(
    groups: tuple[str, ...], bounds: Mapping[str, tuple[float, float]], caps: Mapping[str, float]
) -> str:
    low, high = (sum(bounds[name][side] for name in groups) for side in (0, 1))
    capped = sorted(name for name in groups if caps[name] < bounds[name][1])
    most = sum(min(bounds[name][1], caps[name]) for name in groups)
    reason = (
        f"bounds and caps allow no mixture: minimum shares sum to {low:.4g}, maximum shares to {most:.4g}"
    )
    return reason + (f" ({high:.4g} without the epoch limits of {', '.join(capped)})" if capped else "")


def nearest(region: Region, shares: Mapping[str, float]) -> np.ndarray:
    """Counts [groups] of the mixture in the region closest to the
    (positive) shares: proportional to them except for bounds.

    That is the least relative entropy to the shares. It is found by bisection of the factor of proportion.
    """
    wanted = np.array([shares[name] for name in region.groups])
    least, most = np.array(region.least) / region.block, np.array(region.most) / region.block
    low, high = -60.0, 60.0
    for _ in range(200):
        middle = (low + high) / 2
        total = np.clip(wanted * math.exp(middle), least, most).sum()
        low, high = (middle, high) if total < 1 else (low, middle)
    return whole(region, np.clip(wanted * math.exp(high), least, most))


def whole(region: Region, shares: np.ndarray) -> np.ndarray:
    """Counts [groups] within the bounds that sum to the block, each as close to its share as possible."""
    exact = shares * region.block
    counts = np.clip(np.floor(exact + _ROUNDING), region.least, region.most).astype(np.int64)
    while (lacking := region.block - int(counts.sum())) != 0:
        step = 1 if lacking > 0 else -1
        room = counts < region.most if step > 0 else counts > region.least
        counts[np.argmax(np.where(room, step * (exact - counts), -np.inf))] += step
    return counts


def middle(region: Region, shares: Mapping[str, float], temperature: float) -> np.ndarray:
    """Shares [groups] to the power of the temperature, normalized: 1 keeps them, 0 makes all equal."""
    powers = np.array([shares[name] for name in region.groups]) ** temperature
    return powers / powers.sum()


def mixtures(region: Region, middle: np.ndarray, concentration: float, seed: int) -> Iterator[np.ndarray]:
    """Counts [groups] of different mixtures, one after another, until the region seems to have no more."""
    counts_before: set[tuple[int, ...]] = set()
    repeats, number = 0, 0
    start = np.random.default_rng(seed).random(len(region.groups) - 1)
    steps = _steps(len(start))
    while repeats < _MOST_REPEATS:
        number += 1
        counts = whole(region, _draw_shares(region, middle * concentration, (start + number * steps) % 1.0))
        repeats = repeats + 1 if tuple(counts) in counts_before else 0
        if not repeats:
            counts_before.add(tuple(counts))
            yield counts


def _steps(dimensions: int) -> np.ndarray:
    """The step of the recurrence in each dimension: powers of 1/x, where x^(d+1) = x + 1."""
    root = 2.0
    for _ in range(64):
        root = (1 + root) ** (1 / (dimensions + 1))
    return root ** -np.arange(1.0, dimensions + 1)


def _draw_shares(region: Region, parameters: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Shares [groups] for a point [groups - 1] of the unit cube."""
    least, most = np.array(region.least) / region.block, np.array(region.most) / region.block
    shares, left = np.zeros(len(parameters)), 1.0
    for index, place in enumerate(places):
        low = max(least[index], left - most[index + 1 :].sum())
        high = min(most[index], left - least[index + 1 :].sum())
        share = _of_rest(parameters[index], parameters[index + 1 :].sum(), low / left, high / left, place)
        shares[index] = min(max(share * left, low), high)
        left = max(left - shares[index], 1e-12)
    shares[-1] = 1 - shares[:-1].sum()
    return shares


def _of_rest(a: float, b: float, low: float, high: float, place: float) -> float:
    """The quantile of a Beta(a, b) truncated at both ends."""
    low, high = min(max(low, 0.0), 1.0), min(max(high, 0.0), 1.0)
    below, above = betainc(a, b, low), betainc(a, b, high)
    if above - below < _LEAST_MASS:
        return low + place * (high - low)
    return float(betaincinv(a, b, below + place * (above - below)))
