"""The report's page: every score with its interval, what was not scored, and text of strangers that stays
text."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser

import pytest

from ctllm_ray.evaluate.report import render
from ctllm_ray.evaluate.report.words import WORDS
from ctllm_ray.evaluate.scoring import scores
from ctllm_ray.evaluate.scoring.item_results import LOST, SCORED, TOO_LONG, UNPARSABLE, Item

HOSTILE = "</td><script>alert(1)</script><img src=x onerror=alert(2)>\u202e"
DECIDED = {
    "model": {"weights": {"model.safetensors": "ab" * 32}, "tokenizer": "cd" * 32},
    "files": {"cmmlu.jsonl": "ef" * 32},
    "tasks": [],
    "seed": 0,
    "lm_eval": "0.4.13",
    "judge": {"model": "judge-1", "prompt_sha256": "12" * 32},
}


def items() -> list[Item]:
    exam = [
        Item("cmmlu", ("anatomy", "arts")[n % 2], f"f#{n}", SCORED, float(n % 3 == 0), 0.25, "0", "1")
        for n in range(30)
    ]
    return [
        *exam,
        Item("cmmlu", "arts", "f#99", TOO_LONG, None),
        Item("chc_bench", "math", "c#0", SCORED, 7.0, answer=HOSTILE, said=HOSTILE),
        Item("chc_bench", "math", "c#1", UNPARSABLE, None, said="？"),
        Item(
            "bits_per_byte",
            "web",
            "d#0",
            SCORED,
            1.25,
            nats=2.5 * math.log(2),
            text_bytes=2,
            answer="1 pieces",
        ),
    ]


@pytest.fixture
def page() -> str:
    told = [score.plain() for score in scores.compute_scores(items(), seed=0, resamples=20)]
    return render.render_page({"scores": told, "decisions": DECIDED, "fingerprint": "34" * 32}, items())


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_every_score_stands_there_with_its_interval_and_chance(page: str) -> None:
    for part in ("33.3 %", "19.2 % – 51.2 %", "25.0 %", "7.00", "1.2500", "anatomy", "arts"):
        assert part in page


def test_what_was_not_scored_is_told_with_the_reason(page: str) -> None:
    assert "30 / 31" in re.sub(r"\s+", " ", page)
    assert WORDS["too_long"][1].format(n=1) in page
    assert WORDS["unparsable"][1].format(n=1) in page
    assert WORDS["lead_lost"][0].format(n=2) in page


def test_text_of_strangers_stays_text_and_nothing_is_asked_of_anyone(page: str) -> None:
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert "img" not in tags.seen
    assert tags.seen.count("script") == 1
    assert "&lt;script&gt;alert(1)" in page
    assert "default-src &#39;none&#39;" in page
    assert not re.search(r"(?:src|href)=\"https?:", page)


def test_what_the_scores_depend_on_is_told(page: str) -> None:
    for part in ("ab" * 32, "cd" * 32, "ef" * 32, "12" * 32, "34" * 32, "0.4.13", "judge-1"):
        assert part in page


def test_nothing_scored_is_a_dash() -> None:
    some = [Item("cmmlu", "arts", "f#0", TOO_LONG, None)]
    told = [score.plain() for score in scores.compute_scores(some, seed=0, resamples=20)]
    found = render.render_page({"scores": told, "decisions": DECIDED, "fingerprint": ""}, some)
    assert "–" in found
    assert render.value(told[0]) == render.interval(told[0]) == "–"


def test_every_phrase_is_used_and_stands_in_both_languages() -> None:
    from pathlib import Path

    template = Path(render.__file__).with_name("report_page.html").read_text("utf-8")
    for name, (chinese, english) in WORDS.items():
        assert chinese
        assert english
        used = (
            f'"{name}"' in template
            or name in LOST
            or name.startswith(("nav_", "form_", "note_"))
            or name.endswith("_one")
        )
        assert used, name
