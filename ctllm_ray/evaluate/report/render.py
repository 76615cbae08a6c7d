"""One self-contained HTML page about an evaluation: scores with intervals, parts, answers, and settings.

The page (html_report/html_page.py) is complete without its script. Answers of models, words of judges and
names of files are other people's text: all of it goes through the template's escaping.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from ctllm_ray.evaluate.report.words import WORDS
from ctllm_ray.evaluate.scoring.item_results import LOST, Item
from ctllm_ray.html_report import html_page

SHOWN = 20  # items of each benchmark
LONGEST = 400  # characters of an answer to show
SCALES = {"share": (0.0, 1.0), "mark": (1.0, 10.0), "bits": (0.0, 1.0)}

Plain = Mapping[str, Any]  # a score of results.json


def render_page(results: Plain, items: Sequence[Item]) -> str:
    """The page as HTML."""
    whole = [score for score in results["scores"] if not score["part"]]
    parts = [score for score in results["scores"] if score["part"]]
    counted = {key: sum(score[key] for score in whole) for key in ("items", "scored")}
    guessable = [score for score in whole if score["chance"]]
    names = [score["benchmark"] for score in whole]
    return html_page.render_page(
        __file__,
        WORDS,
        {"value": value, "interval": interval, "chance": _chance, "short": _short},
        {
            "without_seen": without_seen,
            "place": _place,
            "width": _width,
            "above_chance": _above_chance,
            "mean": mean,
            "lm_eval": lm_eval,
            "SHOWN": SHOWN,
            "LOST": LOST,
        },
        whole=whole,
        parts={name: [part for part in parts if part["benchmark"] == name] for name in names},
        answers={name: [item for item in items if item.benchmark == name][:SHOWN] for name in names},
        counted=counted,
        lost=counted["items"] - counted["scored"],
        guessable=len(guessable),
        beaten=sum(map(_above_chance, guessable)),
        notes=results.get("notes", ()),
        decisions=results["decisions"],
        fingerprint=results["fingerprint"],
        weights=_weights(results["decisions"]["model"]),
        plain=yaml.safe_dump(results["decisions"], allow_unicode=True, sort_keys=False, width=110),
    )


def value(score: Plain) -> str:
    """A score for people: 41.5 %, 6.32, 1.234 bits; a dash if nothing was scored."""
    return _number(score, score["value"])


def interval(score: Plain) -> str:
    """Its interval."""
    return (
        "–" if score["low"] is None else f"{_number(score, score['low'])} – {_number(score, score['high'])}"
    )


def _number(score: Plain, number: float | None) -> str:
    if number is None:
        return "–"
    return {"share": f"{100 * number:.1f} %", "mark": f"{number:.2f}", "bits": f"{number:.4f}"}[score["kind"]]


def describe_unseen(score: Plain) -> str:
    """The score without items that the corpus contained, in words; empty if
    there are none or it is unknown."""
    if not score.get("seen"):  # results of earlier versions lack it
        return ""
    return f", {score['seen']:,} seen in the corpus, without them {without_seen(score)}"


def without_seen(score: Plain) -> str:
    """The score on items that the corpus did not contain."""
    return _number(score, score["unseen_value"])


def lm_eval(score: Plain) -> str:
    """The value of lm-eval's own metric, if ours is another; else empty."""
    return _number(score, score["lm_eval"]) if score.get("lm_eval") is not None else ""


def mean(score: Plain) -> str:
    """The mean over the parts."""
    return _number(score, score["parts_mean"])


def _chance(score: Plain) -> str:
    return f"{100 * score['chance']:.1f} %" if score["chance"] else "–"


def _above_chance(score: Plain) -> bool:
    """True if the whole interval is above chance."""
    return bool(score["chance"]) and score["low"] is not None and score["low"] > score["chance"]


def _place(score: Plain, number: float) -> str:
    """The position of a number on its scale, in percent from the left."""
    low, high = SCALES[score["kind"]]
    return f"{100 * (number - low) / (high - low):.2f}"


def _width(score: Plain) -> str:
    low, high = SCALES[score["kind"]]
    return f"{100 * (score['high'] - score['low']) / (high - low):.2f}"


def _weights(model: Plain) -> str:
    """A short name of the model: the first digits of its weights' hashes."""
    return " ".join(str(sha)[:12] for _, sha in sorted(model["weights"].items())[:3])


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"
