"""Which mixture is chosen: the law's where it can be trusted, else what was measured; and why, in plain words."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from ctllm_ray.base import recipe as recipes
from ctllm_ray.mixture import choose, outcome, plan
from ctllm_ray.mixture.plan import Plan
from ctllm_ray.mixture.results import Trial
from tests.mixture import small_sweeps as small

#: Bits per byte of a group fall with its own share and a little with that of books.
SLOPES = {"books": [-1.2, 0.3, 0.3], "law": [0.1, -1.5, 0.2], "web": [0.0, 0.2, -0.9]}
FLOORS = {"books": 2.2, "law": 1.8, "web": 2.6}


def planned(root: Path, trials: int = 24, **sweep: Any) -> Plan:
    return plan.plan(small.recipe(root, {"trials": trials} | sweep, block_sequences=64))


def true_bits(shares: dict[str, float]) -> dict[str, float]:
    values = np.array([shares[name] for name in ("books", "law", "web")])
    return {name: FLOORS[name] + math.exp(float(values @ np.array(SLOPES[name]))) for name in SLOPES}


def measured(of: Plan, noise: float, seed: int = 0) -> list[Trial]:
    draw = np.random.default_rng(seed)
    return [
        small.trial(n, shares, {name: b * math.exp(draw.normal(0, noise)) for name, b in true_bits(shares).items()})
        for n, shares in enumerate(of.mixtures)
    ]


def peaked(of: Plan, noise: float) -> list[Trial]:
    """Trials of which the best mixture stands inside: each group's bits fall steeply with its own share alone."""
    draw = np.random.default_rng(0)
    return [
        small.trial(
            n, shares, {name: 2 + math.exp(-3 * share + draw.normal(0, noise)) for name, share in shares.items()}
        )
        for n, shares in enumerate(of.mixtures)
    ]


def objective(of: Plan, shares: dict[str, float]) -> float:
    return sum(weight * true_bits(shares)[name] for name, weight in of.sweep.weights.items())


def test_a_good_law_chooses_a_mixture_next_to_the_best_there_is(tmp_path: Path) -> None:
    of = planned(tmp_path)
    chosen = choose.choose(of, measured(of, 0.002))
    least = min(
        objective(of, {"books": a / 64, "law": b / 64, "web": (64 - a - b) / 64})
        for a in range(58)
        for b in range(58)
        if 64 - a - b >= 0.1 * 64
    )
    assert chosen.by == "law"
    assert "good enough to choose by." in chosen.why
    assert objective(of, chosen.shares) == pytest.approx(least, abs=0.004)
    assert objective(of, chosen.shares) < objective(of, of.mixtures[0]) - 0.02
    true_gain = objective(of, of.mixtures[0]) - objective(of, chosen.shares)
    assert chosen.gain_interval[0] - 0.005 < true_gain < chosen.gain_interval[1] + 0.005


def test_the_chosen_mixture_obeys_bounds_and_lies_in_its_own_region(tmp_path: Path) -> None:
    of = planned(tmp_path, bounds={"books": [0.1, 0.5], "law": [0.0, 0.2], "web": [0.3, 0.8]})
    chosen = choose.choose(of, peaked(of, 0.02))
    assert sum(chosen.shares.values()) == pytest.approx(1)
    for name, (low, high) in of.sweep.bounds.items():
        assert low <= chosen.shares[name] <= high
        assert chosen.runner_up[name][0] <= chosen.shares[name] <= chosen.runner_up[name][1]
    assert 0 < chosen.runner_up_share < 1
    assert "law" in chosen.at_edge


def test_the_runner_up_region_grows_with_the_noise(tmp_path: Path) -> None:
    of = planned(tmp_path, trials=30)
    quiet, loud = (choose.choose(of, peaked(of, noise)) for noise in (0.005, 0.05))
    assert (quiet.by, loud.by) == ("law", "law")
    assert quiet.runner_up_share < loud.runner_up_share


def test_where_noise_is_all_there_is_the_best_trial_is_taken_and_said(tmp_path: Path) -> None:
    of = planned(tmp_path, trials=12)
    draw = np.random.default_rng(3)
    trials = [small.trial(n, s, dict.fromkeys(SLOPES, draw.normal(3, 0.1))) for n, s in enumerate(of.mixtures)]
    best = min(trials, key=lambda one: one.bits["web"])
    chosen = choose.choose(of, trials)
    assert best.number != 0
    assert (chosen.by, chosen.shares) == ("best_trial", best.shares)
    assert "not good enough to choose by" in chosen.why
    assert f"trial {best.number}; its lead may be luck" in chosen.why
    assert chosen.gain == pytest.approx(trials[0].bits["web"] - best.bits["web"])
    assert chosen.runner_up == {}


def test_where_no_trial_beats_the_token_shares_these_are_taken_and_said(tmp_path: Path) -> None:
    of = planned(tmp_path, trials=4)
    trials = [small.trial(n, s, dict.fromkeys(SLOPES, 3.0 + 0.1 * (n > 0))) for n, s in enumerate(of.mixtures[:3])]
    chosen = choose.choose(of, trials)
    assert (chosen.by, chosen.shares) == ("token_shares", of.mixtures[0])
    assert "3 trials are too few" in chosen.why
    assert "No trial did better than the token shares" in chosen.why


def test_diverged_trials_are_left_out_and_counted(tmp_path: Path) -> None:
    of = planned(tmp_path)
    trials = measured(of, 0.002)
    for number in (2, 9):
        trials[number] = small.trial(number, of.mixtures[number], {}, status="diverged", reason="no number", loss=None)
    chosen = choose.choose(of, trials)
    assert chosen.by == "law"
    assert "Of 22 trials (2 more diverged)" in chosen.why
    assert len(chosen.fits[0].left_out) == 22


def test_where_all_trials_diverged_the_token_shares_are_taken_and_said(tmp_path: Path) -> None:
    of = planned(tmp_path, trials=3)
    trials = [small.trial(n, s, {}, status="diverged", reason="no number") for n, s in enumerate(of.mixtures)]
    chosen = outcome.write(of, trials)
    assert (chosen.by, chosen.shares) == ("token_shares", of.mixtures[0])
    assert "No trial finished (3 diverged)" in chosen.why


def test_the_mixture_file_is_read_by_a_training_recipe_unchanged(tmp_path: Path) -> None:
    of = planned(tmp_path)
    chosen = outcome.write(of, measured(of, 0.002))
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(small.plain(tmp_path)), encoding="utf-8")
    loaded = recipes.load(str(file), [f"train.mixture=@{of.folder}/{outcome.MIXTURE}"])
    assert loaded.train is not None
    assert [phase.shares for phase in loaded.train.mixture] == [chosen.shares]
    text = Path(of.folder, outcome.MIXTURE).read_text(encoding="utf-8")
    assert of.data in text
    assert chosen.why in text


@pytest.mark.parametrize("groups", [2, 5])
def test_the_descent_finds_the_least_of_a_law_to_the_sequence(groups: int) -> None:
    region = choose.Region(tuple("abcde"[:groups]), (0,) * groups, (900,) * groups, 1000)
    wanted = np.random.default_rng(groups).dirichlet(np.ones(groups) * 3) * 0.9 + 0.02

    class Bowl:
        def predict(self, weights: object, shares: np.ndarray) -> np.ndarray:
            return ((shares - wanted / wanted.sum()) ** 2).sum(axis=1)

    found = choose.least(region, Bowl(), {}, choose._candidates(region, 0))  # type: ignore[arg-type]
    assert found == pytest.approx(wanted / wanted.sum() * 1000, abs=1)
