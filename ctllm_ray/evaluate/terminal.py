"""Terminal output of evaluations: scores, comparisons and progress."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

from ctllm_ray.base.live_line import LiveLine
from ctllm_ray.evaluate.report import render
from ctllm_ray.evaluate.report.words import WORDS
from ctllm_ray.evaluate.scoring.scores import Comparison

LINE_S, LIVE_S = 10.0, 0.2  # between two log lines, and between two updates of a live line
_LOST = {
    "too_long": "too long for the context",
    "unparsable": "not judged: run it again",
    "no_label": "without a label",
    "bad": "with invalid rows",
    "shown": "left out, because they are examples",
}


class EvaluationProgress:
    """Reports progress: a live line on a terminal, else a line from time to time."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._line = LiveLine(stream or sys.stderr, LINE_S, LIVE_S)

    def __call__(self, kind: str, done: int, total: int) -> None:
        """Updates: `done` of `total` are answered."""
        state = f"{kind}: {done:,} of {total:,}"
        if done == total:
            self._line.print_above(state)
        elif self._line.is_due():
            self._line.update(state)


def format_scores(results: Mapping[str, Any]) -> Iterator[str]:
    """Lines: each benchmark with its score, interval, chance and counts."""
    whole = [score for score in results["scores"] if not score["part"]]
    widest = max(len(score["benchmark"]) for score in whole)
    for score in whole:
        mean = f", mean of parts {render.mean(score)}" if score["parts_mean"] is not None else ""
        chance = f", chance {100 * score['chance']:.1f} %" if score["chance"] else ""
        lost = "".join(f", {score[reason]:,} {words}" for reason, words in _LOST.items() if score.get(reason))
        theirs = f", lm-eval's exact_match {render.lm_eval(score)}" if render.lm_eval(score) else ""
        form = f", {_form(results)}" if score["kind"] == "mark" else ""
        yield (
            f"{score['benchmark']:<{widest}}  {render.value(score):>8}  [{render.interval(score)}]  "
            f"{score['scored']:,} of {score['items']:,} "
            f"items{chance}{mean}{lost}{theirs}{form}{render.describe_unseen(score)}"
        )
    for note in results.get("notes", ()):
        words = WORDS[f"note_{note['kind']}"][1].format(n=f"{note['count']:,}")
        yield f"{note['benchmark']:<{widest}}  {words} {note['example']}"


def _form(results: Mapping[str, Any]) -> str:
    """The prompt format of a judged benchmark, in words."""
    return WORDS[f"form_{results['decisions']['judge']['form']}"][1]


def format_comparison(comparisons: Sequence[Comparison]) -> Iterator[str]:
    """Lines: each benchmark's two scores, their difference with interval, and its p-value."""
    widest = max(len(each.benchmark) for each in comparisons)
    for each in comparisons:
        one, two = (
            render.value({"kind": each.kind, "value": number}) for number in (each.first, each.second)
        )
        gap = each.difference
        scale, digits = (100, 1) if each.kind == "share" else (1, 4)
        numbers = [f"{scale * number:+.{digits}f}" for number in (gap.value, gap.low, gap.high)]
        counts = [f"{gap.items:,} items in both"]
        counts += [f"{each.only_first:,} scored in the first only"] * bool(each.only_first)
        counts += [f"{each.only_second:,} in the second only"] * bool(each.only_second)
        counts += [f"{each.other_prompts:,} with other prompts"] * bool(each.other_prompts)
        yield (
            f"{each.benchmark:<{widest}}  {one:>8} -> {two:>8}  {numbers[0]} [{numbers[1]}, {numbers[2]}]  "
            f"p = {gap.p:.3g} ({gap.test})  {', '.join(counts)}"
        )
