"""A law that is linear in the log of the loss: L(r) = exp(sum_j b_j r_j), over shares r that sum to one.

Least squares on log L: one parameter for each group, no intercept since the shares already sum to one. It is
the first law to try with few trials; by its form no group ever has an interior best share, so what it chooses
stands at bounds.
"""

from __future__ import annotations

import numpy as np

NAME = ("对数线性定律", "log-linear law")


def count(groups: int) -> int:
    """The number of parameters of the law."""
    return groups


def fit(shares_NG: np.ndarray, losses_DN: np.ndarray, kept_DN: np.ndarray) -> np.ndarray:
    """b_j [D, G] for each row of losses, fitted to the kept trials, in nats.

    It is the log of the loss that training on group j alone is taken to end with.
    """
    inverse_DGN = np.linalg.pinv(shares_NG * kept_DN[:, :, None])
    return np.einsum("dgn,dn->dg", inverse_DGN, np.log(losses_DN) * kept_DN)


def predict(parameters: np.ndarray, shares_NG: np.ndarray) -> np.ndarray:
    """Losses [N], in the unit of the fitted losses."""
    return np.exp(shares_NG @ parameters)
