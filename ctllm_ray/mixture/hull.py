"""Restricts candidates to mixtures between tried ones. Laws are not used outside.

A law says nothing about mixtures outside the trials, however well it fits them. So candidates are convex
combinations of tried mixtures, which also keeps them within the bounds. They are whole sequences of a block,
so a mixture may lie outside by the rounding of one sequence.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ctllm_ray.mixture import simplex
from ctllm_ray.mixture.simplex import Region

CANDIDATES = 4096
MIXED = 3.0  # sum of the Dirichlet parameters of the weights: a candidate mixes about so many tried mixtures
_SMALLEST_STEP = 2.0**-10


def draw_candidates(region: Region, tried_MG: np.ndarray, seed: int) -> np.ndarray:
    """Shares [candidates, groups] in the hull of tried mixtures, tried ones first, without duplicates."""
    weights = np.random.default_rng(seed).dirichlet(np.full(len(tried_MG), MIXED / len(tried_MG)), CANDIDATES)
    between = _whole(region, weights @ tried_MG)
    _, first = np.unique(np.vstack([tried_MG, between]).round(12), axis=0, return_index=True)
    return np.vstack([tried_MG, between])[np.sort(first)]


def find_least(
    region: Region,
    predict: Callable[[np.ndarray], np.ndarray],
    tried_MG: np.ndarray,
    candidates_CG: np.ndarray,
) -> np.ndarray:
    """The minimum in the hull of a function of shares [N, groups]; returns shares [groups].

    From the best candidate it steps towards tried mixtures, by smaller and smaller steps, while that
    helps (the vertex direction method, Wynn 1970): what it varies are weights of tried mixtures, so
    it never leaves their hull.
    """
    best = candidates_CG[int(np.argmin(predict(candidates_CG)))]
    weights, step = _weights(best, tried_MG), 0.5
    while step >= _SMALLEST_STEP:
        towards = (1 - step) * weights + step * np.eye(len(tried_MG))
        moved = predict(towards @ tried_MG)
        if moved.min() < float(predict((weights @ tried_MG)[None])[0]) - 1e-12:
            weights = towards[int(np.argmin(moved))]
        else:
            step /= 2
    result = np.vstack([_whole(region, (weights @ tried_MG)[None]), best[None]])
    return result[int(np.argmin(predict(result)))]


def _weights(shares_G: np.ndarray, tried_MG: np.ndarray) -> np.ndarray:
    """Non-negative weights [mixtures] that combine tried mixtures to these shares."""
    from scipy.optimize import nnls

    ones = 1e3 * np.ones((1, len(tried_MG)))
    weights, _ = nnls(np.vstack([tried_MG.T, ones]), np.append(shares_G, 1e3))
    return weights / weights.sum()


def _whole(region: Region, shares_NG: np.ndarray) -> np.ndarray:
    return np.array([simplex.whole(region, shares) for shares in shares_NG]) / region.block
