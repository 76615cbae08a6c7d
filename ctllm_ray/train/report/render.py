"""One self-contained HTML page about a training run: curves, events, data and lineage.

The page (html_report/html_page.py) is complete without its script. Names of documents and groups are other
people's text: all of it goes through the template's escaping.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import yaml
from markupsafe import Markup, escape

from ctllm_ray.base import storage
from ctllm_ray.base.recipe import Recipe
from ctllm_ray.html_report import html_page
from ctllm_ray.train import objective, schedule
from ctllm_ray.train.report import curves
from ctllm_ray.train.report.curves import Axis
from ctllm_ray.train.report.run_facts import RunFacts, collect_facts
from ctllm_ray.train.report.words import WORDS
from ctllm_ray.train.tracking.records import Event

#: Events marked on the curves, with their signs; bad ones in red.
SIGNS = {
    "resumed": "↻", "resized": "⇄", "spike": "▲", "skipped": "×", "rewound": "↶",
    "checkpoint_passed_over": "!",
    "tracker_failed": "!", "data_joined": "+", "stopped": "■", "started": "▶", "finished": "●",
}  # fmt: skip
BAD = {"spike", "skipped", "rewound", "checkpoint_passed_over"}
UNMARKED = {"started", "finished", "checkpoint", "validation"}
UNLISTED = {"checkpoint", "validation"}
NEAR_SHARE = 0.012  # events closer than this share of the axis share a mark
DOCUMENTS, SAVES = 200, 15  # documents of a spike to show; checkpoints to show
COLOURS = 6


@dataclass(frozen=True)
class CurvePlot:
    """A chart: its name in WORDS, the curves, and the text next to it."""

    key: str
    drawing: Markup
    y: list[tuple[float, str]]  # percent from the top, label
    wide: bool = False
    groups: tuple[str, ...] = ()


def write_training_report(recipe: Recipe, to: str) -> None:
    """Writes the page about a recipe's run. Raises `NotFound` if it has no step yet."""
    storage.write_bytes(to, render_page(collect_facts(recipe)).encode())


def render_page(facts: RunFacts) -> str:
    """The page as HTML."""
    x = Axis(0.0, float(max(facts.total_tokens, facts.steps[-1].tokens)))
    groups = sorted(
        {g for v in facts.validation for g in v["groups"]}
        | {g for p in facts.train.mixture for g in p.shares}
    )
    return html_page.render_page(
        __file__,
        _words(facts),
        FILTERS,
        NAMES,
        f=facts,
        per=objective.find_objective(facts.train).per,
        s=_summary(facts),
        plots=_plots(facts, x, groups),
        x_ticks=[(100 * x.place(tokens), curves.short(tokens)) for tokens in x.ticks()],
        marks=_marks(facts, x),
        saves=[100 * x.place(save.tokens) for save in facts.saves if save.tokens],
        zones=_zones(facts, x),
        mixture=_mixture(facts, x),
        colours={group: f"g{index % COLOURS}" for index, group in enumerate(groups)},
        places=_places(facts, x),
        recipe=yaml.safe_dump(
            facts.recipe.decisions("train"), allow_unicode=True, sort_keys=False, width=110
        ),
    )


def _metrics(facts: RunFacts) -> list[str]:
    """Names of the objective's metrics besides its loss, in order."""
    return list(dict.fromkeys(name for record in facts.steps for name in record.metrics))


def _words(facts: RunFacts) -> dict[str, tuple[str, str]]:
    """All texts of the page. A metric without a text is shown by its name."""
    return {name: (str(escape(name)), str(escape(name))) for name in _metrics(facts)} | WORDS


def _summary(facts: RunFacts) -> dict[str, Any]:
    """The figures in the page's head."""
    steps, kinds = facts.steps, Counter(event.kind for event in facts.events)
    seconds = sum(record.seconds for record in steps)
    passed_over = len(facts.state.passed_over) if facts.state else kinds["skipped"] + kinds["rewound"]
    last: dict[str, Any] = facts.validation[-1] if facts.validation else {"groups": {}, "step": 0}
    spikes = kinds["spike"] + kinds["skipped"] + kinds["rewound"]
    counts = {"resumed": kinds["resumed"], "resized": kinds["resized"], "spike": spikes}
    workers = next((int(e.facts["workers"]) for e in reversed(facts.events) if "workers" in e.facts), 1)
    return {
        "loss": float(curves.smooth(np.array([record.loss for record in steps]))[-1]),
        "tokens": steps[-1].tokens,
        "share": min(1.0, steps[-1].tokens / facts.total_tokens),
        "finished": kinds["finished"] > 0,
        "seconds": seconds,
        "counts": {f"n_{kind}": n for kind, n in (counts | {"passed_over": passed_over}).items() if n},
        "bits": _mean([bits["bits_per_byte"] for bits in last["groups"].values()]),
        "bits_step": last["step"],
        "speed": _median([record.tokens_per_s for record in steps]),
        "mfu": _median([record.mfu for record in steps]),
        "wait": sum(record.wait_s for record in steps) / max(seconds, 1e-9),
        "stall_s": sum(save.stall_s for save in facts.saves),
        "workers": workers,
    }


def _plots(facts: RunFacts, x: Axis, groups: Sequence[str]) -> list[CurvePlot]:
    tokens = np.array([record.tokens for record in facts.steps], np.float64)
    columns = {
        key: np.array([getattr(record, key) for record in facts.steps], np.float64)
        for key in ("loss", "grad_norm", "rate", "tokens_per_s", "mfu")
    }
    waits = np.array([record.wait_s / max(record.seconds, 1e-9) for record in facts.steps])
    results = [_noisy("loss", x, tokens, columns["loss"], curves.axis(columns["loss"], log=True), wide=True)]
    if facts.validation:
        results.append(_validation(facts, x, groups))
    for name in _metrics(facts):
        values = np.array([record.metrics.get(name, math.nan) for record in facts.steps], np.float64)
        results.append(_noisy(name, x, tokens, values, curves.axis(values)))
    results.append(_steady("rate", x, tokens, columns["rate"]))
    results.append(
        _noisy("grad_norm", x, tokens, columns["grad_norm"], curves.axis(columns["grad_norm"], log=True))
    )
    from_zero = curves.axis(columns["tokens_per_s"], from_zero=True)
    results.append(_noisy("tokens_per_s", x, tokens, columns["tokens_per_s"], from_zero))
    if np.isfinite(columns["mfu"]).any():
        results.append(_noisy("mfu", x, tokens, columns["mfu"], curves.axis(columns["mfu"], from_zero=True)))
    results.append(_noisy("wait", x, tokens, waits, curves.axis(waits, from_zero=True)))
    return results


def _noisy(
    key: str, x: Axis, tokens: np.ndarray, values: np.ndarray, y: Axis, wide: bool = False
) -> CurvePlot:
    """Thin lines for single steps, bold for their average."""
    smooth = curves.smooth(values)
    at = curves.thin(values).last
    paths = [
        ("grid", curves.grid(y)),
        ("raw", curves.raw_path(x, y, tokens, values)),
        ("smooth", curves.path(x, y, tokens[at], smooth[at])),
    ]
    return CurvePlot(key, curves.drawing(paths, WORDS.get(key, (key, key))[1]), _labels(key, y), wide)


def _steady(key: str, x: Axis, tokens: np.ndarray, values: np.ndarray) -> CurvePlot:
    y = curves.axis(values, from_zero=True)
    at = curves.thin(values).last
    paths = [("grid", curves.grid(y)), ("rule", curves.path(x, y, tokens[at], values[at]))]
    return CurvePlot(key, curves.drawing(paths, WORDS[key][1]), _labels(key, y))


def _validation(facts: RunFacts, x: Axis, groups: Sequence[str]) -> CurvePlot:
    """One line per group of held-out documents."""
    lines = {
        group: [
            (v["tokens"], v["groups"][group]["bits_per_byte"])
            for v in facts.validation
            if group in v["groups"]
        ]
        for group in groups
    }
    lines = {group: points for group, points in lines.items() if points}
    y = curves.axis([bits for points in lines.values() for _, bits in points], log=True)
    paths = [("grid", curves.grid(y))]
    for group, points in lines.items():
        paths.append((f"g{groups.index(group) % COLOURS}", curves.path(x, y, *zip(*points, strict=True))))
    return CurvePlot("bits", curves.drawing(paths, WORDS["bits"][1]), _labels("bits", y), groups=tuple(lines))


def _labels(key: str, y: Axis) -> list[tuple[float, str]]:
    shown = "{:.3g} %".format if key in ("mfu", "wait") else curves.short
    unit = 100 if key in ("mfu", "wait") else 1
    return [(100 * (1 - y.place(value)), shown(unit * value)) for value in y.ticks()]


def _places(facts: RunFacts, x: Axis) -> dict[str, Any]:
    """Data of the cross-hair: up to 400 positions, each with every chart's value as text."""
    steps = facts.steps
    losses = np.array([record.loss for record in steps])
    smooth = curves.smooth(losses)
    indices = curves.thin(losses).last.tolist()
    at = [steps[i] for i in indices]
    return {
        "at": [round(x.place(record.tokens), 5) for record in at],
        "where": [f"#{record.step:,} · {curves.short(record.tokens)}" for record in at],
        "values": {
            "loss": [
                f"{_number(record.loss)} ({smooth[i]:.4f})" for i, record in zip(indices, at, strict=True)
            ],
            "bits": [_bits_at(facts, record.step) for record in at],
            "rate": [f"{record.rate:.3g}" for record in at],
            "grad_norm": [_number(record.grad_norm) for record in at],
            "tokens_per_s": [f"{record.tokens_per_s:,.0f}" for record in at],
            "mfu": [html_page.percent(record.mfu) for record in at],
            "wait": [html_page.percent(record.wait_s / max(record.seconds, 1e-9)) for record in at],
        }
        | {name: [_number(record.metrics.get(name, math.nan)) for record in at] for name in _metrics(facts)},
    }


def _bits_at(facts: RunFacts, step: int) -> str:
    """The last validation before a step."""
    before = bisect_left([v["step"] for v in facts.validation], step + 1)
    groups = facts.validation[before - 1]["groups"] if before else {}
    return ", ".join(f"{group} {bits['bits_per_byte']:.4f}" for group, bits in sorted(groups.items())) or "–"


def _marks(facts: RunFacts, x: Axis) -> list[dict[str, Any]]:
    """Marks on the curves. Nearby events share one, which links to the first of them."""
    results: list[dict[str, Any]] = []
    for index, event in enumerate(list_events(facts)):
        if event.kind in UNMARKED:
            continue
        at = x.place(_tokens_at(facts, event.step))
        near = next((mark for mark in results if abs(at - mark["share"]) < NEAR_SHARE), None)
        if near:
            near["kinds"].append(event.kind)
        else:
            results.append({"share": at, "kinds": [event.kind], "event": index})
    for mark in results:
        bad = [kind for kind in mark["kinds"] if kind in BAD]
        mark["at"], mark["bad"] = 100 * mark["share"], bool(bad)
        mark["sign"] = SIGNS.get((bad or mark["kinds"])[0], "·") + (
            str(len(mark["kinds"])) if len(mark["kinds"]) > 1 else ""
        )
    return results


def list_events(facts: RunFacts) -> list[Event]:
    """The events of the page's table, by time."""
    return [event for event in facts.events if event.kind not in UNLISTED]


def _tokens_at(facts: RunFacts, step: int) -> int:
    """Positions consumed at a step, or at the nearest recorded step."""
    at = bisect_left([record.step for record in facts.steps], step)
    return 0 if step <= 0 else facts.steps[min(at, len(facts.steps) - 1)].tokens


def _zones(facts: RunFacts, x: Axis) -> list[tuple[float, float, str]]:
    """Phases of the schedule: percent from the left, width in percent, name."""
    settings, total = facts.train.schedule, facts.train.tokens
    starts = [
        ("warmup", 0),
        ("stable", settings.warmup_tokens),
        ("decay", schedule.find_decay(settings, total).start_tokens),
    ]
    ends = [start for _, start in starts[1:]] + [total]
    spans = [(name, 100 * x.place(a), 100 * x.place(b)) for (name, a), b in zip(starts, ends, strict=True)]
    return [(a, b - a, name) for name, a, b in spans if b > a]


def _mixture(facts: RunFacts, x: Axis) -> list[tuple[float, dict[str, float]]]:
    """Phases of the mixture: width in percent, shares by group."""
    ends = [phase.until_tokens or facts.total_tokens for phase in facts.train.mixture]
    widths = np.diff([0.0, *(100 * x.place(end) for end in ends)])
    return [(float(w), dict(p.shares)) for w, p in zip(widths, facts.train.mixture, strict=True) if w > 0]


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else math.nan


def _median(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return float(np.median(finite)) if finite else math.nan


def _number(value: float) -> str:
    return (
        f"{value:.4f}"
        if math.isfinite(value) and abs(value) < 1e4
        else f"{value:.3g}"
        if value == value
        else "–"
    )


def _when(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _value(value: Any) -> str:
    """Formats a fact of an event."""
    return f"{value:.5g}" if isinstance(value, float) else str(value)


FILTERS: dict[str, Callable] = {"short": curves.short, "num": _number, "when": _when, "value": _value}
NAMES = {
    "known": WORDS.__contains__, "listed": list_events, "SIGNS": SIGNS, "BAD": BAD, "DOCUMENTS": DOCUMENTS,
    "SAVES": SAVES,
    "SMOOTH": html_page.percent(curves.SMOOTH_SHARE),
}  # fmt: skip
