"""What a sweep is going to do: each trial's recipe is its own, and what cannot be is told before anything
starts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from ctllm_ray.base.errors import CtllmError, NotFound, RecipeError, VersionConflict
from ctllm_ray.cli import run
from ctllm_ray.mixture import forecast, plan, results
from ctllm_ray.model import config as shapes
from tests.mixture import small_sweeps as small


def test_the_first_trial_has_the_token_shares_and_every_mixture_obeys_the_bounds(tmp_path: Path) -> None:
    planned = plan.plan_sweep(small.recipe(tmp_path, {"trials": 12}, block_sequences=64))
    first = planned.mixtures[0]
    assert first == pytest.approx(planned.token_shares, abs=1 / 64)
    assert planned.token_shares["web"] == pytest.approx(0.5, abs=0.03)
    for mixture in planned.mixtures:
        assert sum(mixture.values()) == pytest.approx(1)
        assert all(0 <= mixture[name] <= 0.9 for name in ("books", "law"))
        assert mixture["web"] >= 0.1
    assert len({tuple(mixture.values()) for mixture in planned.mixtures}) == 12


def test_a_trial_is_a_training_run_with_the_sweeps_model_and_all_else_as_train_has_it(tmp_path: Path) -> None:
    recipe = small.recipe(tmp_path, packing="best_fit", seed=9, branch_from="elsewhere", run="second")
    planned = plan.plan_sweep(recipe)
    trial = planned.trial(2)
    assert trial.folder("train") == f"{tmp_path}/t/1/sweep-second/trials/0002/train"
    assert trial.token_folders() == (f"{tmp_path}/t/1/tokens",)
    assert trial.train is not None
    assert (trial.train.tokens, trial.train.packing, trial.train.branch_from) == (256, "best_fit", "")
    assert [phase.shares for phase in trial.train.mixture] == [planned.mixtures[2]]
    assert trial.resources.train.worker_range == (1, 1)
    assert trial.resources.train.stepper == "torch"


def test_each_run_of_each_mixture_has_a_seed_and_a_folder_of_its_own(tmp_path: Path) -> None:
    planned = plan.plan_sweep(small.recipe(tmp_path, {"replicates": 3}, seed=9))
    again = plan.plan_sweep(small.recipe(tmp_path, {"replicates": 4, "trials": 5}, seed=9))
    assert planned.runs == [(number, replicate) for replicate in range(3) for number in range(3)]
    trials = {run: planned.trial(*run) for run in planned.runs}
    seeds = {run: trial.train.seed for run, trial in trials.items() if trial.train}
    assert seeds[0, 0] == 9
    assert len(set(seeds.values())) == 9
    assert {run: again.trial(*run).train.seed for run in planned.runs} == seeds  # type: ignore[union-attr]
    assert trials[2, 1].folder("train") == f"{tmp_path}/t/1/sweep/trials/0002-1/train"
    assert trials[2, 1].train.mixture == trials[2, 0].train.mixture  # type: ignore[union-attr]


def test_more_replicates_go_on_with_a_sweep(tmp_path: Path) -> None:
    planned = plan.plan_sweep(small.recipe(tmp_path))
    results.begin(planned)
    results.begin(plan.plan_sweep(small.recipe(tmp_path, {"replicates": 5})))
    for number, replicate in ((0, 0), (0, 2), (7, 0)):
        results.write_trial(planned.folder, small.trial(number, planned.mixtures[0], {}, replicate=replicate))
    assert [(found.number, found.replicate) for found in results.read_trials(planned.folder, 3)] == [
        (0, 0),
        (0, 2),
    ]


def test_paths_below_the_recipes_root_mean_the_same_in_a_trial_whose_root_is_another(tmp_path: Path) -> None:
    small.recipe(tmp_path)
    sweep = {"model": {"path": "root:t/1/hf"}}
    recipe = small.recipe(tmp_path, sweep, corpora=["root:t/1/tokens"],
                          validation={"every_tokens": 256, "corpora": ["root:t/1/tokens"]})  # fmt: skip
    trial = plan.plan_sweep(recipe).trial(0)
    assert trial.model is not None
    assert trial.train is not None
    assert trial.train.validation is not None
    tokens = f"{tmp_path}/t/1/tokens"
    assert (trial.model.path, trial.train.corpora, trial.train.validation.corpora) == (
        f"{tmp_path}/t/1/hf", (tokens,), (tokens,),
    )  # fmt: skip


def test_a_share_that_the_epochs_of_the_whole_run_do_not_allow_is_not_tried(tmp_path: Path) -> None:
    recipe = small.recipe(tmp_path, {"trials": 8}, tokens=4096, epoch_caps={"books": 2.0}, max_epochs=100,
                          mixture=[{"shares": {"books": 0.5, "web": 0.5}}], block_sequences=64)  # fmt: skip
    planned = plan.plan_sweep(recipe)
    targets = sum(s.tokens - s.rows for s in small.manifest.read_manifest(recipe.folder("tokens")).of_kind("train")
                  if s.group == "books")  # fmt: skip
    most = max(mixture["books"] for mixture in planned.mixtures)
    assert most * 4096 <= 2.0 * targets
    assert planned.caps["books"] < 0.9
    assert planned.trial(0).train is not None
    assert planned.trial(0).train.epoch_caps == {"books": 2.0}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("sweep", "train", "error", "says"),
    [
        (
            {"bounds": {"books": [0, 1], "wbe": [0, 1]}},
            {},
            RecipeError,
            "group 'wbe' does not exist(.|\n)*did you mean 'web'",
        ),
        (
            {"weights": {"books": 0.5, "laws": 0.5}},
            {},
            RecipeError,
            "group 'laws' does not exist(.|\n)*did you mean 'law'",
        ),
        ({"weights": {"books": 0.5, "law": 0.6}}, {}, RecipeError, "the weights sum to 1.1, not 1"),
        (
            {"bounds": {"books": [0.6, 0.4], "web": [0, 1]}},
            {},
            RecipeError,
            "the minimum 0.6 is larger than the maximum",
        ),
        ({"bounds": {"web": [0, 1]}}, {}, RecipeError, "fewer than two groups"),
        ({"bounds": {"books": [0, 0.3], "web": [0, 0.3]}}, {}, RecipeError, "allow no mixture(.|\n)*remedy"),
        (
            {},
            {"tokens": 1 << 14},
            RecipeError,
            "allow no mixture.*without the epoch limits of books, law, web",
        ),
        ({}, {"tokens": 1 << 20}, RecipeError, "'web' is too small for its bounds"),
        ({"trials": 400}, {}, RecipeError, "different mixtures"),
        ({}, {"validation": None}, RecipeError, "held-out documents"),
        ({"trials": 1}, {}, RecipeError, "greater than or equal to 2"),
        ({"trails": 1}, {}, RecipeError, "did you mean 'trials'"),
        ({}, {"corpora": ["nowhere"]}, NotFound, "has not finished"),
    ],
)
def test_a_sweep_that_cannot_be_is_told_with_what_to_change(
    tmp_path: Path, sweep: Mapping[str, Any], train: Mapping[str, Any], error: type[CtllmError], says: str
) -> None:
    with pytest.raises(error, match=says) as caught:
        plan.plan_sweep(small.recipe(tmp_path, sweep, **train))
    assert caught.value.remedy


def test_a_recipe_without_a_sweep_says_so(tmp_path: Path) -> None:
    given = small.plain(tmp_path) | {"sweep": None}
    with pytest.raises(RecipeError, match="has no sweep"):
        plan.plan_sweep(small.recipes.parse_recipe(given))


def test_more_trials_and_other_weights_go_on_with_a_sweep_and_another_seed_does_not(tmp_path: Path) -> None:
    planned = plan.plan_sweep(small.recipe(tmp_path))
    results.begin(planned)
    more = plan.plan_sweep(small.recipe(tmp_path, {"trials": 6, "weights": {"web": 1.0}}))
    results.begin(more)
    assert more.mixtures[:3] == planned.mixtures
    with pytest.raises(VersionConflict, match=r"mixtures\.seed: 1 -> 2"):
        results.begin(plan.plan_sweep(small.recipe(tmp_path, {"seed": 2})))
    with pytest.raises(VersionConflict, match=r"trial\.train\.tokens: 256 -> 320"):
        results.begin(plan.plan_sweep(small.recipe(tmp_path, {"tokens": 320})))


def test_other_data_does_not_go_on_with_a_sweep(tmp_path: Path) -> None:
    results.begin(plan.plan_sweep(small.recipe(tmp_path)))
    small.write_tokens(tmp_path / "t" / "1" / "tokens", {"books": 30, "law": 30, "web": 61})
    with pytest.raises(VersionConflict, match="data: "):
        results.begin(plan.plan_sweep(small.recipe(tmp_path)))


def test_the_forecast_counts_what_is_left_and_takes_the_speed_of_trials_that_ended(tmp_path: Path) -> None:
    given = small.plain(tmp_path, {"trials": 5, "tokens": 250})
    small.recipe(tmp_path)
    given["resources"]["sweep"] = {"concurrent": 2}
    planned = plan.plan_sweep(small.recipes.parse_recipe(given))
    before = forecast.forecast_sweep(planned, [])
    assert (before.trials, before.replicates, before.left, before.at_once, before.measured) == (
        5,
        2,
        10,
        2,
        False,
    )
    assert (before.trial_tokens, before.tokens) == (256, 10 * 256)  # whole batches
    config = shapes.for_recipe(planned.sweep.model, small.VOCABULARY, small.SEQUENCE_TOKENS)
    assert before.parameters == shapes.parameters(config)
    assert before.flops == 10 * 256 * shapes.flops_per_token(config, small.SEQUENCE_TOKENS)
    known = [
        small.trial(0, planned.mixtures[0], {}, seconds=10.0),
        small.trial(1, planned.mixtures[1], {}, seconds=20),
    ]
    after = forecast.forecast_sweep(planned, known)
    assert (after.left, after.measured) == (8, True)
    assert after.hours * 3600 == pytest.approx(4 * 15)  # eight runs, two at a time
    assert after.device_hours * 3600 == pytest.approx(8 * 15)


def test_the_command_line_forecasts_without_starting_anything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small.recipe(tmp_path)
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(small.plain(tmp_path)), encoding="utf-8")
    assert run(["sweep", str(file), "--forecast"]) == 0
    shown = capsys.readouterr().out
    assert [
        part
        for part in ("3 mixtures x 2 runs, 6 left", "1,536 tokens", "FLOPs", "assumed", "token share")
        if part not in shown
    ] == []
    assert not (tmp_path / "t/1/sweep").exists()
    assert run(["sweep", str(file), "--forecast", "sweep.weights={web: 0.5}"]) == 2
    assert "the weights sum to 0.5, not 1" in capsys.readouterr().err
