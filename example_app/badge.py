"""A small picture that says how a target is."""

from __future__ import annotations

from html import escape

from example_app.status import Status
from example_app.targets import Target

COLOURS = {
    "up": "#16803f",
    "slow": "#9a5b00",
    "failing": "#9a5b00",
    "down": "#c62a22",
    "paused": "#5b6776",
    "none": "#5b6776",
}
LETTER = 7  # the width that a letter gets


def badge_of(target: Target, status: Status) -> str:
    """Return an SVG with the name of a target, and how it is."""
    said = {
        "failing": f"failing {status.failed} of {target.failures}",
        "none": "not checked yet",
    }.get(status.state, status.state)
    left, right = (LETTER * len(text) + 16 for text in (target.name, said))
    name = escape(target.name)
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="20" role="img">
<title>{name}: {said}</title>
<rect width="{left}" height="20" fill="#39424e"/>
<rect x="{left}" width="{right}" height="20" fill="{COLOURS[status.state]}"/>
<g fill="#fff" font-family="Verdana, DejaVu Sans, sans-serif" font-size="11" text-anchor="middle">
<text x="{left / 2:g}" y="14">{name}</text>
<text x="{left + right / 2:g}" y="14">{said}</text>
</g>
</svg>
"""
