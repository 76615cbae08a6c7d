"""The data mixing law: L(r) = c + k exp(sum_j t_j r_j) (Ye et al. 2024, "Data Mixing Laws", equation for one domain).

Shares sum to one, so k could be any number and the t_j would make up for it: fitted is c + exp(sum_j s_j r_j), and `k`
and `t` are read off by the rule that the t_j sum to zero. c is what is left where no share helps any more; with trials
that lie close together it is hardly known (linear and exponential look alike there), which the bootstrap shows.

Fit: for fixed c the rest is linear in log(L - c), so a line of values of c gives starts that need no luck; the best of
them are refined by Levenberg's method under Huber's loss on log L, so that one odd trial does not bend the law.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import least_squares

HUBER = 0.01  # of the loss: residuals beyond one percent count by their size, not by its square
STARTS, REFINED = 40, 3  # values of c that are tried, and how many of them are refined
_LEAST = 1e-12


def count(groups: int) -> int:
    """Parameters of the law."""
    return groups + 1


def fit(shares_NG: np.ndarray, losses_N: np.ndarray) -> np.ndarray:
    """[c, s_1, ..., s_G]: c in the unit of the losses, 0 <= c < all of them."""
    found = [refine(start, shares_NG, losses_N) for start in _starts(shares_NG, losses_N)]
    return min(found, key=lambda parameters: cost(parameters, shares_NG, losses_N))


def refine(start: np.ndarray, shares_NG: np.ndarray, losses_N: np.ndarray) -> np.ndarray:
    """The parameters that a start leads to."""
    low = np.full(len(start), -np.inf)
    high = np.full(len(start), np.inf)
    low[0], high[0] = 0.0, max(float(losses_N.min()), 2 * _LEAST)
    return least_squares(
        _residuals, np.clip(start, low, high * (1 - 1e-9)), _slopes, (low, high),
        loss="huber", f_scale=HUBER, x_scale="jac", args=(shares_NG, np.log(losses_N)), max_nfev=200,
    ).x  # fmt: skip


def cost(parameters: np.ndarray, shares_NG: np.ndarray, losses_N: np.ndarray) -> float:
    """Huber's loss of the residuals of log L, summed."""
    size = np.abs(_residuals(parameters, shares_NG, np.log(losses_N)))
    return float(np.where(size <= HUBER, size**2 / 2, HUBER * (size - HUBER / 2)).sum())


def predict(parameters: np.ndarray, shares_NG: np.ndarray) -> np.ndarray:
    """Losses [N], in the unit of those it was fitted to."""
    return parameters[0] + np.exp(np.minimum(shares_NG @ parameters[1:], 50.0))


def named(parameters: np.ndarray) -> tuple[float, float, np.ndarray]:
    """c, k and the t_j of the published form, with t_j that sum to zero."""
    mean = float(parameters[1:].mean())
    return float(parameters[0]), float(np.exp(mean)), parameters[1:] - mean


def _residuals(parameters: np.ndarray, shares_NG: np.ndarray, logs_N: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(predict(parameters, shares_NG), _LEAST)) - logs_N


def _slopes(parameters: np.ndarray, shares_NG: np.ndarray, logs_N: np.ndarray) -> np.ndarray:
    """Derivatives [N, 1 + G] of the residuals."""
    predicted = np.maximum(predict(parameters, shares_NG), _LEAST)
    rising = np.exp(np.minimum(shares_NG @ parameters[1:], 50.0))
    return np.column_stack([1 / predicted, (rising / predicted)[:, None] * shares_NG])


def _starts(shares_NG: np.ndarray, losses_N: np.ndarray) -> list[np.ndarray]:
    """The best few of the laws with c from just below the losses down to zero, each the least squares of log(L - c)."""
    lowest = float(losses_N.min())
    spread = max(float(np.ptp(losses_N)), 1e-6 * lowest)
    gaps = np.geomspace(min(0.02 * spread, 0.5 * lowest), lowest, STARTS)
    above_CN = np.maximum(losses_N[None] - (lowest - gaps)[:, None], _LEAST)
    slopes_CG = np.log(above_CN) @ np.linalg.pinv(shares_NG).T
    laws = [np.concatenate([[max(lowest - gap, 0.0)], slopes]) for gap, slopes in zip(gaps, slopes_CG, strict=True)]
    return sorted(laws, key=lambda parameters: cost(parameters, shares_NG, losses_N))[:REFINED]
