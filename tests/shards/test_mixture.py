"""Shares are exact in every block, and every sample of a group is given once, in order, whatever begins or
ends."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from ctllm_ray.base.errors import RecipeError
from ctllm_ray.shards.mixture import Mixture, MixtureSpan, apportion, cut_segments, plan

SHARES = {"web": 0.5, "books": 0.3, "code": 0.2}
MANY = 10**9


def mixture(
    spans: list[MixtureSpan], last: int, caps: dict[str, int] | None = None, block: int = 100
) -> Mixture:
    return Mixture(7, plan(spans, 0, last, {}, caps or {}, block), block)


def groups_of(mixed: Mixture, first: int, last: int) -> list[str]:
    return [mixed.groups[index] for index in mixed.samples(first, last)[0]]


def test_counts_are_whole_and_nearest_to_the_shares() -> None:
    assert apportion({"a": 0.29, "b": 0.71}, 100) == {"a": 29, "b": 71}
    assert apportion({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}, 100) == {"a": 34, "b": 33, "c": 33}
    assert apportion({"a": 0.126, "b": 0.137, "c": 0.737}, 10) == {"a": 1, "b": 2, "c": 7}
    assert apportion({"a": 0.6, "b": 0.4}, 0) == {"a": 0, "b": 0}


def test_shares_are_exact_in_every_block() -> None:
    mixed = mixture([MixtureSpan(0, SHARES)], 1000)
    for block in range(10):
        counts = Counter(groups_of(mixed, 100 * block, 100 * block + 100))
        assert counts == {"web": 50, "books": 30, "code": 20}


def test_the_groups_of_a_block_are_shuffled_by_the_seed() -> None:
    mixed = mixture([MixtureSpan(0, SHARES)], 1000)
    orders = [tuple(groups_of(mixed, 100 * block, 100 * block + 100)) for block in range(10)]
    assert len(set(orders)) == 10
    other = Mixture(8, mixed.segments, 100)
    assert groups_of(other, 0, 100) != groups_of(mixed, 0, 100)
    assert orders[0] != tuple(sorted(orders[0]))


def test_blocks_of_phases_with_the_same_shares_are_shuffled_each_in_its_own_way() -> None:
    mixed = mixture(
        [
            MixtureSpan(0, SHARES),
            MixtureSpan(100, {"web": 0.5, "books": 0.25, "code": 0.25}),
            MixtureSpan(200, SHARES),
        ],
        300,
    )
    assert groups_of(mixed, 0, 100) != groups_of(mixed, 200, 300)


def check_numbers(mixed: Mixture, last: int) -> None:
    """Every group's samples are numbered 0, 1, 2, ... in the order of time within each block, and all are
    there."""
    groups, numbers = mixed.samples(0, last)
    for index, name in enumerate(mixed.groups):
        of_group = numbers[groups == index]
        assert np.array_equal(of_group, np.arange(len(of_group)))
        assert mixed.before(last)[name] == len(of_group)


@pytest.mark.parametrize("last", [1, 99, 100, 101, 1234])
def test_a_group_is_numbered_in_the_order_of_time(last: int) -> None:
    check_numbers(mixture([MixtureSpan(0, SHARES)], 1234), last)


def test_any_stretch_asked_for_alone_is_the_same_as_in_the_whole() -> None:
    mixed = mixture([MixtureSpan(0, SHARES), MixtureSpan(333, {"web": 0.1, "poetry": 0.9})], 1234)
    groups, numbers = mixed.samples(0, 1234)
    for first, last in [(0, 1), (57, 57), (99, 101), (150, 480), (332, 334), (1233, 1234)]:
        some = mixed.samples(first, last)
        assert np.array_equal(some[0], groups[first:last])
        assert np.array_equal(some[1], numbers[first:last])


def test_a_phase_begins_at_its_sample_and_loses_nothing_of_the_block_before() -> None:
    mixed = mixture([MixtureSpan(0, SHARES), MixtureSpan(250, {"web": 0.5, "poetry": 0.5})], 1000)
    assert Counter(groups_of(mixed, 0, 250)) == {"web": 125, "books": 75, "code": 50}
    assert Counter(groups_of(mixed, 250, 350)) == {"web": 50, "poetry": 50}
    check_numbers(mixed, 1000)


def test_a_group_ends_at_its_cap_and_the_others_take_its_share_in_proportion() -> None:
    mixed = mixture([MixtureSpan(0, SHARES)], 1000, {"code": 50})
    counts = Counter(groups_of(mixed, 0, 1000))
    assert counts["code"] == 50
    after = mixed.segments[1].first
    assert Counter(groups_of(mixed, after, after + 600)) == {
        "web": 378,
        "books": 222,
    }  # 63 and 37 of 100: 0.5 / 0.8
    assert max(i for i, name in enumerate(groups_of(mixed, 0, 1000)) if name == "code") < 260
    check_numbers(mixed, 1000)


def test_several_groups_may_reach_their_caps_and_a_cap_of_one_block_or_less_holds() -> None:
    for cap in (0, 1, 2, 7, 19, 20, 21):
        mixed = mixture([MixtureSpan(0, SHARES)], 700, {"code": cap, "books": 100})
        counts = Counter(groups_of(mixed, 0, 700))
        assert counts["code"] == cap
        assert counts["books"] == 100
        check_numbers(mixed, 700)


def test_a_cap_counts_over_phases() -> None:
    mixed = mixture([MixtureSpan(0, SHARES), MixtureSpan(100, SHARES)], 1000, {"code": 50})
    assert Counter(groups_of(mixed, 0, 1000))["code"] == 50


def test_a_run_longer_than_all_capped_groups_is_an_error_that_says_so() -> None:
    with pytest.raises(RecipeError, match="all groups of a phase reach their cap"):
        mixture([MixtureSpan(0, {"a": 0.5, "b": 0.5})], 1000, {"a": 100, "b": 100})


def test_a_share_of_less_than_a_sample_in_a_block_is_an_error_with_the_block_that_would_do() -> None:
    with pytest.raises(RecipeError, match=r"'rare' has share 0.001") as caught:
        mixture([MixtureSpan(0, {"web": 0.999, "rare": 0.001})], 1000)
    assert "at least 1001" in caught.value.remedy


def test_a_new_plan_in_the_middle_of_a_block_leaves_the_past_and_counts_on() -> None:
    old = mixture([MixtureSpan(0, SHARES)], 1000, {"code": 150})
    begun = old.before(345)
    new = plan([MixtureSpan(0, SHARES)], 345, 1000, begun, {"code": 500}, 100)
    both = Mixture(7, cut_segments(old.segments, 345) + new, 100)
    assert groups_of(both, 0, 345) == groups_of(old, 0, 345)
    assert Counter(groups_of(both, 345, 445)) == {"web": 50, "books": 30, "code": 20}
    check_numbers(both, 1000)


def test_a_share_of_zero_takes_nothing() -> None:
    assert set(groups_of(mixture([MixtureSpan(0, {"web": 1.0, "code": 0.0})], 300), 0, 300)) == {"web"}
