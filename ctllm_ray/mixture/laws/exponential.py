"""The data mixing law: L(r) = c + k exp(sum_j t_j r_j)
(Ye et al. 2024, "Data Mixing Laws", one-domain equation).

Shares sum to one, so k could be any number and the t_j would make up for it: fitted is c + exp(sum_j s_j
r_j), and `k` and `t` are read off by the rule that the t_j sum to zero. c is what is left where no share
helps any more; with trials that lie close together it is hardly known (linear and exponential look alike
there), which the bootstrap shows.

Fit: for fixed c the rest is linear in log(L - c), so a line of values of c gives starts that need no
luck; the best of them are refined by Levenberg and Marquardt's method under Huber's loss on log L, so
that one odd trial does not bend the law. All problems of a bootstrap are refined together, as arrays:
200 fits of 24 trials take a tenth of a second. c keeps between zero and the least loss as a logistic
function of what is varied.
"""

from __future__ import annotations

import numpy as np

NAME = ("指数混合定律", "exponential law")
HUBER = 0.01  # of the loss: residuals beyond one percent count linearly, not squared
STARTS, REFINED = 40, 3  # values of c to try, and how many to refine
ROUNDS = 100
DAMPING = (1e-3, 0.3, 4.0)  # at first, after a successful step, after a failed step
_LEAST, _MOST_EXPONENT = 1e-12, 50.0


def count(groups: int) -> int:
    """The number of parameters of the law."""
    return groups + 1


def fit(shares_NG: np.ndarray, losses_DN: np.ndarray, kept_DN: np.ndarray) -> np.ndarray:
    """[c, s_1, ..., s_G] [D, 1 + G] for each row of losses, fitted to the kept
    trials; c is below all of them."""
    lowest_D = np.where(kept_DN, losses_DN, np.inf).min(axis=1)
    starts = _starts(shares_NG, losses_DN, kept_DN, lowest_D)
    refined = [_refine(start, shares_NG, np.log(losses_DN), kept_DN, lowest_D) for start in starts]
    costs = np.array([cost for _, cost in refined])
    result = np.array([parameters for parameters, _ in refined])
    return result[costs.argmin(axis=0), np.arange(len(losses_DN))]


def predict(parameters: np.ndarray, shares_NG: np.ndarray) -> np.ndarray:
    """Losses [N], in the unit of the fitted losses."""
    return parameters[0] + np.exp(np.minimum(shares_NG @ parameters[1:], _MOST_EXPONENT))


def published_form(parameters: np.ndarray) -> tuple[float, float, np.ndarray]:
    """c, k and the t_j of the published form; the t_j sum to zero."""
    mean = float(parameters[1:].mean())
    return float(parameters[0]), float(np.exp(mean)), parameters[1:] - mean


def _starts(
    shares_NG: np.ndarray, losses_DN: np.ndarray, kept_DN: np.ndarray, lowest_D: np.ndarray
) -> list[np.ndarray]:
    """The best few [D, 1 + G] least-squares laws, with c from just below the losses down to zero."""
    spread_D = np.maximum(np.where(kept_DN, losses_DN, 0.0).max(axis=1) - lowest_D, 1e-6 * lowest_D)
    first_D = np.minimum(0.02 * spread_D, 0.5 * lowest_D)
    weighted_DNG = shares_NG * kept_DN[:, :, None]
    inverse_DGN = np.linalg.pinv(weighted_DNG)
    result, costs = [], []
    for share in np.linspace(0, 1, STARTS):
        c_D = lowest_D - first_D * (lowest_D / first_D) ** share
        above_DN = np.log(np.maximum(losses_DN - c_D[:, None], _LEAST))
        slopes_DG = np.einsum("dgn,dn->dg", inverse_DGN, above_DN * kept_DN)
        result.append(np.column_stack([c_D, slopes_DG]))
        costs.append(_cost(_residuals(result[-1], shares_NG, np.log(losses_DN)), kept_DN))
    order_SD = np.argsort(costs, axis=0)[:REFINED]
    return [np.array(result)[order, np.arange(len(lowest_D))] for order in order_SD]


def _refine(
    start: np.ndarray, shares_NG: np.ndarray, logs_DN: np.ndarray, kept_DN: np.ndarray, lowest_D: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The parameters [D, 1 + G] reached from the starts, and their costs [D]."""
    share = np.clip(start[:, 0] / lowest_D, 1e-9, 1 - 1e-9)
    varied = np.column_stack([np.log(share / (1 - share)), start[:, 1:]])  # the logit of c, then the slopes
    damping = np.full(len(varied), DAMPING[0])
    cost = _cost(_residuals(_parameters(varied, lowest_D), shares_NG, logs_DN), kept_DN)
    for _ in range(ROUNDS):
        step = _step(varied, shares_NG, logs_DN, kept_DN, lowest_D, damping)
        new = _cost(_residuals(_parameters(varied + step, lowest_D), shares_NG, logs_DN), kept_DN)
        helps = new < cost
        settled = np.where(helps, cost - new, 0.0) <= 1e-10 * cost + 1e-18
        varied = np.where(helps[:, None], varied + step, varied)
        cost = np.where(helps, new, cost)
        damping = np.clip(damping * np.where(helps, DAMPING[1], DAMPING[2]), 1e-9, 1e9)
        if np.all(settled & (helps | (damping > 1e6))):
            break
    return _parameters(varied, lowest_D), cost


def _step(
    varied: np.ndarray,
    shares_NG: np.ndarray,
    logs_DN: np.ndarray,
    kept_DN: np.ndarray,
    lowest_D: np.ndarray,
    damping: np.ndarray,
) -> np.ndarray:
    """Marquardt's step [D, 1 + G] on squares weighted to equal Huber's loss."""
    parameters = _parameters(varied, lowest_D)
    residuals = _residuals(parameters, shares_NG, logs_DN)
    weights = kept_DN * np.minimum(1.0, HUBER / np.maximum(np.abs(residuals), _LEAST))
    rising = np.exp(np.minimum(parameters[:, 1:] @ shares_NG.T, _MOST_EXPONENT))
    predicted = parameters[:, :1] + rising
    of_c = (parameters[:, 0] * (1 - parameters[:, 0] / lowest_D))[:, None] / predicted
    slopes = np.concatenate([of_c[:, :, None], (rising / predicted)[:, :, None] * shares_NG], axis=2)
    downhill = -np.einsum("dnp,dn->dp", slopes, weights * residuals)
    squares = np.einsum("dnp,dn,dnq->dpq", slopes, weights, slopes)
    diagonal = np.einsum("dpp->dp", squares)
    squares += np.eye(squares.shape[1]) * (damping[:, None] * diagonal + _LEAST)[:, None, :]
    return np.linalg.solve(squares, downhill[:, :, None])[:, :, 0]


def _parameters(varied: np.ndarray, lowest_D: np.ndarray) -> np.ndarray:
    share = 1 / (1 + np.exp(-np.clip(varied[:, 0], -_MOST_EXPONENT, _MOST_EXPONENT)))
    return np.column_stack([share * lowest_D, varied[:, 1:]])


def _residuals(parameters: np.ndarray, shares_NG: np.ndarray, logs_DN: np.ndarray) -> np.ndarray:
    rising = np.exp(np.minimum(parameters[:, 1:] @ shares_NG.T, _MOST_EXPONENT))
    return np.log(np.maximum(parameters[:, :1] + rising, _LEAST)) - logs_DN


def _cost(residuals_DN: np.ndarray, kept_DN: np.ndarray) -> np.ndarray:
    """Huber's loss [D], summed over the kept trials."""
    size = np.abs(residuals_DN)
    return (kept_DN * np.where(size <= HUBER, size**2 / 2, HUBER * (size - HUBER / 2))).sum(axis=1)
