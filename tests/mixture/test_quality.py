"""How far a law is trusted: hand-worked rank correlations, predictions without the trial, honest
intervals."""

from __future__ import annotations

import math
from itertools import islice

import numpy as np
import pytest

from ctllm_ray.mixture import quality, simplex
from ctllm_ray.mixture.laws import regression
from ctllm_ray.mixture.quality import Fit
from ctllm_ray.mixture.simplex import Region


def points(count: int, groups: int = 3, seed: int = 0) -> np.ndarray:
    region = Region(tuple("abcdefgh"[:groups]), (0,) * groups, (1000,) * groups, 1000)
    return (
        np.array(
            list(islice(simplex.mixtures(region, np.full(groups, 1 / groups), float(groups), seed), count))
        )
        / 1000
    )


def losses(shares: np.ndarray, slopes: list[float], noise: float = 0.0, seed: int = 0) -> np.ndarray:
    return np.exp(shares @ np.array(slopes) + np.random.default_rng(seed).normal(0, noise, len(shares)))


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([1, 2, 3, 4], [10, 20, 30, 40], 1.0),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        ([1, 2, 3, 4], [2, 1, 4, 3], 0.6),  # 1 - 6 * (1 + 1 + 1 + 1) / (4 * 15)
        ([1, 2, 3, 4, 5], [5, 1, 2, 3, 4], 0.0),  # 1 - 6 * (16 + 4) / (5 * 24)
        (
            [1, 2, 2, 4],
            [1, 2, 3, 4],
            3 / np.sqrt(10),
        ),  # ranks 1, 2.5, 2.5, 4: covariance 4.5, variances 4.5 and 5
        ([1, 1, 1], [1, 2, 3], 0.0),  # no order at all
    ],
)
def test_the_rank_correlation_of_hand_worked_cases(a: list[float], b: list[float], expected: float) -> None:
    assert quality.spearman(np.array(a, float), np.array(b, float)) == pytest.approx(expected)


def test_its_interval_holds_it_and_narrows_with_more_trials() -> None:
    draw = np.random.default_rng(0)
    widths = []
    for count in (12, 120):
        a = draw.normal(size=count)
        b = a + draw.normal(size=count)
        low, high = quality.spearman_interval(a, b, 1)
        assert low < quality.spearman(a, b) < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


def test_its_interval_is_no_point_where_a_handful_stand_in_order_by_less_than_the_noise() -> None:
    said, measured = np.arange(5.0), 0.01 * np.arange(5.0)
    assert quality.spearman_interval(said, measured, 1) == (1.0, 1.0)
    low, high = quality.spearman_interval(said, measured, 1, noise_bits=0.02)
    assert low < 0 < high


def test_predictions_are_no_surer_than_the_noise_of_replicates() -> None:
    shares = points(16)
    bits = {"web": losses(shares, [0.2, 0.6, 1.0], 1e-4)}
    [fit] = [each for each in quality.fits(shares, bits, {"web": 1.0}, 0) if each.law == "regression"]
    spreads = [
        np.std([drawn["web"][0] for drawn in quality.redraw_parameters(fit, shares, bits, 0, {"web": noise})])
        for noise in (0.0, 0.01)
    ]
    assert spreads[1] > 20 * spreads[0]


def test_a_left_out_trial_has_no_part_in_its_own_prediction() -> None:
    shares = points(8)
    bits = {"web": losses(shares, [0.2, 0.6, 1.0])}
    said = quality.left_out_predictions("regression", shares, bits, {"web": 1.0})
    assert said == pytest.approx(bits["web"])
    odd = {"web": bits["web"].copy()}
    odd["web"][3] *= 2
    assert quality.left_out_predictions("regression", shares, odd, {"web": 1.0})[3] == pytest.approx(
        bits["web"][3]
    )


def test_the_law_that_made_the_points_is_the_better_one() -> None:
    shares = points(24)
    curved = {"web": 2 + np.exp(shares @ np.array([-4.0, 1.0, 1.2]))}
    assert [fit.law for fit in quality.fits(shares, curved, {"web": 1.0}, 0)] == ["exponential", "regression"]


@pytest.mark.parametrize(("trials", "laws"), [(2, 0), (3, 0), (4, 1), (5, 2)])
def test_a_law_needs_more_trials_than_parameters(trials: int, laws: int) -> None:
    shares = points(trials)
    assert len(quality.fits(shares, {"web": losses(shares, [0.2, 0.6, 1.0])}, {"web": 1.0}, 0)) == laws


def test_groups_without_weight_have_no_part_in_the_objective() -> None:
    shares = points(10)
    bits = {"web": losses(shares, [0.2, 0.6, 1.0]), "law": losses(shares, [3.0, 0.1, 0.1])}
    weights = {"web": 1.0, "law": 0.0}
    fit = quality.fits(shares, bits, weights, 0)[0]
    assert fit.predict(weights, shares) == pytest.approx(bits["web"], rel=1e-3)
    assert set(fit.parameters) == {"web", "law"}


def test_the_interval_of_a_prediction_holds_the_truth_about_nine_times_of_ten() -> None:
    shares, noise, slopes = points(16), 0.01, [0.2, 0.6, 1.0]
    at = points(1, seed=5)
    truth = float(losses(at, slopes)[0])
    inside = 0
    for seed in range(100):
        bits = {"web": losses(shares, slopes, noise, seed)}
        parameters = {"web": regression.fit(shares, bits["web"][None], np.ones((1, 16), bool))[0]}
        fit = Fit("regression", parameters, np.empty(0), math.nan, (math.nan, math.nan), math.nan)
        said = [
            regression.predict(drawn["web"], at)[0]
            for drawn in quality.redraw_parameters(fit, shares, bits, seed, {"web": 0.0})
        ]
        low, high = np.percentile(said, quality.INTERVAL)
        inside += low <= truth <= high
    assert (
        80 <= inside <= 98
    )  # of 100 draws at 0.9: 3 at one sigma; a bootstrap of few points runs a little narrow
