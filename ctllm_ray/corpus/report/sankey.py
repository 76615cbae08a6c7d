"""The funnel as a Sankey diagram: the band's width is what
is left, and each family of rules branches off a stream.

One inline SVG that takes its colours from the page. Families that drop under a hundredth of all documents
only narrow the band; the table of steps names them.
"""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup, escape

WIDTH, HEIGHT, TOP, FLOOR = 1080.0, 330.0, 34.0, 286.0
START, END = 96.0, 960.0  # range in which streams branch off
DEPTH = 170.0  # width of the band before any drop
NAMED_SHARE = 0.01  # of all documents: smaller streams are not drawn


def draw_sankey(groups: Sequence[tuple[tuple[str, str], int, int]], total: int) -> Markup:
    """The diagram of groups ((Chinese, English) name, dropped, left); empty if no document was read."""
    if not total:
        return Markup("")
    left = groups[-1][2] if groups else total
    drawn = [group for group in groups if group[1] >= NAMED_SHARE * total]
    slot = min(190.0, (END - START) / max(1, len(drawn)))
    stop = START + slot * len(drawn) + 144
    lower, streams = [(0.0, DEPTH)], []
    for i, (name, dropped, after) in enumerate(drawn):
        x, above, fall = START + i * slot, DEPTH * after / total, DEPTH * dropped / total
        lower += [(x, above + fall), (x, above)]
        streams.append(_stream(x, slot, TOP + above, TOP + above + fall))
        streams.append(
            _label(
                x + 0.9 * slot - min(fall, 0.56 * slot) / 2, name, dropped / total, i % 2 if slot < 84 else 0
            )
        )
    lower.append((stop, DEPTH * left / total))
    back = "".join(f"L{x:.1f} {TOP + y:.1f}" for x, y in reversed(lower))
    return Markup(
        f'<svg class="river" viewBox="0 0 {stop:.0f} {HEIGHT:.0f}" aria-hidden="true">'
        '<defs><linearGradient id="falling" x1="0" y1="0" x2="0" y2="1"><stop class="near" offset="0.25"/>'
        '<stop class="far" offset="1"/></linearGradient></defs>'
        f'<path class="water" d="M0 {TOP}H{stop:.1f}{back}Z"/>{"".join(streams)}'
        f'<text class="end" x="20" y="{TOP + 32}">{total:,}</text>'
        f'<text class="end" x="{stop - 20:.1f}" y="{TOP + 32}" text-anchor="end">{left:,}</text></svg>'
    )


def _stream(x: float, slot: float, upper: float, lower: float) -> str:
    """The stream of one family: from the lower side of the band, over the edge, down to the floor."""
    right = x + 0.9 * slot
    left = right - max(1.5, min(lower - upper, 0.56 * slot))
    bend = max(TOP + DEPTH + 30, lower + 20)
    outer = f"C{x + 0.5 * slot:.1f} {upper:.1f} {right:.1f} {upper + 20:.1f} {right:.1f} {bend:.1f}"
    inner = f"C{left:.1f} {lower + 14:.1f} {x + 0.2 * slot:.1f} {lower:.1f} {x:.1f} {lower:.1f}"
    path = f"M{x - 1:.1f} {upper:.1f}H{x:.1f}{outer}V{FLOOR}H{left:.1f}V{bend:.1f}{inner}H{x - 1:.1f}Z"
    return f'<path class="stream" d="{path}"/>'


def _label(x: float, name: tuple[str, str], share: float, row: int) -> str:
    y = FLOOR + 18 + 15 * row
    chinese, english = map(escape, name)
    return (
        f'<text class="who" x="{x:.1f}" y="{y:.1f}" text-anchor="middle">'
        f'<tspan class="zh">{chinese}</tspan><tspan class="en">{english}</tspan></text>'
        f'<text class="much" x="{x:.1f}" y="{y + 15:.1f}" text-anchor="middle">−{100 * share:.1f} %</text>'
    )
