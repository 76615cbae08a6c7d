"""One self-contained HTML page about a finished corpus.

The page (html_report/html_page.py) shows the facts of `survey`. Corpus text is hostile: everything goes
through the template's escaping, and no corpus text becomes a link or an attribute of script.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from typing import Any

import yaml
from markupsafe import Markup, escape

from ctllm_ray.base import storage
from ctllm_ray.base.recipe_rules import Rule
from ctllm_ray.corpus.engine.losses import list_lossy
from ctllm_ray.corpus.report import facts, histograms
from ctllm_ray.corpus.report.collect import CUT_CHARS, collect_facts
from ctllm_ray.corpus.report.facts import Breakdown, Report, RuleFacts
from ctllm_ray.corpus.report.sankey import draw_sankey
from ctllm_ray.corpus.report.words import WORDS
from ctllm_ray.html_report import html_page
from ctllm_ray.text.dedup.differences import Excerpt

__all__ = ["collect_facts", "render_page", "write_corpus_report"]

ALARM_LOST_SHARE = 0.2  # drop rate of a genre above which the thresholds are suspect, not the pages
HOSTS, ROWS, FILES = 30, 15, 40  # rows in the tables of hosts, of other properties, of input files
RARE_SHARE = 0.001  # of all documents: the histogram of a rule that drops less is folded

#: Control, format, bidirectional, private-use and tag characters: shown as code points.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164"
    "\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff\ue000-\uf8ff\U000e0000-\U000e0fff\U000f0000-\U0010ffff]"
)


def write_corpus_report(folder: str, to: str) -> None:
    """Writes the page about the section in a folder. Raises `NotFound` if the section is not finished."""
    storage.write_bytes(to, render_page(collect_facts(folder)).encode())


def render_page(report: Report) -> str:
    """The page as HTML."""
    passes = {part["use"] for part in report.manifest.recipe.get("passes", ())}
    return html_page.render_page(
        __file__,
        WORDS,
        FILTERS,
        NAMES,
        r=report,
        m=report.manifest,
        run=facts.total(report.runs),
        river=draw_sankey(
            [(_names(g.family), g.dropped, g.left) for g in report.groups], report.manifest.documents
        ),
        rejects=report.manifest.rejects(),
        lossy=list_lossy(report.manifest.inputs),
        shown=_sorted_rules(report),
        breakdowns=[_order_breakdown(b, passes) for b in sorted(report.breakdowns, key=_rank) if _tells(b)],
        recipe=yaml.safe_dump(report.manifest.recipe, allow_unicode=True, sort_keys=False, width=110),
        tip_words={
            key: dict(zip(("zh", "en"), WORDS[f"fate_{key}"], strict=True))
            for key in ("kept", "charged", "other")
        },
    )


def _names(family: str) -> tuple[str, str]:
    """A family of rules in Chinese and English; its own name if the page has no text for it."""
    return WORDS.get(f"family.{family}", (family, family))


def _family(name: str) -> Markup:
    return html_page.phrase(WORDS, f"family.{name}") if f"family.{name}" in WORDS else _escape_visibly(name)


def _escape_visibly(text: str | None) -> Markup:
    """Escaped corpus text; invisible characters are shown as code points, line ends as a mark."""
    parts, at = [], 0
    for match in _UNSEEN.finditer(text or ""):
        parts.append(escape(match.string[at : match.start()]))
        parts.append(Markup('<i class="cc">{:04X}</i>').format(ord(match[0])))
        at = match.end()
    parts.append(escape((text or "")[at:]))
    return Markup("").join(parts).replace("\n", Markup('<i class="nl">⏎</i> '))


def _mark_differences(excerpt: Excerpt) -> Markup:
    """An excerpt in which text that only this page has is marked."""
    pieces = (
        Markup("<mark>{}</mark>").format(_escape_visibly(text)) if only else _escape_visibly(text)
        for text, only in excerpt.pieces
    )
    return Markup("").join(pieces)


def _number(value: float | None) -> str:
    """A measured value with a useful number of digits."""
    if value is None or value != value:
        return "–"
    return f"{value:,.0f}" if value == round(value) and abs(value) < 1e15 else f"{value:,.4g}"


def _width(share: float) -> str:
    """A share as a CSS length."""
    return f"{100 * share:.3f}%"


def _big(count: int) -> Markup:
    """A large count in the units of each language: 1.24 亿, 124 M."""
    chinese = next(
        (f"{count / s:,.4g} {u}" for s, u in ((1e12, "万亿"), (1e8, "亿"), (1e4, "万")) if count >= s),
        f"{count}",
    )
    english = next(
        (f"{count / s:,.4g} {u}" for s, u in ((1e12, "T"), (1e9, "G"), (1e6, "M")) if count >= s),
        f"{count:,}",
    )
    return Markup('<span class="zh">{}</span><span class="en">{}</span>').format(chinese, english)


def _bound(rule: Rule) -> str:
    """The thresholds of a rule: ≥ 50 · ≤ 10,000."""
    if rule.accept is not None:
        return "∈ " + ", ".join(rule.accept)
    return " · ".join(f"{histograms.SIGNS[key]} {bound:,g}" for key, bound in rule.bounds.items())


def _labels_of(report: Report, rule: Rule) -> Breakdown | None:
    """The breakdown by the label that a rule reads."""
    return next((b for b in report.breakdowns if b.name == rule.score), None)


def _sorted_rules(report: Report) -> dict[str, list[RuleFacts]]:
    """Rules for the histograms: active ones, rarely active ones, and those that only measure."""
    line = RARE_SHARE * report.manifest.documents
    rules: dict[str, list[RuleFacts]] = {"acting": [], "rare": [], "measuring": []}
    for rule in report.rules:
        kind = "measuring" if not rule.rule.decides else "acting" if rule.dropped >= max(1, line) else "rare"
        rules[kind].append(rule)
    rules["acting"].sort(key=lambda rule: -rule.dropped)
    return rules


def _rank(breakdown: Breakdown) -> tuple[int, str]:
    order: Iterable[str] = ("genre", "script", "source", "language", "host")
    return next((i for i, name in enumerate(order) if breakdown.name.startswith(name)), 9), breakdown.name


def _tells(breakdown: Breakdown) -> bool:
    """Whether a breakdown has more than unknown values. A lack of URLs is also worth showing."""
    return breakdown.name == "host" or any(s.value is not None for s in breakdown.slices)


def _order_breakdown(breakdown: Breakdown, passes: Collection[str]) -> dict[str, Any]:
    """A breakdown for the page: its first rows, the sum of the others, and genres with suspect thresholds.

    What passes drop (copies) says nothing about bounds.
    """
    by_host = breakdown.name == "host"
    slices = sorted(breakdown.slices, key=lambda s: -s.dropped) if by_host else list(breakdown.slices)
    rows = HOSTS if by_host else ROWS
    rest = slices[rows:]
    genres = [s for s in slices if breakdown.name == "genre" and s.value]
    alarms = [s for s in genres if s.lost_share(passes) > ALARM_LOST_SHARE]
    return {
        "name": breakdown.name,
        "exact": breakdown.exact,
        "slices": slices[:rows],
        "rest": len(rest),
        "rest_documents": sum(s.documents for s in rest),
        "most": max((s.documents for s in slices), default=1),
        "alarms": alarms,
    }


FILTERS: dict[str, Callable] = {
    "num": _number, "short": histograms.short, "seen": _escape_visibly, "bound": _bound, "family": _family, "big": _big,
    "width": _width, "marked": _mark_differences,
}  # fmt: skip
NAMES = {
    "histogram": histograms.histogram_svg, "labels_of": _labels_of, "names": _names, "FILES": FILES,
    "CUT_CHARS": CUT_CHARS, "ALARM": f"{100 * ALARM_LOST_SHARE:g} %", "RARE": f"{100 * RARE_SHARE:g} %",
}  # fmt: skip
