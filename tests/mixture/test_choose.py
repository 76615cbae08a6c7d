"""Which mixture is chosen: the law's where it can be trusted, what was measured where that is sure, else
none."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy.optimize import nnls

from ctllm_ray.base import recipe as recipes
from ctllm_ray.mixture import choose, hull, plan
from ctllm_ray.mixture.plan import SweepPlan
from ctllm_ray.mixture.quality import Fit
from ctllm_ray.mixture.report import outcome
from ctllm_ray.mixture.results import Trial
from ctllm_ray.mixture.simplex import Region
from tests.mixture import small_sweeps as small

#: Bits per byte of a group fall with its own share and a little with that of books.
SLOPES = {"books": [-1.2, 0.3, 0.3], "law": [0.1, -1.5, 0.2], "web": [0.0, 0.2, -0.9]}
FLOORS = {"books": 2.2, "law": 1.8, "web": 2.6}


@pytest.mark.parametrize(
    ("correlation", "interval", "good"),
    [(0.9, (0.1, 1.0), True), (0.9, (-0.1, 1.0), False), (0.9, (0.0, 1.0), False), (0.69, (0.1, 0.9), False)],
)
def test_a_law_is_good_enough_where_it_orders_well_and_its_interval_lies_above_zero(
    correlation: float, interval: tuple[float, float], good: bool
) -> None:
    fit = Fit("regression", {}, np.empty(0), correlation, interval, 0.0)
    assert choose.is_good(fit) == good


def planned(root: Path, trials: int = 24, **sweep: Any) -> SweepPlan:
    return plan.plan_sweep(small.recipe(root, {"trials": trials} | sweep, block_sequences=64))


def true_bits(shares: Mapping[str, float]) -> dict[str, float]:
    values = np.array([shares[name] for name in ("books", "law", "web")])
    return {name: FLOORS[name] + math.exp(float(values @ np.array(SLOPES[name]))) for name in SLOPES}


def flat_bits(shares: Mapping[str, float]) -> dict[str, float]:
    return dict.fromkeys(SLOPES, 3.0)


def peaked_bits(shares: Mapping[str, float]) -> dict[str, float]:
    """The best mixture stands inside: each group's bits fall steeply with its own share alone."""
    return {name: 2 + math.exp(-3 * share) for name, share in shares.items()}


def measured(
    of: SweepPlan,
    noise: float,
    seed: int = 0,
    truth: Callable[[Mapping[str, float]], dict[str, float]] = true_bits,
) -> list[Trial]:
    """All runs: a seed moves all held-out groups together by `noise` of their bits, and each by a third of
    that."""
    draw = np.random.default_rng(seed)
    trials = []
    for number, replicate in of.runs:
        together = draw.normal(0, noise)
        bits = {
            name: value * math.exp(together + draw.normal(0, noise / 3))
            for name, value in truth(of.mixtures[number]).items()
        }
        trials.append(small.trial(number, of.mixtures[number], bits, replicate=replicate))
    return trials


def objective(of: SweepPlan, shares: Mapping[str, float]) -> float:
    return sum(weight * true_bits(shares)[name] for name, weight in of.sweep.weights.items())


def test_a_good_law_chooses_a_mixture_next_to_the_best_between_those_tried(tmp_path: Path) -> None:
    of = planned(tmp_path)
    chosen = choose.choose(of, measured(of, 0.002))
    best = min(objective(of, mixture) for mixture in of.mixtures)
    assert chosen.by == "law"
    assert "good enough to choose by." in chosen.why
    assert objective(of, chosen.shares) <= best + 0.002
    assert objective(of, chosen.shares) < objective(of, of.mixtures[0]) - 0.02
    true_gain = objective(of, of.mixtures[0]) - objective(of, chosen.shares)
    assert chosen.gain_interval[0] < true_gain < chosen.gain_interval[1]


@pytest.mark.parametrize("seed", range(8))
def test_the_chosen_mixture_lies_between_tried_ones_and_in_its_own_region(tmp_path: Path, seed: int) -> None:
    bounds = {"books": [0.1, 0.5], "law": [0.0, 0.2], "web": [0.3, 0.8]}
    of = planned(tmp_path, trials=12, bounds=bounds)
    chosen = choose.choose(of, measured(of, 0.01, seed, peaked_bits))
    tried = np.array([list(mixture.values()) for mixture in of.mixtures])
    _, rest = nnls(np.vstack([tried.T, np.ones(12)]), [*chosen.shares.values(), 1.0])
    assert rest < 1 / of.region.block  # rounding to whole sequences
    assert sum(chosen.shares.values()) == pytest.approx(1)
    for name, (low, high) in of.sweep.bounds.items():
        assert low <= chosen.shares[name] <= high
        if chosen.by == "law":
            assert chosen.runner_up[name][0] <= chosen.shares[name] <= chosen.runner_up[name][1]


def test_a_law_that_falls_without_end_is_not_followed_beyond_what_was_tried(tmp_path: Path) -> None:
    of = planned(tmp_path, trials=12)

    def falling(shares: Mapping[str, float]) -> dict[str, float]:
        return dict.fromkeys(SLOPES, 3 - shares["books"])

    chosen = choose.choose(of, measured(of, 0.002, 0, falling))
    most = max(mixture["books"] for mixture in of.mixtures)
    assert chosen.by == "law"
    assert chosen.shares["books"] == pytest.approx(most, abs=1 / 64)
    assert most < of.sweep.bounds["books"][1] - 1 / 64
    assert "books" in chosen.at_edge


def test_the_runner_up_region_grows_with_the_noise(tmp_path: Path) -> None:
    of = planned(
        tmp_path, trials=30, weights={"books": 0.4, "law": 0.24, "web": 0.36}
    )  # the best lies well inside
    quiet, loud = (choose.choose(of, measured(of, noise, 0, peaked_bits)) for noise in (0.001, 0.01))
    assert (quiet.by, loud.by) == ("law", "law")
    assert quiet.runner_up_share < loud.runner_up_share


@pytest.mark.slow  # with few mixtures, below, in seconds
def test_a_flat_truth_claims_a_gain_in_at_most_one_of_twenty_sweeps(tmp_path: Path) -> None:
    of = planned(tmp_path, trials=12)
    claims = [
        choose.choose(of, measured(of, 0.01, seed, flat_bits)).by != "token_shares" for seed in range(120)
    ]
    assert sum(claims) <= 6


@pytest.mark.parametrize(("trials", "replicates"), [(5, 2), (4, 3)])
def test_a_flat_truth_claims_as_seldom_with_few_mixtures(
    tmp_path: Path, trials: int, replicates: int
) -> None:
    of = planned(tmp_path, trials=trials, replicates=replicates)
    claims = [
        choose.choose(of, measured(of, 0.01, seed, flat_bits)).by != "token_shares" for seed in range(100)
    ]
    assert sum(claims) <= 5


def test_a_clear_gain_is_found_through_the_same_noise(tmp_path: Path) -> None:
    of = planned(tmp_path, trials=12)

    def clear(shares: Mapping[str, float]) -> dict[str, float]:
        return dict.fromkeys(SLOPES, 3.3 - 0.6 * shares["books"])

    found = [choose.choose(of, measured(of, 0.01, seed, clear)) for seed in range(8)]
    assert sum(chosen.by == "law" for chosen in found) >= 7
    held = [
        clear(of.mixtures[0])["web"] - clear(chosen.shares)["web"] >= chosen.gain_interval[0]
        for chosen in found
        if chosen.by != "token_shares"
    ]
    assert sum(held) >= len(held) - 1


def test_a_perfect_order_of_few_mixtures_is_nothing_to_choose_by_where_another_seed_has_another(
    tmp_path: Path,
) -> None:
    of = planned(tmp_path, trials=5)
    for order in ((0, 1, 2, 3, 4), (3, 1, 4, 0, 2)):
        values = {(number, 0): 3 - 0.01 * of.mixtures[number]["books"] for number in range(5)}
        values |= {(number, 1): values[number, 0] + 0.02 * (order[number] - 2) for number in range(5)}
        trials = [
            small.trial(n, of.mixtures[n], dict.fromkeys(SLOPES, values[n, r]), replicate=r)
            for n, r in of.runs
        ]
        chosen = choose.choose(of, trials)
        assert (chosen.by, chosen.shares) == ("token_shares", of.mixtures[0])
        assert chosen.why.startswith("No basis for a choice: ")


def test_without_replicates_there_is_nothing_to_choose_by_and_the_remedy_is_told(tmp_path: Path) -> None:
    of = planned(tmp_path, replicates=1)
    chosen = choose.choose(of, measured(of, 0.002))
    assert (chosen.by, chosen.reason) == ("token_shares", "no_replicates")
    assert "sweep.replicates=2" in chosen.why


def test_a_measured_lead_far_beyond_the_noise_is_taken_where_no_law_can_be_fitted(tmp_path: Path) -> None:
    of = planned(tmp_path, trials=3)
    lead = {0: 3.0, 1: 3.3, 2: 2.5}
    trials = [
        small.trial(n, of.mixtures[n], dict.fromkeys(SLOPES, lead[n] + 0.002 * r), replicate=r)
        for n, r in of.runs
    ]
    chosen = choose.choose(of, trials)
    assert (chosen.by, chosen.shares, chosen.number) == ("best_trial", of.mixtures[2], 2)
    assert chosen.gain == pytest.approx(0.5)
    assert 0.4 < chosen.gain_interval[0] < 0.5
    assert chosen.runner_up == {}


def test_diverged_mixtures_are_left_out_and_counted(tmp_path: Path) -> None:
    of = planned(tmp_path)
    trials = measured(of, 0.002)
    for at in (2, 24 + 9):  # a first run, and a second one
        number, replicate = of.runs[at]
        gone = {"status": "diverged", "reason": "no number", "loss": None, "replicate": replicate}
        trials[at] = small.trial(number, of.mixtures[number], {}, **gone)
    chosen = choose.choose(of, trials)
    assert chosen.by == "law"
    assert "22 mixtures (2 more diverged)" in chosen.why
    assert len(chosen.fits[0].left_out) == 22


@pytest.mark.parametrize(("diverged", "reason"), [(range(3), "none_finished"), ([0], "no_baseline")])
def test_where_the_token_shares_diverged_there_is_nothing_to_choose_by(
    tmp_path: Path, diverged: Sequence[int], reason: str
) -> None:
    of = planned(tmp_path, trials=3)
    trials = measured(of, 0.002)
    for number in diverged:
        trials[number] = small.trial(number, of.mixtures[number], {}, status="diverged", reason="no number")
    chosen = outcome.write_outcome(of, trials)
    assert (chosen.by, chosen.shares, chosen.reason) == ("token_shares", of.mixtures[0], reason)


def test_the_mixture_file_is_read_by_a_training_recipe_unchanged(tmp_path: Path) -> None:
    of = planned(tmp_path)
    chosen = outcome.write_outcome(of, measured(of, 0.002))
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(small.plain(tmp_path)), encoding="utf-8")
    loaded = recipes.load_recipe(str(file), [f"train.mixture=@{of.folder}/{outcome.MIXTURE}"])
    assert loaded.train is not None
    assert [phase.shares for phase in loaded.train.mixture] == [chosen.shares]
    text = Path(of.folder, outcome.MIXTURE).read_text(encoding="utf-8")
    assert of.data in text
    assert chosen.why in text


@pytest.mark.parametrize("groups", [2, 5])
def test_the_search_finds_the_least_between_tried_mixtures_to_the_sequence(groups: int) -> None:
    region = Region(tuple("abcde"[:groups]), (0,) * groups, (1000,) * groups, 1000)
    draw = np.random.default_rng(groups)
    tried = draw.multinomial(1000, np.ones(groups) / groups, 12) / 1000
    tried = np.vstack([tried, 0.8 * np.eye(groups) + 0.2 / groups])
    wanted = draw.dirichlet(np.ones(12 + groups)) @ tried

    def bowl(shares: np.ndarray) -> np.ndarray:
        return ((shares - wanted) ** 2).sum(axis=1)

    found = hull.find_least(region, bowl, tried, hull.draw_candidates(region, tried, 0))
    assert found == pytest.approx(wanted, abs=0.003)
