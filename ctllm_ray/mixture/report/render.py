"""One self-contained HTML page about a sweep: verdict, mixture, trust in the law, and all trials.

The page (html_report/html_page.py) is complete without its script, which only switches the language. Names of
groups are other people's text: all of it goes through the template's escaping.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml
from markupsafe import Markup

from ctllm_ray.base.resolve import LAWS, load_module
from ctllm_ray.html_report import html_page
from ctllm_ray.mixture import evidence
from ctllm_ray.mixture.choose import LEAST_RANK_CORRELATION, Choice
from ctllm_ray.mixture.plan import SweepPlan, run_name
from ctllm_ray.mixture.quality import Fit
from ctllm_ray.mixture.replicates import Tried, gather_runs
from ctllm_ray.mixture.report.words import WORDS
from ctllm_ray.mixture.results import Trial
from ctllm_ray.model.config import for_recipe, parameters
from ctllm_ray.train.plan import data_and_storage
from ctllm_ray.train.report import curves
from ctllm_ray.train.report.curves import Axis

COLOURS = 6


@dataclass(frozen=True)
class Dot:
    """A mark in a chart: percent from the left and from the top."""

    left: float
    top: float
    label: str
    kind: str = ""


@dataclass(frozen=True)
class LawPlot:
    """A chart of dots: ticks are (percent, label)."""

    title: str | Markup
    note: str | Markup
    drawing: Markup
    dots: list[Dot]
    x: list[tuple[float, str]]
    y: list[tuple[float, str]]


def render_page(plan: SweepPlan, trials: Sequence[Trial], chosen: Choice) -> str:
    """The page as HTML."""
    tried = gather_runs(trials, plan.sweep.weights)
    measured = {each.number: each.mean for each in tried}
    decisions = yaml.safe_dump(plan.decisions(), allow_unicode=True, sort_keys=False, width=110)
    return html_page.render_page(
        __file__,
        WORDS,
        {"short": curves.short, "bits": _bits, "rank": _rank},
        {},
        plan=plan,
        c=chosen,
        s=_summary(plan, trials, chosen),
        verdict=_verdict(chosen),
        why=_why(chosen, tried, len(trials)),
        groups=[_group(plan, chosen, name) for name in plan.region.groups],
        colours={name: f"g{index % COLOURS}" for index, name in enumerate(plan.region.groups)},
        fits=[_fit_plot(fit, tried, measured) for fit in chosen.fits],
        along=[_along(plan, chosen, name, tried, measured) for name in plan.region.groups] if tried else [],
        domains=[_domain(plan, chosen, name, tried) for name in plan.domains] if tried else [],
        tried=sorted(tried, key=lambda each: each.mean),
        diverged=[(run_name(one.number, one.replicate), one) for one in trials if one.status == "diverged"],
        left_out=dict(zip(measured, chosen.fits[0].left_out, strict=True)) if chosen.fits else {},
        decisions=decisions,
    )


def _summary(plan: SweepPlan, trials: Sequence[Trial], chosen: Choice) -> dict[str, Any]:
    """The figures in the page's head."""
    trial = plan.trial(0)
    assert trial.model is not None
    assert trial.train is not None
    vocabulary = data_and_storage.vocab_size(trial, data_and_storage.token_counts(trial))
    config = for_recipe(trial.model, vocabulary, trial.train.sequence_tokens)
    seconds = [one.seconds for one in trials]
    return {
        "trials": len(trials),
        "diverged": sum(one.status == "diverged" for one in trials),
        "best": chosen.fits[0] if chosen.fits else None,
        "parameters": parameters(config),
        "seconds": sum(seconds),
        "seconds_each": sum(seconds) / len(seconds) if seconds else 0.0,
    }


def _verdict(chosen: Choice) -> Markup:
    """The page's first sentence: what to train with."""
    known = {"gain": _bits(chosen.gain), "least": _bits(chosen.gain_interval[0]), "number": chosen.number}
    return html_page.phrase(WORDS, f"verdict_{chosen.by}", **known)


def _why(chosen: Choice, tried: Sequence[Tried], runs: int) -> list[Markup]:
    """The sentences that explain the choice."""
    said = (
        [html_page.phrase(WORDS, f"reason_{chosen.reason}", n=len(tried), runs=runs)] if chosen.reason else []
    )
    if chosen.fits:
        best = chosen.fits[0]
        known = {
            "rank": _rank(best.rank_correlation),
            "low": _rank(best.interval[0]),
            "high": _rank(best.interval[1]),
        }
        law = _name_law(best.law)
        said.append(
            html_page.phrase(WORDS, "why_rank", law=law, n=len(tried), least=LEAST_RANK_CORRELATION, **known)
        )
    if math.isfinite(chosen.p):
        said.append(html_page.phrase(WORDS, "why_p", p=f"{chosen.p:.1%}", most=f"{evidence.EACH:.1%}"))
    if chosen.noise.freedom:
        said.append(
            html_page.phrase(WORDS, "why_noise", noise=_bits(chosen.noise.deviation), n=chosen.noise.freedom)
        )
    return said


def _group(plan: SweepPlan, chosen: Choice, name: str) -> dict[str, Any]:
    """A group's row; shares between 0 and 1."""
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


def _fit_plot(fit: Fit, good: Sequence[Tried], measured: Mapping[int, float]) -> LawPlot:
    """A law's prediction of each trial without it, against the measurement; same scale on both axes."""
    values = np.array([measured[trial.number] for trial in good])
    axis = curves.axis(np.concatenate([values, fit.left_out]))
    dots = [
        Dot(
            100 * axis.place(said),
            100 * (1 - axis.place(value)),
            f"{trial.number}: {_bits(said)} → {_bits(value)}",
        )
        for trial, said, value in zip(good, fit.left_out, values, strict=True)
    ]
    line = curves.path(axis, axis, [axis.low, axis.high], [axis.low, axis.high])
    drawing = curves.drawing([("grid", curves.grid(axis)), ("rule", line)], fit.law)
    known = {"rank": _rank(fit.rank_correlation), "error": _bits(fit.error_bits)}
    return LawPlot(
        _name_law(fit.law),
        html_page.phrase(WORDS, "rank_of", **known),
        drawing,
        dots,
        _across(axis),
        _up(axis),
    )


def _along(
    plan: SweepPlan, chosen: Choice, name: str, good: Sequence[Tried], measured: Mapping[int, float]
) -> LawPlot:
    """Measured bits over the share of one group."""
    values = [measured[trial.number] for trial in good]
    known = [chosen.expected] if math.isfinite(chosen.expected) else []
    x = curves.axis([trial.shares[name] for trial in good] + [chosen.shares[name]])
    y = curves.axis(values + known)
    dots = [
        Dot(100 * x.place(trial.shares[name]), 100 * (1 - y.place(value)), f"{trial.number}: {_bits(value)}")
        for trial, value in zip(good, values, strict=True)
    ]
    dots += [
        Dot(100 * x.place(chosen.shares[name]), 100 * (1 - y.place(v)), _bits(v), "chosen") for v in known
    ]
    shares = [(100 * x.place(tick), f"{100 * tick:g}%") for tick in x.ticks()]
    return LawPlot(name, "", curves.drawing([("grid", curves.grid(y))], name), dots, shares, _up(y))


def _domain(plan: SweepPlan, chosen: Choice, name: str, good: Sequence[Tried]) -> dict[str, Any]:
    """A held-out group's row: measured bits per byte, and the better law's predictions for two mixtures."""
    bits = [trial.bits[name] for trial in good]
    pair = [plan.mixtures[0], chosen.shares]
    shares = np.array([[mixture[group] for group in plan.region.groups] for mixture in pair])
    best = chosen.fits[0] if chosen.fits else None
    said = (
        load_module(LAWS, best.law).predict(best.parameters[name], shares) if best else (math.nan, math.nan)
    )
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


def _name_law(law: str) -> Markup:
    return html_page.phrase({law: load_module(LAWS, law).NAME}, law)


def _bits(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "–"


def _rank(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")
