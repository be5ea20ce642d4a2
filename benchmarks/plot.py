"""A bar chart of ratios, as an SVG file that is legible on a light and on a dark screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

from benchmarks.measure import Spread

# The chart brings its own background: a page may be dark where the system is light.
STYLE = """
text { font: 13px system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; fill: #1f2328; }
.title { font-size: 16px; font-weight: 600; }
.group { font-weight: 600; }
.value { stroke: #ffffff; stroke-width: 4px; paint-order: stroke; }
.small { font-size: 12px; fill: #59636e; }
.page { fill: #ffffff; stroke: #d1d9e0; }
.bar { fill: #9aa4af; }
.ours { fill: #1f6feb; }
.one { stroke: #818b98; stroke-dasharray: 3 3; }
.spread { stroke: #1f2328; stroke-width: 1.5; }
.goal { stroke: #cf222e; stroke-width: 3; }
.cut { fill: #ffffff; }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc; }
  .small { fill: #9198a1; }
  .value { stroke: #0d1117; }
  .page { fill: #0d1117; stroke: #3d444d; }
  .bar { fill: #656c76; }
  .ours { fill: #4493f8; }
  .one { stroke: #9198a1; }
  .spread { stroke: #f0f6fc; }
  .goal { stroke: #ff7b72; }
  .cut { fill: #0d1117; }
}
"""
XMLNS = "http://www.w3.org/2000/svg"
CUT = 4  # or the long ones would hide how the short ones differ
WIDTH, LEFT, RIGHT, ROW, TOP = 760, 220, 70, 22, 64


@dataclass(frozen=True)
class Bar:
    """One ratio, with the middle half of its rounds."""

    group: str
    label: str
    ratio: float
    low: float
    high: float
    goal: float | None = None

    @classmethod
    def of(cls, group: str, label: str, found: Spread, goal: float | None = None) -> Bar:
        """Return the bar of what was measured."""
        return cls(group, label, found.median, found.low, found.high, goal)

    @property
    def kind(self) -> str:
        return "ours" if self.label.startswith(("ours", "quattro_core")) else "bar"


def chart(title: str, bars: Sequence[Bar]) -> str:
    """Return an SVG image: a bar for each ratio, a line where it is 1, a mark where its goal is."""
    longest = max(max(bar.ratio, bar.goal or 0) for bar in bars)
    unit = (WIDTH - LEFT - RIGHT) / min(max(longest, 1.0), CUT)
    legend = "Less is better. Dashed: 1. Red: the goal. Thin: the middle half of the rounds."
    if longest > CUT:
        legend += f" Bars end at {CUT}."
    parts = [_text(16, 28, title, "title"), _text(16, 48, legend, "small")]
    y = TOP
    for group, members in groupby(bars, key=lambda bar: bar.group):
        rows = list(members)
        parts.append(_text(16, y + 16, group, "group"))
        y += ROW + 2
        # Before the bars, and so below what is written beside them.
        parts.append(_line("one", LEFT + unit, LEFT + unit, y, y + ROW * len(rows)))
        for bar in rows:
            parts += _row(bar, y, unit)
            y += ROW
        y += 10
    height = y + 8
    whole = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    inner = f'width="{WIDTH - 1}" height="{height - 1}"'
    return "\n".join(
        (
            f'<svg xmlns="{XMLNS}" {whole} role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>{STYLE}</style>",
            f'<rect class="page" x="0.5" y="0.5" {inner} rx="8"/>',
            *parts,
            "</svg>\n",
        )
    )


def _row(bar: Bar, y: float, unit: float) -> list[str]:
    """Return the parts of one bar."""
    width, middle = min(bar.ratio, CUT) * unit, y + ROW / 2
    size = f'width="{width:.1f}" height="{ROW - 8}"'
    parts = [
        _text(LEFT - 8, y + 16, bar.label, anchor="end"),
        f'<rect class="{bar.kind}" x="{LEFT}" y="{y + 4}" rx="2" {size}/>',
    ]
    end = LEFT + width
    if bar.ratio > CUT:
        # A gap near the end says that it goes on.
        x = end - 16
        points = f"{x},{y + ROW} {x + 8},{y} {x + 13},{y} {x + 5},{y + ROW}"
        parts.append(f'<polygon class="cut" points="{points}"/>')
    elif bar.high > bar.low:
        low, high = (LEFT + min(value, CUT) * unit for value in (bar.low, bar.high))
        parts.append(_line("spread", low, high, middle, middle))
        end = max(end, high)
    if bar.goal is not None:
        at = LEFT + bar.goal * unit
        parts.append(_line("goal", at, at, y + 1, y + ROW - 1))
        end = max(end, at)
    parts.append(_text(end + 6, y + 16, f"{bar.ratio:.2f}", "value"))
    return parts


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _line(kind: str, left: float, right: float, top: float, bottom: float) -> str:
    return (
        f'<line class="{kind}" x1="{left:.1f}" x2="{right:.1f}" y1="{top:.1f}" y2="{bottom:.1f}"/>'
    )
