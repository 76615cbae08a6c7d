"""The laws find the parameters that synthetic points were made with, and predict what lies between the
points."""

from __future__ import annotations

from itertools import islice
from types import ModuleType

import numpy as np
import pytest

from ctllm_ray.mixture import simplex
from ctllm_ray.mixture.laws import exponential, regression
from ctllm_ray.mixture.simplex import Region

TRUE_B = np.array([1.3, 1.1, 1.45, 1.2])
TRUE_C, TRUE_K, TRUE_T = 1.9, 0.8, np.array([-1.6, 0.5, 0.3, 0.8])


def fitted(law: ModuleType, shares: np.ndarray, losses: np.ndarray) -> np.ndarray:
    return law.fit(shares, losses[None], np.ones((1, len(losses)), bool))[0]


def points(count: int, groups: int = 4, seed: int = 0) -> np.ndarray:
    region = Region(tuple("abcdefgh"[:groups]), (0,) * groups, (1000,) * groups, 1000)
    found = simplex.mixtures(region, np.full(groups, 1 / groups), float(groups), seed)
    return np.array(list(islice(found, count))) / 1000


def noisy(losses: np.ndarray, share: float, seed: int) -> np.ndarray:
    return losses * np.exp(np.random.default_rng(seed).normal(0, share, len(losses)))


def data_mixing_law(shares: np.ndarray) -> np.ndarray:
    return TRUE_C + TRUE_K * np.exp(shares @ TRUE_T)


def test_the_regression_finds_its_parameters_in_points_without_noise() -> None:
    shares = points(6)
    assert fitted(regression, shares, np.exp(shares @ TRUE_B)) == pytest.approx(TRUE_B, abs=1e-9)


def test_the_regression_finds_its_parameters_in_noisy_points_within_their_standard_errors() -> None:
    shares, noise = points(40), 0.004
    errors = [
        fitted(regression, shares, noisy(np.exp(shares @ TRUE_B), noise, seed)) - TRUE_B for seed in range(50)
    ]
    standard = noise * np.sqrt(np.diag(np.linalg.inv(shares.T @ shares)))
    assert np.std(errors, axis=0) == pytest.approx(standard, rel=0.35)  # of 50 draws: +-10 % at one sigma
    assert np.abs(np.mean(errors, axis=0)).max() < 3 * standard.max() / np.sqrt(50)


@pytest.mark.parametrize("groups", [2, 4, 6])
def test_the_exponential_law_finds_its_parameters_in_points_without_noise(groups: int) -> None:
    true = np.concatenate([[1.5], np.linspace(-1.5, 0.6, groups)])
    shares = points(3 * groups, groups)
    found = fitted(exponential, shares, exponential.predict(true, shares))
    assert found == pytest.approx(true, abs=2e-3)


def test_the_exponential_law_finds_its_parameters_in_noisy_points() -> None:
    shares = points(60)
    found = [
        exponential.published_form(fitted(exponential, shares, noisy(data_mixing_law(shares), 0.002, seed)))
        for seed in range(8)
    ]
    c, k = np.median([one[0] for one in found]), np.median([one[1] for one in found])
    t = np.median([one[2] for one in found], axis=0)
    assert c == pytest.approx(TRUE_C, abs=0.05)
    assert k == pytest.approx(TRUE_K * np.exp(TRUE_T.mean()), abs=0.05)
    assert t == pytest.approx(TRUE_T - TRUE_T.mean(), abs=0.12)


def test_one_odd_trial_does_not_bend_the_exponential_law() -> None:
    shares, between = points(30), points(50, seed=9)
    losses = data_mixing_law(shares)
    losses[4] *= 1.3
    error = np.abs(
        exponential.predict(fitted(exponential, shares, losses), between) / data_mixing_law(between) - 1
    )
    assert error.max() < 0.01


@pytest.mark.parametrize("law", [regression, exponential])
def test_a_law_fitted_to_losses_that_are_all_alike_predicts_that_loss(law: ModuleType) -> None:
    shares = points(8)
    assert law.predict(fitted(law, shares, np.full(8, 2.5)), points(5, seed=1)) == pytest.approx(
        2.5, abs=1e-3
    )


@pytest.mark.parametrize("law", [regression, exponential])
def test_fits_made_together_equal_those_made_alone_and_trials_that_are_not_kept_have_no_part(
    law: ModuleType,
) -> None:
    shares = points(12)
    losses = np.array([noisy(data_mixing_law(shares), 0.002, seed) for seed in range(4)])
    kept = np.ones(losses.shape, bool)
    kept[2, 5] = False
    together = law.fit(shares, losses, kept)
    losses[2, 5] = 99.0
    rest = np.arange(12) != 5
    between = points(20, seed=3)
    for number, (one, row) in enumerate(zip(together, losses, strict=True)):
        alone = fitted(law, shares[rest], row[rest]) if number == 2 else fitted(law, shares, row)
        assert law.predict(one, between) == pytest.approx(law.predict(alone, between), rel=1e-4)


def test_the_published_form_of_a_fit_predicts_the_same() -> None:
    parameters, shares = np.array([1.5, -0.3, 0.2, 0.9]), points(5, 3)
    c, k, t = exponential.published_form(parameters)
    assert t.sum() == pytest.approx(0, abs=1e-12)
    assert c + k * np.exp(shares @ t) == pytest.approx(exponential.predict(parameters, shares))


def test_with_no_more_trials_than_parameters_a_law_still_goes_through_them() -> None:
    shares = points(5)
    losses = data_mixing_law(shares)
    assert exponential.predict(fitted(exponential, shares, losses), shares) == pytest.approx(losses, rel=5e-3)
