"""Tests whether a sweep shows a gain, and its lower limit. Without evidence, no mixture is called better.

The best of many looks better than it is (the winner's curse), so nothing here looks at the chosen mixture
alone.

- `permutation_p`: could it all be noise? Were the truth flat, runs could stand under any mixture. Values of
  runs are dealt out to the mixtures at random and everything is done again: laws fitted, the best mixture
  sought, its gain over the token shares divided by the noise of the replicates. p is the share of deals that
  look as good (Fisher 1935; with the given one counted, Phipson and Smyth 2010): a flat truth passes at most
  as often as the level says, whatever the laws do.
- `bound_gain`: what a law says for certain. In each draw of a bootstrap the law errs on the gain of each
  candidate; the greatest error of all candidates is what choosing among them can take advantage of (Scheffé
  1953, by simulation). The bound is the predicted gain less a quantile of that, widened by Student's t for
  the mixtures that fitting left over.
- `bound_measured`: tried mixtures against the token shares without any law (Dunnett 1955: many against one
  control).

A choice may rest on the law or on what was measured: two ways of being wrong, so each has half of `LEVEL`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from ctllm_ray.base.resolve import LAWS, load_module
from ctllm_ray.mixture import quality
from ctllm_ray.mixture.quality import Bits, Fit, predict_weighted
from ctllm_ray.mixture.replicates import Noise, Tried

LEVEL = 0.05  # a flat truth claims a gain in at most one of twenty sweeps
EACH = LEVEL / 2  # of the two ways
PERMUTATIONS = 999
DUNNETT_DRAWS = 40_000
_NO_NOISE = 1e-12  # relative to a value: for replicates that agree to the last digit


def permutation_p(
    tried: Sequence[Tried],
    shares_MG: np.ndarray,
    weights: Mapping[str, float],
    candidates_CG: np.ndarray,
    seed: int,
) -> float:
    """How often mixtures without effect look as good. The first of `tried` has the token shares."""
    index_N = np.repeat(np.arange(len(tried)), [len(each.runs) for each in tried])
    runs = [run for each in tried for run in each.runs]
    random = np.random.default_rng(seed)
    order_PN = np.array([np.arange(len(runs)), *(random.permutation(len(runs)) for _ in range(PERMUTATIONS))])
    bits = {
        name: np.array([run.bits[name] for run in runs])[order_PN]
        for name, weight in weights.items()
        if weight
    }
    average_NM = (index_N[:, None] == np.arange(len(tried))) / np.bincount(index_N)
    means = {name: values @ average_NM for name, values in bits.items()}
    values_PN = np.sum([weights[name] * values for name, values in bits.items()], axis=0)
    noise_P = _noise(values_PN, (values_PN @ average_NM)[:, index_N], len(tried))
    laws = quality.fitting(shares_MG)
    gains_P = np.max([_best_gains(law, shares_MG, means, weights, candidates_CG) for law in laws], axis=0)
    looks_P = gains_P / noise_P
    return float((looks_P >= looks_P[0] * (1 - 1e-9)).mean())


def _noise(values_PN: np.ndarray, means_PN: np.ndarray, mixtures: int) -> np.ndarray:
    freedom = values_PN.shape[1] - mixtures
    return np.maximum(
        np.sqrt(((values_PN - means_PN) ** 2).sum(1) / freedom), _NO_NOISE * np.abs(values_PN).mean()
    )


def _best_gains(
    law: str, shares_MG: np.ndarray, means: Bits, weights: Mapping[str, float], candidates_CG: np.ndarray
) -> np.ndarray:
    """The largest predicted gain over the first mixture in each shuffle [P]."""
    deals = len(next(iter(means.values())))
    everyone = np.ones((deals, len(shares_MG)), bool)
    laws = {name: load_module(LAWS, law).fit(shares_MG, values, everyone) for name, values in means.items()}
    shares_CG = np.vstack([shares_MG[:1], candidates_CG])
    kept = {name: weight for name, weight in weights.items() if weight}
    said = (
        predict_weighted(law, {name: laws[name][deal] for name in kept}, kept, shares_CG)
        for deal in range(deals)
    )
    return np.array([values[0] - values[1:].min() for values in said])


def bound_gain(
    fit: Fit, draws: Sequence[Mapping[str, np.ndarray]], weights: Mapping[str, float], asked_CG: np.ndarray
) -> tuple[float, float]:
    """How much a predicted gain may be too high and too low,
    in bits per byte, for all mixtures of `asked_CG` at once.

    Its first row has the token shares, from which gains count.
    """
    said = fit.predict(weights, asked_CG)
    errors = [_gains(predict_weighted(fit.law, drawn, weights, asked_CG)) - _gains(said) for drawn in draws]
    high = np.quantile([error.max() for error in errors], 1 - EACH)
    low = np.quantile([error.min() for error in errors], EACH)
    left = len(fit.left_out) - load_module(LAWS, fit.law).count(asked_CG.shape[1])
    wider = stats.t.ppf(1 - EACH, left) / stats.norm.ppf(1 - EACH)
    return float(max(high, 0.0) * wider), float(max(-low, 0.0) * wider)


def _gains(values_C: np.ndarray) -> np.ndarray:
    return values_C[0] - values_C


def bound_measured(tried: Sequence[Tried], noise: Noise, seed: int) -> np.ndarray:
    """For each mixture the lower limit in bits per byte by which it is below the first, for all at once."""
    means = np.array([each.mean for each in tried])
    runs = np.array([len(each.values) for each in tried])
    if len(tried) < 2:
        return np.array([-math.inf])
    error = noise.deviation * np.sqrt(1 / runs[0] + 1 / runs)
    random = np.random.default_rng(seed)
    drawn = random.normal(size=(DUNNETT_DRAWS, len(tried))) / np.sqrt(runs)
    scale = np.sqrt(random.chisquare(noise.freedom, DUNNETT_DRAWS) / noise.freedom)
    lead = (drawn[:, :1] - drawn[:, 1:]) / np.sqrt(1 / runs[0] + 1 / runs[1:])
    critical = np.quantile(lead.max(1) / scale, 1 - EACH)
    return np.append(-math.inf, (means[0] - means - critical * error)[1:])
