"""Chooses the mixture to train with, and explains why; lists
others that are as good, or finds no basis for a choice.

A law chooses where it orders mixtures that it has not seen, what it sees is not noise, and its gain over the
token shares is above zero at the least; the best measured mixture is taken where its lead is above zero at
the least (both in evidence.py). Else there is nothing to choose by, and the token shares stay. A chosen
mixture lies between tried ones (hull.py): laws are not trusted beyond.

The runner-up region are the mixtures that the law cannot tell from the chosen one: in more than 5 % of the
bootstrap's draws they are as good.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ctllm_ray.mixture import evidence, hull, quality
from ctllm_ray.mixture.plan import SweepPlan
from ctllm_ray.mixture.quality import Fit, predict_weighted
from ctllm_ray.mixture.replicates import UNKNOWN, Noise, Tried, gather_runs, pool_noise
from ctllm_ray.mixture.results import Trial

#: A law may choose from this rank correlation on, if its interval is above zero. At about this point the
#: better of two mixtures is picked three times of four (Kendall's tau near 0.5).
LEAST_RANK_CORRELATION = 0.7
SOUGHT = 512  # candidates in which each shuffle of the permutation test searches its best

#: Why no choice is possible; the texts are in report/words.py.
Reason = Literal[
    "", "none_finished", "no_baseline", "no_replicates", "too_few", "no_order", "noise", "no_gain"
]


@dataclass(frozen=True)
class Choice:
    """The mixture to train with. Gains are bits per byte below the token shares; NaN if unknown."""

    by: Literal["law", "best_trial", "token_shares"]
    shares: dict[str, float]
    why: str
    reason: Reason = ""  # reason for keeping token_shares
    fits: tuple[Fit, ...] = ()  # the better one first
    noise: Noise = UNKNOWN  # of one run
    expected: float = math.nan  # weighted bits per byte at the size of the trials
    baseline: float = math.nan  # the same for the token shares, measured
    gain: float = math.nan
    gain_interval: tuple[float, float] = (math.nan, math.nan)  # lower and upper limit, 97.5 % each
    p: float = math.nan  # how often mixtures without effect look as good to the laws; NaN: not tested
    runner_up: Mapping[str, tuple[float, float]] = field(
        default_factory=dict
    )  # minimum and maximum share of each group there
    runner_up_share: float = math.nan  # share of all mixtures between tried ones
    at_edge: tuple[str, ...] = ()  # groups whose share is the minimum or maximum that was tried
    number: int = 0  # the tried mixture that was chosen, if no law chose


@dataclass(frozen=True)
class LawSample:
    """The results of a sweep: one row per mixture whose runs all finished, token shares first."""

    tried: list[Tried]
    shares_MG: np.ndarray
    bits: dict[str, np.ndarray]  # means over runs [M], by held-out group
    noise: Noise
    noise_nats: dict[str, float]  # of the log of these means, by held-out group


def choose(plan: SweepPlan, trials: Sequence[Trial]) -> Choice:
    """The mixture that the trials support. Mixtures with a diverged run are left out and reported."""
    weights = plan.sweep.weights
    tried = gather_runs(trials, weights)
    diverged = len({trial.number for trial in trials} - {each.number for each in tried})
    count_text = f"{len(tried)} mixtures" + (f" ({diverged} more diverged)" if diverged else "")
    if not tried:
        return _nothing(plan, "none_finished", f"no trial finished ({diverged} diverged)")
    if tried[0].number != 0:
        return _nothing(plan, "no_baseline", f"the token shares diverged, so {count_text} have no baseline")
    sample = _sample(plan, tried)
    fits = tuple(
        quality.fits(sample.shares_MG, sample.bits, weights, plan.sweep.seed, sample.noise.of_means(tried))
    )
    if not sample.noise.freedom:
        why = "no mixture ran twice, so the noise is unknown; set sweep.replicates=2 or more and run it again"
        return _nothing(plan, "no_replicates", why, sample, fits)
    by_law = _by_law(plan, sample, fits, count_text)
    return by_law if by_law.by == "law" else _best_measured(plan, sample, fits, by_law.p) or by_law


def is_good(fit: Fit) -> bool:
    """True if a law orders unseen mixtures well enough to choose by."""
    return fit.rank_correlation >= LEAST_RANK_CORRELATION and fit.interval[0] > 0


def _sample(plan: SweepPlan, tried: list[Tried]) -> LawSample:
    noises = {
        domain: pool_noise([[math.log(run.bits[domain]) for run in each.runs] for each in tried])
        for domain in plan.domains
    }
    return LawSample(
        tried,
        np.array([[each.shares[name] for name in plan.region.groups] for each in tried]),
        {domain: np.array([each.bits[domain] for each in tried]) for domain in plan.domains},
        pool_noise([each.values for each in tried]),
        {domain: noise.of_means(tried) for domain, noise in noises.items()},
    )


def _nothing(
    plan: SweepPlan,
    reason: Reason,
    why: str,
    sample: LawSample | None = None,
    fits: tuple[Fit, ...] = (),
    p: float = math.nan,
) -> Choice:
    """The token shares, because nothing supports another mixture."""
    measured = sample.tried[0].mean if sample else math.nan
    return Choice(
        by="token_shares",
        shares=dict(plan.mixtures[0]),
        why=f"No basis for a choice: {why}. The token shares stay.",
        reason=reason,
        fits=fits,
        noise=sample.noise if sample else UNKNOWN,
        expected=measured,
        baseline=measured,
        gain=0.0 if sample else math.nan,
        p=p,
    )


def _by_law(plan: SweepPlan, sample: LawSample, fits: tuple[Fit, ...], count_text: str) -> Choice:
    """The mixture that the better law chooses, or why no law may choose."""
    if not fits:
        return _nothing(plan, "too_few", f"{count_text} are too few to fit and test a law", sample, fits)
    weights, best = plan.sweep.weights, fits[0]
    order = (
        f"of {count_text}, each predicted by the {best.law} law from the others, the order has a "
        f"rank correlation of {best.rank_correlation:.2f} (90 % interval "
        f"{best.interval[0]:.2f} to {best.interval[1]:.2f})"
    )
    if not is_good(best):
        why = f"{order}; required are {LEAST_RANK_CORRELATION:g} and an interval above 0"
        return _nothing(plan, "no_order", why, sample, fits)
    candidates = hull.draw_candidates(plan.region, sample.shares_MG, plan.sweep.seed)
    some = candidates[:SOUGHT]
    p = evidence.permutation_p(sample.tried, sample.shares_MG, weights, some, plan.sweep.seed)
    if p > evidence.EACH:
        most = f"at most {evidence.EACH:.1%} is allowed"
        why = f"{order}, but randomly shuffled results look as good in {p:.1%} of the shuffles ({most})"
        return _nothing(plan, "noise", why, sample, fits, p)
    return _choose_by_law(plan, sample, fits, candidates, order, p)


def _choose_by_law(
    plan: SweepPlan, sample: LawSample, fits: tuple[Fit, ...], candidates_CG: np.ndarray, order: str, p: float
) -> Choice:
    """The mixture with the lowest bits by the better law, if its gain is certain."""
    weights, best = plan.sweep.weights, fits[0]
    chosen = hull.find_least(
        plan.region, lambda shares: best.predict(weights, shares), sample.shares_MG, candidates_CG
    )
    shares_CG = np.vstack([sample.shares_MG[:1], candidates_CG, chosen])
    draws = quality.redraw_parameters(best, sample.shares_MG, sample.bits, plan.sweep.seed, sample.noise_nats)
    too_high, too_low = evidence.bound_gain(best, draws, weights, shares_CG)
    before, after = best.predict(weights, shares_CG[[0, -1]])
    gain = float(before - after)
    low, high = gain - too_high, gain + too_low
    if low <= 0:
        why = (
            f"{order}, but the gain of the best mixture, {gain:.4f} bits, may be zero (lower limit {low:.4f})"
        )
        return _nothing(plan, "no_gain", why, sample, fits, p)
    near = _as_good(best.law, draws, weights, candidates_CG, chosen[None])
    inside = np.vstack([candidates_CG[near], chosen])
    return Choice(
        by="law",
        shares=dict(zip(plan.region.groups, map(float, chosen), strict=True)),
        why=f"{order[0].upper()}{order[1:]}: good enough to choose by. By that law the mixture "
        f"is {gain:.4f} bits per byte below the token shares (lower limit {low:.4f}).",
        fits=fits,
        noise=sample.noise,
        expected=float(after),
        baseline=sample.tried[0].mean,
        gain=gain,
        gain_interval=(low, high),
        p=p,
        runner_up={
            name: (float(of.min()), float(of.max()))
            for name, of in zip(plan.region.groups, inside.T, strict=True)
        },
        runner_up_share=float(near.mean()),
        at_edge=_at_edge(plan, sample.shares_MG, chosen),
    )


def _best_measured(plan: SweepPlan, sample: LawSample, fits: tuple[Fit, ...], p: float) -> Choice | None:
    """The tried mixture with the most certain lead over the token shares; None if no lead is certain."""
    least = evidence.bound_measured(sample.tried, sample.noise, plan.sweep.seed)
    at = int(np.argmax(least))
    if least[at] <= 0:
        return None
    best, first = sample.tried[at], sample.tried[0]
    gain = first.mean - best.mean
    return Choice(
        by="best_trial",
        shares=dict(best.shares),
        why=f"No law is good enough to choose by. Chosen is mixture {best.number}, measured "
        f"{gain:.4f} bits per byte below the token shares (lower limit {least[at]:.4f}, as "
        f"the best of {len(sample.tried)}).",
        fits=fits,
        noise=sample.noise,
        expected=best.mean,
        baseline=first.mean,
        gain=gain,
        gain_interval=(float(least[at]), math.nan),
        p=p,
        at_edge=_at_edge(plan, sample.shares_MG, sample.shares_MG[at]),
        number=best.number,
    )


def _as_good(
    law: str,
    draws: Sequence[Mapping[str, np.ndarray]],
    weights: Mapping[str, float],
    candidates_CG: np.ndarray,
    chosen: np.ndarray,
) -> np.ndarray:
    """For each candidate: whether it is as good as the chosen mixture in more than 5 % of the draws."""
    better = np.zeros(len(candidates_CG))
    for drawn in draws:
        better += predict_weighted(law, drawn, weights, candidates_CG) <= predict_weighted(
            law, drawn, weights, chosen
        )
    return better > len(draws) * quality.INTERVAL[0] / 100


def _at_edge(plan: SweepPlan, tried_MG: np.ndarray, chosen_G: np.ndarray) -> tuple[str, ...]:
    """Groups whose share is within a sequence of the tried minimum or maximum:
    mixtures beyond may be better."""
    low, high, one = tried_MG.min(0), tried_MG.max(0), 0.5 / plan.region.block
    edges = zip(plan.region.groups, chosen_G, low, high, strict=True)
    return tuple(
        name for name, share, least, most in edges if least < most and not least + one < share < most - one
    )
