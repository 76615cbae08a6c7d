"""The learning rate at points worked out by hand, its shape as laws, and where a branch may begin."""

from __future__ import annotations

import itertools

import pytest

from ctllm_ray.base.errors import RecipeError
from ctllm_ray.base.recipe_training import Schedule
from ctllm_ray.train.schedule import check_branch, find_decay, phase_at, rate


def schedule(**changes: object) -> Schedule:
    plain = {"use": "wsd", "peak_rate": 0.01, "min_share": 0.25, "warmup_tokens": 100, "decay_tokens": 200}
    return Schedule.model_validate(plain | changes)


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (10, 0.001),  # a tenth of the warm-up
        (100, 0.01),  # its end
        (
            300,
            0.00890165042944955,
        ),  # a quarter of the way: 0.25 + 0.75 (1 + cos 45°) / 2 = 0.890165 of the peak
        (500, 0.00625),  # half: 0.25 + 0.75 / 2
        (900, 0.0025),  # the end: a quarter of the peak
        (950, 0.0025),  # beyond it
    ],
)
def test_cosine_at_hand_computed_points(tokens: int, expected: float) -> None:
    assert rate(schedule(use="cosine", decay_tokens=0), tokens, 900) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("decay", "tokens", "expected"),
    [
        ("exponential", 50, 0.005),  # half of the warm-up
        ("exponential", 100, 0.01),
        ("exponential", 800, 0.01),  # the stable phase ends here: 1000 - 200
        ("exponential", 900, 0.005),  # half way: 0.25 ** 0.5
        ("exponential", 850, 0.0070710678118654755),  # a quarter: 0.25 ** 0.25 = 1 / sqrt(2)
        ("exponential", 1000, 0.0025),
        ("linear", 900, 0.00625),  # 1 - 0.75 / 2
        ("linear", 1000, 0.0025),
        ("sqrt", 850, 0.00625),  # 1 - 0.75 sqrt(0.25)
        ("sqrt", 998, 0.00253759422),  # 1 - 0.75 sqrt(0.99) = 1 - 0.75 x 0.994987437
        ("sqrt", 1000, 0.0025),
        ("sqrt", 1064, 0.0025),  # a last batch that reaches beyond the total
    ],
)
def test_wsd_at_hand_computed_points(decay: str, tokens: int, expected: float) -> None:
    assert rate(schedule(decay=decay), tokens, 1000) == pytest.approx(expected, rel=1e-8)


def test_exponential_decay_is_minicpm_halving() -> None:
    # min_share 1/4 is reached by halving twice in 200 tokens: T = 100 of 0.5 ** ((tokens - S) / T)
    for tokens in range(800, 1001, 7):
        expected = 0.01 * 0.5 ** ((tokens - 800) / 100)
        assert rate(schedule(), tokens, 1000) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("use", ["cosine", "wsd"])
@pytest.mark.parametrize("decay", ["exponential", "linear", "sqrt"])
def test_the_rate_rises_then_never_rises_again_and_has_no_jump(use: str, decay: str) -> None:
    given = schedule(use=use, decay=decay)
    rates = [rate(given, tokens, 1000) for tokens in range(1, 1001)]
    assert max(rates) == 0.01
    assert rates[:100] == sorted(rates[:100])
    assert rates[99:] == sorted(rates[99:], reverse=True)
    # 1 - sqrt falls steepest at its start: 0.75 sqrt(1 / 200) of the peak in one token
    assert max(abs(a - b) for a, b in itertools.pairwise(rates)) <= 0.01 * 0.75 * (1 / 200) ** 0.5 + 1e-12


def test_without_warmup_the_first_update_has_the_peak_rate() -> None:
    assert rate(schedule(warmup_tokens=0), 1, 1000) == 0.01


def test_without_decay_wsd_is_stable_to_the_end() -> None:
    assert rate(schedule(decay_tokens=0), 1000, 1000) == 0.01


def test_phases_meet_at_the_end_of_the_warmup_and_at_the_start_of_the_decay() -> None:
    given = schedule()
    assert [phase_at(given, t, 1000) for t in (1, 99, 100, 800, 801)] == [
        "warmup",
        "warmup",
        "stable",
        "stable",
        "decay",
    ]
    assert find_decay(given, 1000).start_tokens == 800


def test_a_branch_follows_its_parent_then_only_decays() -> None:
    parent, branch = schedule(), schedule(decay="linear", decay_tokens=100)
    check_branch(branch, 600, parent, 1000, 500)
    assert rate(branch, 500, 600) == rate(parent, 500, 1000) == 0.01
    assert rate(branch, 550, 600) == pytest.approx(0.00625)
    assert rate(branch, 600, 600) == pytest.approx(0.0025)


@pytest.mark.parametrize(
    ("total", "tokens", "changes", "message"),
    [
        (500, 500, {"decay_tokens": 100}, "includes the parent's tokens"),
        (1100, 900, {"decay_tokens": 100}, "between 100 and 800 tokens"),  # the parent decays already
        (150, 60, {"decay_tokens": 10}, "between 100 and 800 tokens"),  # it still warms up
        (600, 500, {"decay_tokens": 200}, "decay_tokens of at most 100"),
        (600, 500, {"use": "cosine"}, "decay_tokens of at most 100"),
    ],
)
def test_a_branch_that_would_jump_is_refused(total: int, tokens: int, changes: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        check_branch(schedule(**changes), total, schedule(), 1000, tokens)
