"""Choices by hand-worked rows, and draws against exact probabilities."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch

from ctllm_ray.inference.engine import Sampling
from ctllm_ray.inference.sampling import Chooser, LogprobQuery, choose, score

#: Probabilities 0.4, 0.3, 0.2, 0.1 of ids 2, 0, 3, 1.
ROW = [0.3, 0.1, 0.4, 0.2]


def logits(*rows: list[float]) -> torch.Tensor:
    return torch.tensor([[math.log(p) if p else -math.inf for p in row] for row in rows])


def drawn(
    row: list[float], count: int = 4000, ids: list[int] | None = None, **settings: float
) -> Counter[int]:
    """How often each id came in so many rows of one step, with seeds 0, 1, 2 ..."""
    choosers = [Chooser(Sampling(1, seed=seed, **settings), ids or [0]) for seed in range(count)]  # type: ignore[arg-type]
    return Counter(token.id for token in choose(logits(row).expand(count, -1), choosers))


def test_a_draw_just_below_one_is_the_last_id_that_may_be_drawn() -> None:
    class Highest(Chooser):
        def number(self) -> float:
            return 1 - 2**-53  # the largest that there is, which is 1 in float32

    for row in ([0.3, 0.1, 0.4, 0.2], [0.7, 0.3, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]):
        (token,) = choose(logits(row), [Highest(Sampling(1, seed=1), [0])])
        assert row[token.id] > 0


def chi_square(found: Counter[int], exact: dict[int, float]) -> float:
    total = sum(found.values())
    assert found.keys() <= exact.keys()
    return sum((found[id_] - total * p) ** 2 / (total * p) for id_, p in exact.items())


@pytest.mark.parametrize(
    ("settings", "exact"),
    [
        ({}, {0: 0.3, 1: 0.1, 2: 0.4, 3: 0.2}),
        ({"temperature": 0.5}, {0: 9 / 30, 1: 1 / 30, 2: 16 / 30, 3: 4 / 30}),
        ({"top_k": 2}, {0: 3 / 7, 2: 4 / 7}),
        ({"top_p": 0.6}, {0: 3 / 7, 2: 4 / 7}),  # 0.4 does not reach it, 0.7 does
        ({"top_p": 0.71}, {0: 3 / 9, 2: 4 / 9, 3: 2 / 9}),
        ({"min_p": 0.4}, {0: 3 / 9, 2: 4 / 9, 3: 2 / 9}),  # at least 0.16
        ({"top_k": 3, "top_p": 0.75}, {0: 3 / 7, 2: 4 / 7}),  # 7 / 9 is enough of the three kept by top_k
        ({"top_k": 3, "min_p": 0.7}, {0: 3 / 7, 2: 4 / 7}),
    ],
)
def test_draws_have_the_probabilities_that_sampling_says(
    settings: dict[str, float], exact: dict[int, float]
) -> None:
    # chi-square with up to 3 degrees of freedom is above 16.27 once in 1,000 times; the seeds are fixed
    assert chi_square(drawn(ROW, **settings), exact) < 16.27


@pytest.mark.parametrize(
    "settings", [{"top_k": 1}, {"top_p": 0.0}, {"top_p": 0.39}, {"min_p": 1.0}, {"temperature": 1e-9}]
)
def test_the_narrowest_filters_leave_the_most_likely_id(settings: dict[str, float]) -> None:
    assert set(drawn(ROW, 200, **settings)) == {2}


@pytest.mark.parametrize("settings", [{"top_k": 2}, {"top_p": 0.5}, {"min_p": 0.9}])
def test_equal_ids_stay_or_go_together(settings: dict[str, float]) -> None:
    assert set(drawn([0.3, 0.3, 0.3, 0.1], 400, **settings)) == {0, 1, 2}


def test_temperature_zero_takes_the_most_likely_id_and_the_lowest_of_several() -> None:
    rows = logits(ROW, [0.1, 0.4, 0.1, 0.4])
    greedy = [Chooser(Sampling(1, temperature=0), [0]) for _ in rows]
    assert [token.id for token in choose(rows, greedy)] == [2, 1]


def test_top_p_over_a_flat_distribution_keeps_as_many_as_its_share_needs() -> None:
    falling = np.linspace(2, 1, 1000)
    falling /= falling.sum()
    found = drawn(falling.tolist(), 3000, top_p=0.9)
    kept = int(np.searchsorted(np.cumsum(falling), 0.9)) + 1
    assert kept * 0.95 < max(found) < kept


def test_rows_of_one_step_are_chosen_each_by_its_own_sampling() -> None:
    choosers = [
        Chooser(Sampling(1, temperature=0), [0]),
        Chooser(Sampling(1, top_k=1, top_logprobs=2), [0]),
        Chooser(Sampling(1, temperature=0, repetition_penalty=50), [2]),
    ]
    found = choose(logits(ROW, ROW, ROW), choosers)
    assert [token.id for token in found] == [2, 2, 0]
    assert [len(token.top) for token in found] == [0, 2, 0]
    assert [id_ for id_, _ in found[1].top] == [2, 0]
    assert [token.logprob for token in found] == pytest.approx(
        [math.log(p) for p in (0.4, 0.4, 0.3)], abs=1e-6
    )


def test_penalties_change_the_choice_and_not_the_log_probability_told() -> None:
    row = torch.tensor([[2.0, 1.9, -1.0]])
    repeated = Chooser(Sampling(1, temperature=0, repetition_penalty=1.2), [0])
    assert choose(row, [repeated])[0].id == 1  # 2 / 1.2 = 1.67
    frequent = Chooser(Sampling(9, temperature=0, presence_penalty=0.05, frequency_penalty=0.04), [0])
    ids = [choose(row, [frequent])[0] for _ in range(6)]
    # id 0 goes 2.0 (the prompt does not count), 1.91, 1.87 and is below 1.9 then; id 1 falls to 1.81
    assert [token.id for token in ids[:4]] == [0, 0, 1, 0]
    assert {token.logprob for token in ids if token.id == 0} == {ids[0].logprob}


def test_negative_logits_of_repeated_ids_go_down_too() -> None:
    row = torch.tensor([[-1.0, -1.1]])
    assert choose(row, [Chooser(Sampling(1, temperature=0, repetition_penalty=1.2), [0])])[0].id == 1


def test_a_seed_and_its_negative_draw_other_numbers() -> None:
    first, second = (Chooser(Sampling(1, seed=seed), [0]) for seed in (7, -7))
    assert first.number() != second.number()


def test_a_seed_gives_the_same_draws_wherever_its_row_stands() -> None:
    row = torch.randn(1, 500, generator=torch.Generator().manual_seed(0))
    others = [Chooser(Sampling(1, seed=seed), [0]) for seed in range(7)]

    def draws(before: int) -> list[int]:
        mine = Chooser(Sampling(9, seed=99, top_p=0.9), [0])
        return [choose(row.expand(before + 1, -1), [*others[:before], mine])[-1].id for _ in range(20)]

    assert draws(0) == draws(3) == draws(7)


def test_scored_ids_have_their_log_probabilities() -> None:
    found = score(logits(ROW, ROW), [LogprobQuery(3, 1), LogprobQuery(1, 1)])
    assert [token.id for token in found] == [3, 1]
    assert [token.logprob for token in found] == pytest.approx([math.log(0.2), math.log(0.1)], abs=1e-6)
    assert found[0].top == ((2, pytest.approx(math.log(0.4), abs=1e-6)),)


class OnlyOdd:
    """A grammar that wants odd ids, twice."""

    ended = False
    error = ""

    def __init__(self) -> None:
        self.came: list[int] = []

    def allowed_ids(self) -> np.ndarray:
        return np.array([False, True, False, True])

    def accept(self, id_: int) -> None:
        self.came.append(id_)


def test_a_grammar_forbids_ids_whatever_their_probability() -> None:
    grammar = OnlyOdd()
    chooser = Chooser(Sampling(9, seed=1), [0], grammar)
    free = Chooser(Sampling(9, temperature=0), [0])
    found = [choose(logits(ROW, ROW), [chooser, free]) for _ in range(50)]
    assert {mine.id for mine, _ in found} == {1, 3}
    assert {other.id for _, other in found} == {2}
    assert grammar.came == [mine.id for mine, _ in found]
