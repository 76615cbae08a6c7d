"""Measures how far a law can be trusted: its predictions for mixtures it was not fitted to, and its noise.

Each mixture is predicted by a law fitted to the others. Spearman's rank correlation compares the predicted
order with the measured order: choosing needs the order, not the values. Its interval is a bootstrap over
mixtures with measurements redrawn from the noise of their replicates; without that noise, a few mixtures in
the right order by luck would look certain. Of two laws, the one with smaller prediction errors is better:
with a dozen mixtures both may have a perfect order, and in simulations this criterion chose slightly better.
A bootstrap over residuals gives the uncertainty of predictions. The mixtures stay fixed, since they were
designed. Residuals of whole mixtures are redrawn for all held-out groups together, since errors of one
mixture are correlated. Residuals are widened by sqrt(n / (n - p)) for the p fitted parameters, and at least
to the noise of the replicates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from ctllm_ray.base.resolve import LAWS, load_module, module_names

DRAWS, ORDER_DRAWS = 400, 2000  # bootstrap draws of a law, and of a rank correlation
INTERVAL = (5.0, 95.0)  # percentiles of a 90 % interval

#: Losses [N] in bits per byte by held-out group.
Bits = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Fit:
    """A law fitted to all trials. Values [N] are weighted bits per byte; `left_out` comes
    from fits without each trial."""

    law: str
    parameters: dict[str, np.ndarray]  # by held-out group
    left_out: np.ndarray
    rank_correlation: float
    interval: tuple[float, float]
    error_bits: float  # mean distance between `left_out` and the measurement

    def predict(self, weights: Mapping[str, float], shares_NG: np.ndarray) -> np.ndarray:
        """Weighted bits per byte [N]."""
        return predict_weighted(self.law, self.parameters, weights, shares_NG)


def fits(
    shares_NG: np.ndarray, bits: Bits, weights: Mapping[str, float], seed: int, noise_bits: float = 0.0
) -> list[Fit]:
    """Fits each law that has enough mixtures to leave one
    out. The law with smaller left-out errors comes first.

    `noise_bits`: standard deviation of a measured value, weighted bits per byte.
    """
    return sorted(
        (_fit_law(name, shares_NG, bits, weights, seed, noise_bits) for name in fitting(shares_NG)),
        key=lambda fit: fit.error_bits,
    )


def fitting(shares_NG: np.ndarray) -> list[str]:
    """The laws with enough mixtures to leave one out."""
    trials, groups = shares_NG.shape
    return [name for name in module_names(LAWS) if trials > max(2, load_module(LAWS, name).count(groups))]


def _fit_law(
    name: str, shares_NG: np.ndarray, bits: Bits, weights: Mapping[str, float], seed: int, noise_bits: float
) -> Fit:
    law = load_module(LAWS, name)
    everyone = np.ones((1, len(shares_NG)), bool)
    parameters = {domain: law.fit(shares_NG, losses[None], everyone)[0] for domain, losses in bits.items()}
    left_out = left_out_predictions(name, shares_NG, bits, weights)
    measured = sum_of(bits, weights)
    return Fit(
        law=name,
        parameters=parameters,
        left_out=left_out,
        rank_correlation=spearman(left_out, measured),
        interval=spearman_interval(left_out, measured, seed, noise_bits),
        error_bits=float(np.abs(left_out - measured).mean()),
    )


def left_out_predictions(
    law: str, shares_NG: np.ndarray, bits: Bits, weights: Mapping[str, float]
) -> np.ndarray:
    """Weighted bits per byte [N] of each trial, predicted by a law fitted to the others."""
    trials = len(shares_NG)
    others = ~np.eye(trials, dtype=bool)
    laws = {
        domain: load_module(LAWS, law).fit(shares_NG, np.tile(bits[domain], (trials, 1)), others)
        for domain, weight in weights.items()
        if weight
    }
    each = ({domain: parameters[out] for domain, parameters in laws.items()} for out in range(trials))
    return np.array(
        [predict_weighted(law, own, weights, shares_NG[[out]])[0] for out, own in enumerate(each)]
    )


def predict_weighted(
    law: str, parameters: Mapping[str, np.ndarray], weights: Mapping[str, float], shares_NG: np.ndarray
) -> np.ndarray:
    """Predicted bits per byte [N], weighted over held-out groups."""
    predict: Callable[[np.ndarray, np.ndarray], np.ndarray] = load_module(LAWS, law).predict
    return np.sum([w * predict(parameters[d], shares_NG) for d, w in weights.items() if w], axis=0)


def sum_of(bits: Bits, weights: Mapping[str, float]) -> np.ndarray:
    """Measured bits per byte [N], weighted over held-out groups."""
    return np.sum([weight * bits[domain] for domain, weight in weights.items() if weight], axis=0)


def redraw_parameters(
    fit: Fit, shares_NG: np.ndarray, bits: Bits, seed: int, noise_nats: Mapping[str, float]
) -> list[dict[str, np.ndarray]]:
    """Parameters by held-out group, for the law fitted to each of `DRAWS` draws of the residuals.

    `noise_nats`: the standard deviation of log `bits` by
    replicates; residuals are drawn as wide as that at least.
    """
    law, trials = load_module(LAWS, fit.law), len(shares_NG)
    wider = np.sqrt(trials / (trials - law.count(shares_NG.shape[1])))
    fitted = {domain: law.predict(parameters, shares_NG) for domain, parameters in fit.parameters.items()}
    residuals = {domain: np.log(bits[domain] / values) for domain, values in fitted.items()}
    residuals = {
        domain: _widen_residuals((values - values.mean()) * wider, noise_nats[domain])
        for domain, values in residuals.items()
    }
    drawn_DN = np.random.default_rng(seed).integers(trials, size=(DRAWS, trials))
    everyone = np.ones((DRAWS, trials), bool)
    laws = {
        domain: law.fit(shares_NG, fitted[domain] * np.exp(residuals[domain][drawn_DN]), everyone)
        for domain in fitted
    }
    return [{domain: parameters[draw] for domain, parameters in laws.items()} for draw in range(DRAWS)]


def _widen_residuals(residuals_N: np.ndarray, least: float) -> np.ndarray:
    """The residuals, scaled to a standard deviation of at least `least`."""
    deviation = float(residuals_N.std())
    return residuals_N * (least / deviation) if 0 < deviation < least else residuals_N


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation, -1 to 1. Ties share their mean rank; 0 if one side is constant."""
    return float(_spearman_rows(a[None], b[None])[0])


def _spearman_rows(a_DN: np.ndarray, b_DN: np.ndarray) -> np.ndarray:
    """The rank correlation of each row [D]."""
    ranks = (rankdata(values, axis=1) for values in (a_DN, b_DN))
    a, b = (values - values.mean(axis=1, keepdims=True) for values in ranks)
    size = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return np.divide((a * b).sum(axis=1), size, out=np.zeros(len(size)), where=size > 0)


def spearman_interval(
    said: np.ndarray, measured: np.ndarray, seed: int, noise_bits: float = 0.0
) -> tuple[float, float]:
    """The 90 % interval of the rank correlation, by a bootstrap over pairs with redrawn measurements."""
    random = np.random.default_rng(seed)
    drawn = random.integers(len(said), size=(ORDER_DRAWS, len(said)))
    again = measured + random.normal(0, noise_bits, drawn.shape)
    result = _spearman_rows(said[drawn], np.take_along_axis(again, drawn, axis=1))
    low, high = np.percentile(result, INTERVAL)
    return float(low), float(high)
