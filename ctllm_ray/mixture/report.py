"""One self-contained HTML page about a sweep: the mixture, how far to trust the law, every trial, whence it comes.

The page (base/page.py) is complete without its script, which only switches the language. Names of groups are other
people's text: all of it goes through the template's escaping.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml
from markupsafe import Markup

from ctllm_ray.base import page
from ctllm_ray.mixture import quality
from ctllm_ray.mixture.choose import LEAST_RANK_CORRELATION, Choice, is_good
from ctllm_ray.mixture.plan import Plan
from ctllm_ray.mixture.quality import Fit
from ctllm_ray.mixture.report_words import WORDS
from ctllm_ray.mixture.results import Trial
from ctllm_ray.model import config as shapes
from ctllm_ray.train import curves, supply
from ctllm_ray.train.curves import Axis

COLOURS = 6


@dataclass(frozen=True)
class Dot:
    """A mark in a chart: percent from the left and from the top."""

    left: float
    top: float
    label: str
    kind: str = ""


@dataclass(frozen=True)
class Plot:
    """A chart of dots: ticks are (percent, label)."""

    title: str | Markup
    note: str | Markup
    drawing: Markup
    dots: list[Dot]
    x: list[tuple[float, str]]
    y: list[tuple[float, str]]


def render(plan: Plan, trials: Sequence[Trial], chosen: Choice) -> str:
    """The page as HTML."""
    good = [trial for trial in trials if trial.status == "finished"]
    measured = {trial.number: trial.objective(plan.sweep.weights) for trial in good}
    decisions = yaml.safe_dump(plan.decisions(), allow_unicode=True, sort_keys=False, width=110)
    return page.render(
        __file__,
        WORDS,
        {"short": curves.short, "bits": _bits, "rank": _rank},
        {},
        plan=plan,
        c=chosen,
        s=_summary(plan, trials, chosen),
        why=_why(chosen, len(good), len(trials) - len(good), measured),
        groups=[_group(plan, chosen, name) for name in plan.region.groups],
        colours={name: f"g{index % COLOURS}" for index, name in enumerate(plan.region.groups)},
        fits=[_fit_plot(fit, good, measured) for fit in chosen.fits],
        along=[_along(plan, chosen, name, good, measured) for name in plan.region.groups] if good else [],
        domains=[_domain(plan, chosen, name, good) for name in plan.domains] if good else [],
        trials=sorted(trials, key=lambda trial: (trial.number not in measured, measured.get(trial.number, 0.0))),
        measured=measured,
        left_out=dict(zip(measured, chosen.fits[0].left_out, strict=True)) if chosen.fits else {},
        decisions=decisions,
    )


def _summary(plan: Plan, trials: Sequence[Trial], chosen: Choice) -> dict[str, Any]:
    """The figures of the page's head."""
    trial = plan.trial(0)
    assert trial.model is not None
    assert trial.train is not None
    vocabulary = supply.vocab_size(trial, supply.token_counts(trial))
    config = shapes.for_recipe(trial.model, vocabulary, trial.train.sequence_tokens)
    seconds = [one.seconds for one in trials]
    key, giant = _giant(chosen)
    return {
        "giant": giant,
        "giant_key": key,
        "trials": len(trials),
        "diverged": sum(one.status == "diverged" for one in trials),
        "best": chosen.fits[0] if chosen.fits else None,
        "parameters": shapes.parameters(config),
        "seconds": sum(seconds),
        "seconds_each": sum(seconds) / len(seconds) if seconds else 0.0,
    }


def _giant(chosen: Choice) -> tuple[str, float]:
    """The page's one large figure: its name in WORDS, bits per byte."""
    if chosen.by == "law":
        return "giant_gain", chosen.gain
    if chosen.by == "best_trial" and math.isfinite(chosen.gain):
        return "giant_measured", chosen.gain
    return ("giant_bits" if math.isfinite(chosen.expected) else "giant_none"), chosen.expected


def _why(chosen: Choice, finished: int, diverged: int, measured: Mapping[int, float]) -> list[Markup]:
    """The sentences that say how the choice was made."""
    if not finished:
        return [page.phrase(WORDS, "why_nothing", n=diverged)]
    said = []
    if not chosen.fits:
        said.append(page.phrase(WORDS, "why_too_few", n=finished))
    else:
        best = chosen.fits[0]
        known = {"rank": _rank(best.rank_correlation), "low": _rank(best.interval[0]), "high": _rank(best.interval[1])}
        key = "why_law" if is_good(best) else "why_not_good"
        said.append(
            page.phrase(WORDS, key, law=page.phrase(WORDS, best.law), n=finished, least=LEAST_RANK_CORRELATION, **known)
        )
    if chosen.by == "law":
        low, high = chosen.gain_interval
        said.append(page.phrase(WORDS, "why_gain", gain=_bits(chosen.gain), low=_bits(low), high=_bits(high)))
        return said if low > 0 else [*said, page.phrase(WORDS, "why_no_gain")]
    number = min(measured, key=lambda one: measured[one])
    return [*said, page.phrase(WORDS, f"why_{chosen.by}", number=number)]


def _group(plan: Plan, chosen: Choice, name: str) -> dict[str, Any]:
    """A group's row: shares as parts of one."""
    at = plan.region.groups.index(name)
    return {
        "name": name,
        "token_share": plan.token_shares[name],
        "chosen": chosen.shares[name],
        "least": plan.region.least[at] / plan.region.block,
        "most": plan.region.most[at] / plan.region.block,
        "runner_up": chosen.runner_up.get(name),
        "by_epochs": plan.caps[name] < plan.sweep.bounds[name][1],
    }


def _fit_plot(fit: Fit, good: Sequence[Trial], measured: Mapping[int, float]) -> Plot:
    """What a law said of each trial without it, against what was measured: one scale on both axes."""
    values = np.array([measured[trial.number] for trial in good])
    axis = curves.axis(np.concatenate([values, fit.left_out]))
    dots = [
        Dot(100 * axis.place(said), 100 * (1 - axis.place(value)), f"{trial.number}: {_bits(said)} → {_bits(value)}")
        for trial, said, value in zip(good, fit.left_out, values, strict=True)
    ]
    line = curves.path(axis, axis, [axis.low, axis.high], [axis.low, axis.high])
    drawing = curves.drawing([("grid", curves.grid(axis)), ("rule", line)], fit.law)
    known = {"rank": _rank(fit.rank_correlation), "error": _bits(fit.error_bits)}
    return Plot(
        page.phrase(WORDS, fit.law), page.phrase(WORDS, "rank_of", **known), drawing, dots, _across(axis), _up(axis)
    )


def _along(plan: Plan, chosen: Choice, name: str, good: Sequence[Trial], measured: Mapping[int, float]) -> Plot:
    """Measured bits over the share of one group."""
    values = [measured[trial.number] for trial in good]
    known = [chosen.expected] if math.isfinite(chosen.expected) else []
    x = curves.axis([trial.shares[name] for trial in good] + [chosen.shares[name]])
    y = curves.axis(values + known)
    dots = [
        Dot(100 * x.place(trial.shares[name]), 100 * (1 - y.place(value)), f"{trial.number}: {_bits(value)}")
        for trial, value in zip(good, values, strict=True)
    ]
    dots += [Dot(100 * x.place(chosen.shares[name]), 100 * (1 - y.place(v)), _bits(v), "chosen") for v in known]
    shares = [(100 * x.place(tick), f"{100 * tick:g}%") for tick in x.ticks()]
    return Plot(name, "", curves.drawing([("grid", curves.grid(y))], name), dots, shares, _up(y))


def _domain(plan: Plan, chosen: Choice, name: str, good: Sequence[Trial]) -> dict[str, Any]:
    """A held-out group's row: measured bits per byte, and what the better law says of two mixtures."""
    bits = [trial.bits[name] for trial in good]
    pair = [plan.mixtures[0], chosen.shares]
    shares = np.array([[mixture[group] for group in plan.region.groups] for mixture in pair])
    best = chosen.fits[0] if chosen.fits else None
    said = quality.LAWS[best.law].predict(best.parameters[name], shares) if best else (math.nan, math.nan)
    return {
        "name": name,
        "weight": plan.sweep.weights.get(name, 0.0),
        "low": min(bits),
        "high": max(bits),
        "before": float(said[0]),
        "after": float(said[1]),
    }


def _across(axis: Axis) -> list[tuple[float, str]]:
    return [(100 * axis.place(value), f"{value:.4g}") for value in axis.ticks()]


def _up(axis: Axis) -> list[tuple[float, str]]:
    return [(100 * (1 - axis.place(value)), f"{value:.4g}") for value in axis.ticks()]


def _bits(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "–"


def _rank(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")
