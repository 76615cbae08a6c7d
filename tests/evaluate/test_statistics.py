"""Intervals that hold what they promise, and paired tests by hand-worked cases."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ctllm_ray.evaluate.scoring import statistics
from ctllm_ray.evaluate.scoring.item_results import SCORED, TOO_LONG, UNPARSABLE, Item
from ctllm_ray.evaluate.scoring.scores import compare, compute_scores


def test_the_interval_of_a_share_is_wilsons() -> None:
    found = statistics.share([1.0] * 8 + [0.0] * 2)
    assert (found.value, found.low, found.high) == pytest.approx((0.8, 0.4902, 0.9433), abs=1e-4)


def test_a_share_of_0_or_1_is_not_certain() -> None:
    assert statistics.share([1.0] * 10).low == pytest.approx(0.7225, abs=1e-4)
    assert statistics.share([0.0] * 10).high == pytest.approx(0.2775, abs=1e-4)


def test_the_standard_error_of_a_mean_is_lm_evals() -> None:
    from lm_eval.api.metrics import mean_stderr

    values = [0.0, 1.0, 1.0, 0.0, 1.0]
    assert statistics.share(values).stderr == pytest.approx(mean_stderr(values))
    marks = [3.0, 7.5, 9.0, 4.0]
    assert statistics.ratio(marks, [1.0] * 4, 0, 10).stderr == pytest.approx(mean_stderr(marks))


def test_nothing_to_score_is_no_number() -> None:
    assert math.isnan(statistics.share([]).value)
    assert math.isnan(statistics.ratio([], [], 0, 10).low)
    assert math.isnan(statistics.share([1.0]).stderr)


@pytest.mark.parametrize("kind", ["share", "bootstrap"])
def test_95_intervals_of_100_hold_the_truth(kind: str) -> None:
    random = np.random.default_rng(5)
    held = 0
    for trial in range(400):
        if kind == "share":
            found = statistics.share((random.random(60) < 0.3).astype(float).tolist())
            held += found.low <= 0.3 <= found.high
        else:
            above, below = random.gamma(3.0, 2.0, 60), random.uniform(1, 3, 60)
            found = statistics.ratio((above * below).tolist(), below.tolist(), trial, 300)
            held += found.low <= 6.0 <= found.high
    assert 0.91 <= held / 400 <= 0.98


def test_the_bootstrap_is_the_same_for_the_same_seed() -> None:
    values = list(range(50))
    assert statistics.ratio(values, [1] * 50, 3, 200) == statistics.ratio(values, [1] * 50, 3, 200)
    assert statistics.ratio(values, [1] * 50, 3, 200).low != statistics.ratio(values, [1] * 50, 4, 200).low


def test_mcnemar_counts_the_items_where_two_models_differ() -> None:
    assert statistics.mcnemar(np.array([1.0] * 9 + [-1.0] + [0.0] * 50)) == pytest.approx(22 / 1024)
    assert statistics.mcnemar(np.zeros(10)) == 1.0
    assert statistics.mcnemar(np.array([1.0, -1.0])) == 1.0


def test_the_permutation_test_agrees_with_the_exact_one_on_few_items() -> None:
    differences = np.array([2.0, 1.0, 3.0, 0.5, -0.25])
    signs = np.array(np.meshgrid(*[[-1, 1]] * 5)).reshape(5, -1)
    exact = np.mean(np.abs(differences @ signs) >= differences.sum() * (1 - 1e-12))
    assert statistics.sign_flip_p(differences, 0, 20_000) == pytest.approx(exact, abs=0.01)


def test_the_given_signs_are_one_of_the_draws_so_that_p_is_never_nothing() -> None:
    differences = np.ones(60)  # no draw of 99 gives all signs alike
    assert statistics.sign_flip_p(differences, 0, 99) == 1 / 100
    assert statistics.sign_flip_p(np.array([1.0]), 0, 99) == 1.0


def test_two_models_that_do_not_differ_seldom_seem_to() -> None:
    random = np.random.default_rng(1)
    seeming = 0
    for trial in range(200):
        one, two = ((random.random(80) < 0.5).astype(float).tolist() for _ in range(2))
        seeming += statistics.compare_paired(one, two, [1.0] * 80, trial, 50).p < 0.05
    assert seeming / 200 <= 0.08


def item(at: int, score: float | None, status: str = SCORED, part: str = "p", **more: object) -> Item:
    return Item("exam", part, f"f#{at}", status, score, chance=0.25, doc_hash=str(at), **more)  # type: ignore[arg-type]


def test_what_is_not_scored_is_counted_and_changes_no_score() -> None:
    items = [
        item(0, 1.0),
        item(1, 0.0),
        item(2, None, TOO_LONG),
        item(3, None, UNPARSABLE),
        item(4, 1.0, part="q"),
    ]
    whole, p, q = compute_scores(items, seed=0, resamples=10)
    assert (whole.items, whole.scored, whole.too_long, whole.unparsable) == (5, 3, 1, 1)
    assert whole.value == pytest.approx(2 / 3)
    assert whole.parts_mean == pytest.approx((0.5 + 1.0) / 2)
    assert (p.part, p.items, q.part, q.items, whole.chance) == ("p", 4, "q", 1, 0.25)


def test_bits_are_of_all_bytes_together() -> None:
    told = [(8 * math.log(2), 4), (2 * math.log(2), 16)]
    items = [
        Item("bits_per_byte", "web", str(at), SCORED, 0.0, nats=nats, text_bytes=size)
        for at, (nats, size) in enumerate(told)
    ]
    [whole] = compute_scores(items, seed=0, resamples=50)
    assert whole.value == pytest.approx(10 / 20)
    assert (whole.kind, whole.chance) == ("bits", None)


def test_two_evaluations_are_compared_over_the_items_that_both_scored() -> None:
    first = [item(at, 0.0) for at in range(12)] + [item(12, None, TOO_LONG)]
    second = [item(at, 1.0, prompt_hash="other") for at in range(10)] + [item(12, 1.0), item(13, 1.0)]
    [found] = compare(first, second, seed=0, resamples=100)
    assert (found.first, found.second, found.difference.value) == (0.0, 1.0, 1.0)
    assert found.difference.p == pytest.approx(2 / 1024)
    assert (found.difference.items, found.only_first, found.only_second, found.other_prompts) == (
        10,
        2,
        2,
        10,
    )


def test_an_item_whose_text_changed_is_another_item() -> None:
    [found] = compare(
        [item(0, 1.0), item(1, 1.0)], [item(0, 1.0), Item("exam", "p", "f#1", SCORED, 0.0)], 0, 10
    )
    assert (found.difference.items, found.only_first, found.only_second) == (1, 1, 1)
