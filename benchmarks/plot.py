"""A bar chart of ratios, as an SVG file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

# The chart brings its own background: it has to be legible wherever it is shown.
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328; }
.title { font-size: 15px; font-weight: 600; }
.group { font-weight: 600; }
.page { fill: #ffffff; }
.bar { fill: #8c959f; }
.ours { fill: #1a6fc4; }
.line { stroke: #d0d7de; }
.goal { stroke: #c4351a; stroke-width: 2; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .page { fill: #161b22; }
  .bar { fill: #6e7681; }
  .ours { fill: #4c9df0; }
  .line { stroke: #30363d; }
  .goal { stroke: #ff7b5c; }
}
"""
XMLNS = "http://www.w3.org/2000/svg"
CUT = 3  # or the long ones would hide how the short ones differ
WIDTH, LEFT, RIGHT, ROW, TOP = 760, 190, 70, 20, 44


@dataclass(frozen=True)
class Bar:
    """One ratio."""

    label: str
    ratio: float
    goal: float | None = None


def bars(title: str, groups: Mapping[str, Sequence[Bar]]) -> str:
    """Return an SVG image: a bar for each ratio, a line where it is 1, a mark where its goal is."""
    longest = max(bar.ratio for group in groups.values() for bar in group)
    unit = (WIDTH - LEFT - RIGHT) / min(longest, CUT)
    parts, y = [_text(16, 26, title, "title")], TOP
    for name, group in groups.items():
        parts.append(_text(16, y + 16, name, "group"))
        y += ROW + 4
        top = y
        for bar in group:
            width = min(bar.ratio, CUT) * unit
            kind = "ours" if bar.label.startswith("ours") else "bar"
            parts += [
                _text(LEFT - 8, y + 14, bar.label, anchor="end"),
                _rect(kind, LEFT, y + 3, width),
                _text(LEFT + width + 6, y + 14, f"{bar.ratio:.2f}"),
            ]
            if bar.goal is not None:
                parts.append(_line("goal", LEFT + bar.goal * unit, y + 1, y + ROW - 1))
            y += ROW
        parts.append(_line("line", LEFT + unit, top, y))
        y += 10
    legend = (
        f"Bare, or an asyncio.TaskGroup by hand, is 1. Red: the goal. No bar is longer than {CUT}."
    )
    parts.append(_text(16, y + 16, legend))
    height = y + 30
    return "\n".join(
        (
            f'<svg xmlns="{XMLNS}" viewBox="0 0 {WIDTH} {height}" role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>{STYLE}</style>",
            f'<rect class="page" width="{WIDTH}" height="{height}" rx="8"/>',
            *parts,
            "</svg>\n",
        )
    )


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def _rect(kind: str, x: float, y: float, width: float) -> str:
    return (
        f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" rx="2" '
        f'width="{width:.1f}" height="{ROW - 6}"/>'
    )


def _line(kind: str, x: float, top: float, bottom: float) -> str:
    return f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{bottom:.1f}"/>'
