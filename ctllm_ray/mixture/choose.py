"""Which mixture to train with, why, and which others are as good: from the results of a sweep.

The better law chooses, if it is good enough to: it must put trials that it has not seen in the right order. Where none
is, or too few trials ended well, the best measured trial is taken, or the token shares where no trial beat them, and
the choice says so. A law's choice is the least of the law within bounds and caps, in whole sequences of a block; laws
of exponentials are convex, so a descent from the best of many candidates finds it.

The runner-up region are the mixtures that the law cannot tell from the chosen one: in more than 5 % of the bootstrap's
draws they are as good.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, permutations
from typing import Literal

import numpy as np

from ctllm_ray.mixture import quality, simplex
from ctllm_ray.mixture.plan import Plan
from ctllm_ray.mixture.quality import Fit, weighted
from ctllm_ray.mixture.results import Trial
from ctllm_ray.mixture.simplex import Region

#: A law is good enough to choose by from this rank correlation on, if its interval lies above zero: about the point at
#: which the better of two mixtures is picked three times of four (Kendall's tau is then near 0.5).
LEAST_RANK_CORRELATION = 0.7
CANDIDATES = 4096


@dataclass(frozen=True)
class Choice:
    """The mixture to train with. Gains are bits per byte below the token shares; NaN where they are not known."""

    by: Literal["law", "best_trial", "token_shares"]
    shares: dict[str, float]
    fits: tuple[Fit, ...]  # the better one first
    expected: float  # weighted bits per byte at the trials' size
    baseline: float  # the same of the token shares, measured
    gain: float
    gain_interval: tuple[float, float]
    runner_up: dict[str, tuple[float, float]]  # least and most share of each group in the region; empty without a law
    runner_up_share: float  # of all mixtures within bounds and caps
    at_edge: tuple[str, ...]  # groups whose share stands at a bound or a cap
    why: str


def choose(plan: Plan, trials: Sequence[Trial]) -> Choice:
    """The mixture that the trials speak for. Diverged trials are left out of the laws, and said."""
    weights = plan.sweep.weights
    good = [trial for trial in trials if trial.status == "finished"]
    if not good:
        why = f"No trial finished ({len(trials)} diverged), so nothing is known: these are the token shares."
        return _measured(plan, "token_shares", plan.mixtures[0], good, (), why)
    shares_NG = np.array([[trial.shares[name] for name in plan.region.groups] for trial in good])
    bits = {domain: np.array([trial.bits[domain] for trial in good]) for domain in plan.domains}
    fits = tuple(quality.fits(shares_NG, bits, weights, plan.sweep.seed))
    said = _judgement(fits, len(good), len(trials) - len(good))
    if fits and is_good(fits[0]):
        return _by_law(plan, good, shares_NG, bits, fits, said)
    best = min(good, key=lambda trial: trial.objective(weights))
    if best.number == 0:
        why = f"{said} No trial did better than the token shares, so these are taken."
        return _measured(plan, "token_shares", best.shares, good, fits, why)
    why = f"{said} Taken is the best that was measured, trial {best.number}; its lead may be luck."
    return _measured(plan, "best_trial", best.shares, good, fits, why)


def is_good(fit: Fit) -> bool:
    """True where a law orders trials that it has not seen well enough to choose by."""
    return fit.rank_correlation >= LEAST_RANK_CORRELATION and fit.interval[0] > 0


def _judgement(fits: Sequence[Fit], finished: int, diverged: int) -> str:
    """What is said of the laws."""
    trials = f"{finished} trials" + (f" ({diverged} more diverged)" if diverged else "")
    if not fits:
        return f"{trials} are too few to fit a law to and test it."
    best = fits[0]
    found = (
        f"Of {trials}, each predicted by the {best.law} law from the others, the order is right to a rank correlation "
        f"of {best.rank_correlation:.2f} (90 % interval {best.interval[0]:.2f} to {best.interval[1]:.2f})"
    )
    if is_good(best):
        return f"{found}: good enough to choose by."
    asked = f"{LEAST_RANK_CORRELATION:g} and an interval above 0 are asked for"
    return f"{found}: not good enough to choose by ({asked}). More trials, or more tokens in each, may help."


def _measured(
    plan: Plan,
    by: Literal["best_trial", "token_shares"],
    shares: Mapping[str, float],
    good: Sequence[Trial],
    fits: tuple[Fit, ...],
    why: str,
) -> Choice:
    """A choice that no law made."""
    measured = {trial.number: trial.objective(plan.sweep.weights) for trial in good}
    expected = next((measured[t.number] for t in good if t.shares == dict(shares)), math.nan)
    baseline = measured.get(0, math.nan)
    unknown = (math.nan, math.nan)
    edge = _at_edge(plan.region, shares)
    gain = baseline - expected
    return Choice(by, dict(shares), fits, expected, baseline, gain, unknown, {}, math.nan, edge, why)


def _by_law(
    plan: Plan, good: Sequence[Trial], shares_NG: np.ndarray, bits: quality.Bits, fits: tuple[Fit, ...], said: str
) -> Choice:
    weights, region, best = plan.sweep.weights, plan.region, fits[0]
    candidates = _candidates(region, plan.sweep.seed)
    chosen = least(region, best, weights, candidates)
    start = np.array([plan.mixtures[0][name] for name in region.groups])
    pair = np.array([start, chosen / region.block])
    draws = quality.redrawn(best, shares_NG, bits, plan.sweep.seed)
    gains = [np.subtract(*weighted(best.law, drawn, weights, pair)) for drawn in draws]
    low, high = (float(value) for value in np.percentile(gains, quality.INTERVAL))
    before, after = best.predict(weights, pair)
    near = _as_good(best.law, draws, weights, candidates / region.block, pair[1:])
    inside = np.vstack([candidates[near], chosen]) / region.block
    baseline = next((trial.objective(weights) for trial in good if trial.number == 0), math.nan)
    told = f"{before - after:.4f} bits per byte ({low:.4f} to {high:.4f}) below the token shares"
    more = "" if low > 0 else " The interval reaches down to no gain at all: the token shares may be as good."
    return Choice(
        by="law",
        shares=region.shares(chosen),
        fits=fits,
        expected=float(after),
        baseline=baseline,
        gain=float(before - after),
        gain_interval=(low, high),
        runner_up={name: (float(c.min()), float(c.max())) for name, c in zip(region.groups, inside.T, strict=True)},
        runner_up_share=float(near.mean()),
        at_edge=_at_edge(region, region.shares(chosen)),
        why=f"{said} By that law the mixture is {told}.{more}",
    )


def _candidates(region: Region, seed: int) -> np.ndarray:
    """Counts [candidates, groups] spread evenly over the region."""
    even = np.full(len(region.groups), 1 / len(region.groups))
    return np.array(list(islice(simplex.mixtures(region, even, len(region.groups), seed), CANDIDATES)))


def least(region: Region, fit: Fit, weights: Mapping[str, float], candidates: np.ndarray) -> np.ndarray:
    """Counts [groups] of the mixture with the least predicted bits: sequences move between groups while it helps."""
    best = candidates[np.argmin(fit.predict(weights, candidates / region.block))]
    moves = np.array([np.eye(len(best), dtype=np.int64)[a] - np.eye(len(best), dtype=np.int64)[b]
                      for a, b in permutations(range(len(best)), 2)])  # fmt: skip
    size = 1 << max(0, region.block.bit_length() - 3)
    while size:
        near = best + size * moves
        near = np.vstack([best, near[((near >= region.least) & (near <= region.most)).all(axis=1)]])
        step = int(np.argmin(fit.predict(weights, near / region.block)))
        best, size = near[step], size if step else size // 2
    return best


def _as_good(
    law: str,
    draws: Sequence[Mapping[str, np.ndarray]],
    weights: Mapping[str, float],
    candidates: np.ndarray,
    chosen: np.ndarray,
) -> np.ndarray:
    """For each candidate whether in more than 5 % of the draws it is as good as the chosen mixture."""
    better = np.zeros(len(candidates))
    for drawn in draws:
        better += weighted(law, drawn, weights, candidates) <= weighted(law, drawn, weights, chosen)
    return better > len(draws) * quality.INTERVAL[0] / 100


def _at_edge(region: Region, shares: Mapping[str, float]) -> tuple[str, ...]:
    counts = [round(shares[name] * region.block) for name in region.groups]
    edges = zip(region.groups, counts, region.least, region.most, strict=True)
    return tuple(name for name, count, low, high in edges if low < high and count in (low, high))
