"""One self-contained HTML page about a finished section: a person should want to look at it.

The page is a template, a style sheet and a script beside this file, put together with the facts of `survey`. It
carries Chinese and English and shows one; it asks nothing of any server, and its content security policy forbids it to.
Corpus text is hostile: everything goes through the template's escaping, no corpus text becomes a link or an attribute
of script, and the policy lets only our own script run (by its hash) even if something should slip through.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup, escape

from ctllm_ray.base import storage
from ctllm_ray.base.rules import Rule
from ctllm_ray.corpus import charts, facts
from ctllm_ray.corpus.facts import Breakdown, Report, RuleFacts
from ctllm_ray.corpus.report_words import WORDS
from ctllm_ray.corpus.river import river_svg
from ctllm_ray.corpus.survey import CUT_CHARS, gather

__all__ = ["gather", "render", "write"]

ALARM_KEEP_RATE = 0.8  # of a genre: below it the bounds rather than the pages are to be doubted
HOSTS, ROWS, FILES = 30, 15, 40  # rows of the tables by host, by anything else, of input files
RARE_SHARE = 0.001  # of all documents: a rule that drops less has its histogram folded away

#: Control, format, bidirectional, private-use and tag characters: shown as code points, never obeyed.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164"
    "\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff\ue000-\uf8ff\U000e0000-\U000e0fff\U000f0000-\U0010ffff]"
)


def write(folder: str, to: str) -> None:
    """Writes the page about the section in a folder. Raises `NotFound` where the section has not finished."""
    storage.write_bytes(to, render(gather(folder)).encode())


def render(report: Report) -> str:
    """The page as HTML."""
    style, script = _beside("report_page.css"), _beside("report_page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:"
    return _template().render(
        r=report,
        m=report.manifest,
        run=facts.total(report.runs),
        river=river_svg([(_names(g.family), g.dropped, g.left) for g in report.groups], report.manifest.counts["in"]),
        rejects=report.manifest.rejects(),
        shown=_sorted_rules(report),
        breakdowns=[_ordered(b) for b in sorted(report.breakdowns, key=_rank)],
        recipe=yaml.safe_dump(report.manifest.recipe, allow_unicode=True, sort_keys=False, width=110),
        policy=policy,
        tip_words={
            key: dict(zip(("zh", "en"), WORDS[f"fate_{key}"], strict=True)) for key in ("kept", "charged", "other")
        },
        style=Markup(style),
        script=Markup(script),
    )


@cache
def _beside(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {
        "n": _thousands,
        "pct": _percent,
        "size": _size,
        "num": _number,
        "short": charts.short,
        "time": _duration,
    }
    environment.filters |= {"seen": _seen, "bound": _bound, "family": _family, "big": _big, "width": _width}
    environment.globals |= {"t": _words, "histogram": charts.histogram_svg, "labels_of": _labels_of, "names": _names}
    environment.globals |= {"ALARM": f"{100 * ALARM_KEEP_RATE:g} %", "RARE": f"{100 * RARE_SHARE:g} %"}
    environment.globals |= {"FILES": FILES, "CUT_CHARS": CUT_CHARS}
    return environment.from_string(_beside("report_page.html"))


def _words(key: str, **values: object) -> Markup:
    """A phrase in both languages; the style sheet shows one."""
    chinese, english = WORDS[key]
    spans = '<span class="zh" lang="zh-Hans">{}</span><span class="en" lang="en">{}</span>'
    return Markup(spans).format(Markup(chinese).format(**values), Markup(english).format(**values))


def _names(family: str) -> tuple[str, str]:
    """A family of rules in Chinese and English, or its own name where the page knows none."""
    return WORDS.get(f"family.{family}", (family, family))


def _family(name: str) -> Markup:
    return _words(f"family.{name}") if f"family.{name}" in WORDS else _seen(name)


def _seen(text: str | None) -> Markup:
    """Corpus text, escaped, with characters that cannot be seen as code points and line ends as a mark."""
    parts, at = [], 0
    for match in _UNSEEN.finditer(text or ""):
        parts.append(escape(match.string[at : match.start()]))
        parts.append(Markup('<i class="cc">{:04X}</i>').format(ord(match[0])))
        at = match.end()
    parts.append(escape((text or "")[at:]))
    return Markup("").join(parts).replace("\n", Markup('<i class="nl">⏎</i> '))


def _thousands(value: float) -> str:
    return f"{value:,.0f}"


def _number(value: float | None) -> str:
    """A measured value with as many digits as say something."""
    if value is None or value != value:
        return "–"
    return f"{value:,.0f}" if value == round(value) and abs(value) < 1e15 else f"{value:,.4g}"


def _percent(share: float) -> str:
    """0 %, 0.04 %, 3.1 %, 61.3 %; never 0.00 % for something and never 100 % for less than all."""
    percent = 100 * share
    if 0 < percent < 0.005:
        return "< 0.01 %"
    if 99.95 <= percent < 100:
        return "> 99.9 %"
    return f"{percent:.2f} %" if 0 < percent < 1 else f"{percent:.1f} %" if percent % 100 else f"{percent:.0f} %"


def _width(share: float) -> str:
    """A share as a CSS length."""
    return f"{100 * share:.3f}%"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.3g} {unit}"
        count /= 1000
    raise AssertionError("not reached")


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _big(count: int) -> Markup:
    """A large count in the units of each language: 1.24 亿, 124 M."""
    chinese = next(
        (f"{count / s:,.4g} {u}" for s, u in ((1e12, "万亿"), (1e8, "亿"), (1e4, "万")) if count >= s), f"{count}"
    )
    english = next(
        (f"{count / s:,.4g} {u}" for s, u in ((1e12, "T"), (1e9, "G"), (1e6, "M")) if count >= s), f"{count:,}"
    )
    return Markup('<span class="zh">{}</span><span class="en">{}</span>').format(chinese, english)


def _bound(rule: Rule) -> str:
    """The bounds of a rule: ≥ 50 · ≤ 10,000."""
    if rule.accept is not None:
        return "∈ " + ", ".join(rule.accept)
    return " · ".join(f"{charts.SIGNS[key]} {bound:,g}" for key, bound in rule.bounds.items())


def _labels_of(report: Report, rule: Rule) -> Breakdown | None:
    """The breakdown by the label that a rule reads."""
    return next((b for b in report.breakdowns if b.name == rule.score), None)


def _sorted_rules(report: Report) -> dict[str, list[RuleFacts]]:
    """Rules for the histograms: those that act, those that rarely do, those that only measure."""
    line = RARE_SHARE * report.manifest.counts["in"]
    found: dict[str, list[RuleFacts]] = {"acting": [], "rare": [], "measuring": []}
    for rule in report.rules:
        kind = "measuring" if not rule.rule.decides else "acting" if rule.dropped >= max(1, line) else "rare"
        found[kind].append(rule)
    found["acting"].sort(key=lambda rule: -rule.dropped)
    return found


def _rank(breakdown: Breakdown) -> tuple[int, str]:
    order: Iterable[str] = ("genre", "script", "source", "language", "host")
    return next((i for i, name in enumerate(order) if breakdown.name.startswith(name)), 9), breakdown.name


def _ordered(breakdown: Breakdown) -> dict[str, Any]:
    """A breakdown as the page shows it: its first rows, and what the others add up to."""
    by_host = breakdown.name == "host"
    slices = sorted(breakdown.slices, key=lambda s: -s.dropped) if by_host else list(breakdown.slices)
    rows = HOSTS if by_host else ROWS
    rest = slices[rows:]
    alarms = [s for s in slices if breakdown.name == "genre" and s.value and s.keep_rate < ALARM_KEEP_RATE]
    return {
        "name": breakdown.name,
        "exact": breakdown.exact,
        "slices": slices[:rows],
        "rest": len(rest),
        "rest_documents": sum(s.documents for s in rest),
        "most": max((s.documents for s in slices), default=1),
        "alarms": alarms,
    }
