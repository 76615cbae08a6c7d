"""Builds a report as one self-contained HTML file from a template, a style sheet, a script and facts.

A page carries Chinese and English and shows one. It asks nothing of any server, and its content security
policy forbids it to: only our own scripts run, by their hashes, even if something should slip through the
template's escaping.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

HERE = Path(__file__).parent
Words = Mapping[str, tuple[str, str]]  # phrases of a page by key: (Chinese, English)


def render_page(
    module: str, words: Words, filters: Mapping[str, Callable], names: Mapping[str, Any], **facts: Any
) -> str:
    """Renders the page of a module from `report_page.html`, `.css` and an optional `.js` beside its file.

    `filters` and `names` are added to what every template has: the filters n, pct, size and time, and `t`,
    which gives a phrase in both languages. What pages share stands beside this file: macros in page.html,
    `house_style` and `language_switch`.
    """
    template, style, script = (
        _read_if_there(Path(module).with_name(f"report_page.{kind}")) for kind in ("html", "css", "js")
    )
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"n": "{:,.0f}".format, "pct": percent, "size": size, "time": duration, **filters}
    environment.globals |= {"t": lambda key, **values: phrase(words, key, **values), **names}
    house_style, language_switch = (_read_if_there(HERE / f"page.{kind}") for kind in ("css", "js"))
    ours = " ".join(_hash(each) for each in (language_switch, script))
    return environment.from_string(template).render(
        facts,
        policy=f"default-src 'none'; style-src 'unsafe-inline'; script-src {ours}; img-src data:",
        house_style=Markup(house_style),
        language_switch=Markup(language_switch),
        style=Markup(style),
        script=Markup(script),
    )


def _read_if_there(path: Path) -> str:
    """The text of a file; empty if it does not exist."""
    return path.read_text("utf-8") if path.exists() else ""


def _hash(script: str) -> str:
    """The hash that identifies a script in a content security policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def phrase(words: Words, key: str, **values: object) -> Markup:
    """A phrase in both languages; the style sheet shows one of them."""
    chinese, english = words[key]
    spans = '<span class="zh" lang="zh-Hans">{}</span><span class="en" lang="en">{}</span>'
    return Markup(spans).format(Markup(chinese).format(**values), Markup(english).format(**values))


def percent(share: float) -> str:
    """Formats a share: 0 %, 0.04 %, 3.1 %, 61.3 %. Never 0.00 % for something,
    never 100 % for less than all."""
    if not math.isfinite(share):
        return "–"
    value = 100 * share
    if 0 < value < 0.005:
        return "< 0.01 %"
    if 99.95 <= value < 100:
        return "> 99.9 %"
    return f"{value:.2f} %" if 0 < value < 1 else f"{value:.1f} %" if value % 100 else f"{value:.0f} %"


def size(count: float) -> str:
    """Formats bytes: 12 B, 3.4 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"


def duration(seconds: float) -> str:
    """Formats seconds: 12 s, 3 min 05 s, 41 h 07 min."""
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
