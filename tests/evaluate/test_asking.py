"""Who asks, asks little, in good order, patiently, and nothing twice."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError
from itertools import pairwise
from pathlib import Path

import pytest

from ctllm_ray.base.errors import EngineFailed
from ctllm_ray.evaluate.models.answer_cache import AnswerCache, key
from ctllm_ray.evaluate.models.concurrency import ConcurrentRequests, Runner, own_loop
from ctllm_ray.evaluate.models.model_under_test import Continuation, cut_at_stop
from tests.evaluate.subjects import BUSY, Guessing, Noting, asking

EXAM = [([1, *[2] * 30, question], [letter]) for question in (9, 5, 7) for letter in (50, 51, 52, 53)]


def test_the_letters_of_a_question_are_one_request(tmp_path: Path) -> None:
    noting = Noting(Guessing())
    with asking(noting, tmp_path) as asked:
        found = asked.scores(EXAM)
    assert len(noting.asked) == 3
    assert len({score.logprob for score in found if score}) == len(EXAM)


def test_scores_are_the_same_asked_together_or_one_by_one(tmp_path: Path) -> None:
    with asking(Guessing(), tmp_path / "a") as asked:
        together = asked.scores(EXAM)
    one_by_one = []
    for at, pair in enumerate(EXAM):
        with asking(Guessing(), tmp_path / str(at)) as asked:
            one_by_one += asked.scores([pair])
    assert [score and score.logprob for score in together] == [
        score and score.logprob for score in one_by_one
    ]


def test_prompts_that_begin_alike_are_asked_one_after_another(tmp_path: Path) -> None:
    noting = Noting(Guessing())
    pairs = [([subject, 4, question], [6]) for question in range(5) for subject in (3, 1, 2)]
    with asking(noting, tmp_path, at_once=1) as asked:
        asked.scores(pairs)
    assert [ids[0] for ids in noting.asked] == sorted(ids[0] for ids in noting.asked)
    assert all(one < two for one, two in pairwise(noting.asked))


def test_no_more_is_asked_at_once_than_was_said(tmp_path: Path) -> None:
    noting = Noting(Guessing())
    with asking(noting, tmp_path, at_once=3) as asked:
        asked.scores([([at], [1]) for at in range(40)])
    assert noting.most_at_once == 3


def test_what_was_answered_before_a_failure_is_not_asked_again(tmp_path: Path) -> None:
    first = Noting(Guessing(), fails_at=2, error=EngineFailed("it died"))
    with asking(first, tmp_path, at_once=1) as asked, pytest.raises(EngineFailed):
        asked.scores(EXAM)
    second = Noting(Guessing())
    with asking(second, tmp_path, at_once=1) as asked:
        found = asked.scores(EXAM)
    assert len(second.asked) == 2  # the one that failed, and the one after it
    assert second.asked == [first.asked[1], second.asked[1]]
    with asking(Guessing(), tmp_path / "whole") as asked:
        assert found == asked.scores(EXAM)


def test_a_full_queue_is_waited_for(tmp_path: Path) -> None:
    noting = Noting(Guessing(), fails_at=2, error=BUSY)
    with asking(noting, tmp_path, at_once=1) as asked:
        assert None not in asked.scores(EXAM)
    assert len(noting.asked) == 4


def test_a_cancelled_evaluation_asks_nothing_more(tmp_path: Path) -> None:
    with own_loop() as loop:
        runner = Runner(loop)

        def tell(kind: str, done: int, total: int) -> None:
            if done == 2:
                threading.Thread(target=runner.cancel).start()

        crowd = ConcurrentRequests(runner, AnswerCache(str(tmp_path)), 1, tell)

        async def ask(question: int) -> int:
            import asyncio

            await asyncio.sleep(0.01)
            return question

        for _ in range(2):
            with pytest.raises(CancelledError):
                crowd.ask("questions", list(range(1000)), str, ask)
        assert 2 <= len(crowd.answered) < 1000


def test_what_does_not_fit_is_answered_with_nothing(tmp_path: Path) -> None:
    subject = Guessing()
    subject.context_tokens = 10
    with asking(subject, tmp_path) as asked:
        assert [score is None for score in asked.scores([([1] * 7, [2, 3]), ([1] * 8, [2, 3])])] == [
            False,
            True,
        ]
        wanted = Continuation((), 3)
        assert [text is None for text in asked.texts([([1] * 6, wanted), ([1] * 7, wanted)])] == [False, True]


def test_answers_outlive_a_crash_but_for_those_of_the_last_seconds(tmp_path: Path) -> None:
    now = [0.0]
    answered = AnswerCache(str(tmp_path), every_s=5.0, clock=lambda: now[0])
    answered.keep("a", 1)
    now[0] = 6.0
    answered.keep("b", [1.5, None, "春"])
    answered.keep("c", 3)
    again = AnswerCache(str(tmp_path))
    assert (again["a"], again["b"], "c" in again) == (1, [1.5, None, "春"], False)
    at_once = AnswerCache(str(tmp_path), every_s=0)
    at_once.keep("d", 4)
    assert AnswerCache(str(tmp_path))["d"] == 4


def test_keys_tell_questions_apart() -> None:
    assert key("a", [1, 2], 3) == key("a", [1, 2], 3)
    assert len({key("a", [1, 2], 3), key("a", [1], 2, 3), key("a", [1, 2]), key("b", [1, 2], 3)}) == 4


def test_a_text_ends_before_the_first_thing_that_ends_it() -> None:
    assert cut_at_stop("一二三四", ["三", "二"]) == "一"
    assert cut_at_stop("一二三四", []) == "一二三四"
