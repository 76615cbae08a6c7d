"""The spike detector: planted spikes are found, falling and noisy curves are left alone, resuming changes
nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ctllm_ray.base.errors import Diverged
from ctllm_ray.base.recipe_training import Spikes
from ctllm_ray.train.losses.loss_spikes import LEAST_DEVIATION, MOST_IN_A_ROW, Detector, in_a_row

NAN = float("nan")


def run(losses: list[float], detector: Detector) -> list[int]:
    """Indices of the flagged losses; flagged ones are passed over."""
    found = []
    for index, loss in enumerate(losses):
        if detector.is_spike(loss):
            found.append(index)
            detector.passed_over()
        else:
            detector.add(loss)
    return found


def falling(seed: int, steps: int, noise: float) -> list[float]:
    """A loss curve from 10 towards 3 nats with normal noise."""
    curve = 3 + 7 * (1 + np.arange(steps) / 20) ** -0.7
    return (curve + np.random.default_rng(seed).normal(0, noise, steps)).tolist()


def test_the_bound_is_the_median_plus_deviations_of_the_noise_between_neighbours() -> None:
    detector = Detector(Spikes(deviations=2, window_steps=8), [3, 5, 4, 4, 100, 3, 5, 3])
    # sorted 3 3 3 4 4 5 5 100: median 4; differences 2 1 0 96 97 2 2, their median 2; 4 + 2 x 1.4826 x 2 /
    # sqrt(2)
    assert detector.bound == pytest.approx(8.1934, abs=1e-4)
    assert detector.is_spike(8.1935)
    assert not detector.is_spike(8.1933)


@pytest.mark.parametrize("noise", [0.01, 0.05, 0.2])
def test_a_falling_curve_with_noise_is_never_flagged_at_six_deviations(noise: float) -> None:
    for seed in range(10):
        assert run(falling(seed, 1000, noise), Detector(Spikes())) == []


@pytest.mark.parametrize("at", [70, 200, 900])
def test_a_planted_spike_is_flagged_and_nothing_else(at: int) -> None:
    losses = falling(3, 1000, 0.05)
    losses[at] += 1.5
    assert run(losses, Detector(Spikes())) == [at]


def test_nothing_finite_is_judged_before_half_of_the_window() -> None:
    assert run([3.0] * 7 + [50.0], Detector(Spikes(window_steps=8))) == []
    assert run([3.0] * 8 + [50.0], Detector(Spikes(window_steps=8))) == [8]
    assert run([3.0] * 63 + [50.0], Detector(Spikes())) == []
    assert run([3.0] * 64 + [50.0], Detector(Spikes())) == [64]


@pytest.mark.parametrize("loss", [NAN, math.inf, -math.inf])
def test_what_is_not_finite_is_a_spike_from_the_first_batch_and_never_enters_the_window(loss: float) -> None:
    detector = Detector(Spikes())
    assert detector.is_spike(loss)
    detector.add(loss)
    assert detector.recent == ()


def test_losses_that_hardly_vary_have_a_least_deviation() -> None:
    detector = Detector(Spikes(deviations=6), [0.5] * 128)
    assert detector.bound == pytest.approx(0.5 + 6 * LEAST_DEVIATION)


def test_the_window_forgets_the_oldest() -> None:
    detector = Detector(Spikes(window_steps=8))
    run([float(i) for i in range(20, 0, -1)], detector)
    assert detector.recent == (8, 7, 6, 5, 4, 3, 2, 1)


def test_going_on_from_the_saved_window_equals_never_stopping() -> None:
    losses = falling(5, 400, 0.1)
    losses[250] += 3
    whole = Detector(Spikes(window_steps=32))
    found = run(losses, whole)
    first = Detector(Spikes(window_steps=32))
    before = run(losses[:251], first)
    second = Detector(Spikes(window_steps=32), first.recent, in_a_row([250], 251))
    assert before + [251 + i for i in run(losses[251:], second)] == found == [250]
    assert second.recent == whole.recent


def test_a_level_that_stays_high_is_learnt_after_eight_batches() -> None:
    noise = np.random.default_rng(0).normal(0, 0.02, 400)
    losses = [*(3 + noise[:200]), *(4 + noise[200:])]  # a harder mixture begins at 200
    assert run(losses, Detector(Spikes())) == list(range(200, 200 + MOST_IN_A_ROW))


def test_a_loss_that_stays_nan_is_an_error_with_a_remedy() -> None:
    with pytest.raises(Diverged, match="9 batches in a row"):
        run([3.0] * 64 + [NAN] * 20, Detector(Spikes()))


def test_batches_in_a_row_are_counted_back_from_the_cursor() -> None:
    assert in_a_row([], 5) == 0
    assert in_a_row([2, 3, 4], 5) == 3
    assert in_a_row([1, 4], 5) == 1
    assert in_a_row([3], 5) == 0
    assert in_a_row([0], 1) == 1
