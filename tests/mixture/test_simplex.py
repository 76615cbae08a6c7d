"""Mixtures to try: every one sums to one and obeys bounds and caps, and the n-th is the same for ever."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from ctllm_ray.base.errors import RecipeError
from ctllm_ray.mixture import simplex
from ctllm_ray.mixture.simplex import Region

NO_CAPS = {"a": 1.0, "b": 1.0, "c": 1.0}
WIDE = {"a": (0.0, 1.0), "b": (0.0, 1.0), "c": (0.0, 1.0)}


def drawn(region: Region, count: int, seed: int = 0, concentration: float = 3.0) -> np.ndarray:
    middle = np.full(len(region.groups), 1 / len(region.groups))
    return np.array(list(islice(simplex.mixtures(region, middle, concentration, seed), count)))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("block", [10, 64, 1000])
def test_every_mixture_sums_to_one_and_obeys_bounds_and_caps(seed: int, block: int) -> None:
    random = np.random.default_rng(seed)
    groups = [f"g{index}" for index in range(random.integers(2, 9))]
    least = random.dirichlet(np.ones(len(groups))) * 0.5
    bounds = {
        name: (low, min(1.0, low + 0.3 + random.random() / 2))
        for name, low in zip(groups, least, strict=True)
    }
    caps = {name: low + 0.3 for name, (low, _) in bounds.items()}
    region = simplex.region(bounds, caps, block)
    middle = random.dirichlet(np.ones(len(groups)))
    for counts in islice(simplex.mixtures(region, middle, 10 ** random.uniform(-1, 3), seed), 200):
        shares = region.shares(counts)
        assert sum(shares.values()) == pytest.approx(1, abs=1e-12)
        for name, share in shares.items():
            assert bounds[name][0] - 1e-9 <= share <= min(bounds[name][1], caps[name]) + 1e-9


def test_the_first_mixtures_are_the_same_however_many_follow_and_another_seed_has_others() -> None:
    region = simplex.region(WIDE, NO_CAPS, 1000)
    assert (drawn(region, 8) == drawn(region, 40)[:8]).all()
    assert not (drawn(region, 8) == drawn(region, 8, seed=1)).any(axis=1).any()


def test_no_mixture_comes_twice_and_a_small_region_ends() -> None:
    region = simplex.region({"a": (0.2, 0.5), "b": (0.0, 1.0)}, NO_CAPS, 10)
    found = drawn(region, 100)
    assert sorted(found[:, 0]) == [2, 3, 4, 5]


def test_within_wide_bounds_the_mixtures_have_mean_and_spread_of_the_dirichlet() -> None:
    region = simplex.region(WIDE, NO_CAPS, 10_000)
    middle = np.array([0.5, 0.3, 0.2])
    found = np.array(list(islice(simplex.mixtures(region, middle, 8.0, 3), 4000))) / region.block
    assert found.mean(axis=0) == pytest.approx(
        middle, abs=2e-3
    )  # 4000 random draws would be off by 2.6e-3 (1 sigma)
    assert found.std(axis=0) == pytest.approx(np.sqrt(middle * (1 - middle) / 9), abs=2e-3)


def test_a_dozen_mixtures_leave_smaller_holes_than_random_draws() -> None:
    region = simplex.region(WIDE, NO_CAPS, 1000)
    ours = [hole(drawn(region, 12, seed) / region.block) for seed in range(30)]
    random = [hole(np.random.default_rng(seed).dirichlet(np.ones(3), 12)) for seed in range(30)]
    assert np.mean(ours) < 0.85 * np.mean(random)


def hole(points: np.ndarray) -> float:
    """The mean distance of a grid's points to the nearest mixture."""
    grid = np.array([(i, j, 40 - i - j) for i in range(41) for j in range(41 - i)]) / 40
    return float(np.linalg.norm(grid[:, None] - points[None], axis=2).min(axis=1).mean())


def test_the_nearest_mixture_is_the_shares_themselves_where_the_bounds_allow_it() -> None:
    region = simplex.region(WIDE, NO_CAPS, 10)
    assert simplex.nearest(region, {"a": 0.5, "b": 0.3, "c": 0.2}).tolist() == [5, 3, 2]
    bounded = simplex.region({"a": (0, 0.4), "b": (0, 1), "c": (0, 1)}, NO_CAPS, 100)
    # a gives up 0.2 of its 0.6; b and c take it in proportion 3 : 1.
    assert simplex.nearest(bounded, {"a": 0.6, "b": 0.3, "c": 0.1}).tolist() == [40, 45, 15]


def test_whole_counts_stay_within_bounds_when_rounding_would_leave_them() -> None:
    region = Region(("a", "b", "c"), (4, 0, 0), (10, 3, 3), 10)
    assert simplex.whole(region, np.array([0.4, 0.3, 0.3])).tolist() == [4, 3, 3]
    assert simplex.whole(region, np.array([0.36, 0.34, 0.30])).tolist() == [4, 3, 3]
    assert simplex.whole(region, np.array([0.94, 0.03, 0.03])).tolist() == [10, 0, 0]


def test_the_temperature_moves_the_middle_from_token_shares_to_all_alike() -> None:
    region = simplex.region(WIDE, NO_CAPS, 10)
    shares = {"a": 0.64, "b": 0.32, "c": 0.04}
    assert simplex.middle(region, shares, 1.0) == pytest.approx([0.64, 0.32, 0.04])
    assert simplex.middle(region, shares, 0.0) == pytest.approx([1 / 3] * 3)
    assert simplex.middle(region, {"a": 0.64, "b": 0.32, "c": 0.04}, 0.5)[2] == pytest.approx(
        0.2 / (1 + 0.32**0.5)
    )


@pytest.mark.parametrize(
    ("bounds", "caps", "says"),
    [
        (
            WIDE,
            {"a": 0.2, "b": 0.2, "c": 0.2},
            r"maximum shares to 0.6 \(3 without the epoch limits of a, b, c\)",
        ),
        ({"a": (0, 0.2), "b": (0, 0.2), "c": (0, 0.5)}, NO_CAPS, r"maximum shares to 0.9\n"),
        ({"a": (0.5, 1), "b": (0.4, 1), "c": (0.2, 1)}, NO_CAPS, "minimum shares sum to 1.1"),
        (
            {"a": (0.3, 1), "b": (0, 1)},
            {"a": 0.1, "b": 1.0},
            "'a' is too small for its bounds.*10.00%.*30.00%",
        ),
        (
            {"a": (0.01, 0.012), "b": (0, 1)},
            {"a": 1.0, "b": 1.0},
            "no share of 'a' within its bounds is a whole number of 10 sequences",
        ),
    ],
)
def test_bounds_and_caps_that_leave_no_mixture_say_which(bounds: dict, caps: dict, says: str) -> None:
    with pytest.raises(RecipeError, match=says) as caught:
        simplex.region(bounds, caps, 10)
    assert caught.value.remedy
