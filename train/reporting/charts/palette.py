"""Colors and style of charts, light and dark."""

from train.reporting.charts import shades

COLORS = 8  # --c0 … --c7 of the palettes
_DASHES = ("none", "7 4", "2 4", "9 4 2 4")  # beside the colors
# Any two lines differ by 15 or more in CIELAB, also for people with deuteranopia or protanopia;
# text has a contrast of 4.5 or more, lines of 3 (tests/train/reporting/charts/test_palette.py).
LIGHT = {
    **{"back": "#fff", "card": "#f5f6f8", "text": "#1b1f24", "weak": "#545d68"},
    **{"line": "#d0d7de", "heat": "37,99,235", "wrong": "194,65,12", "link": "#0a58ca"},
    **{"c0": "#0c78c1", "c1": "#c8440f", "c2": "#078270", "c3": "#7f198f"},
    **{"c4": "#524300", "c5": "#e13e76", "c6": "#5c9032", "c7": "#364357"},
}
DARK = {
    **{"back": "#14171c", "card": "#1e232a", "text": "#e8ebef", "weak": "#a9b3bf"},
    **{"line": "#3b434d", "heat": "96,165,250", "wrong": "255,140,66", "link": "#7db5ff"},
    **{"c0": "#578dc6", "c1": "#f49654", "c2": "#26bdb4", "c3": "#d7a0ff"},
    **{"c4": "#f6cc51", "c5": "#e47292", "c6": "#a9e283", "c7": "#c6d4e8"},
}
# Right and wrong cells of confusion matrices; the darkest carry white text, in dark mode black.
LIGHT |= shades.shades(LIGHT["back"], right="#0a4c94", wrong="#b23a06")
DARK |= shades.shades(DARK["back"], right="#86c5ff", wrong="#ffa366")
STYLE = """\
svg text { font-size: 11px; fill: var(--weak); }
svg .title { font-size: 13px; font-weight: 600; fill: var(--text); }
svg .heading { font-size: 15px; font-weight: 600; fill: var(--text); }
svg .count { fill: var(--text); }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg .axis { stroke: var(--weak); fill: none; }
svg .line { fill: none; stroke-width: 1.8; stroke-linejoin: round; stroke-linecap: round; }
svg .pale { stroke-width: 1; stroke-opacity: .4; }
svg .cross { fill: none; stroke-width: 1.6; }
svg .dot { stroke: none; }
svg .band { fill-opacity: .18; }
svg .bar { fill-opacity: .35; }
svg.keys { width: 26px; height: 14px; display: inline-block; vertical-align: middle;
  margin-right: .35rem; }
svg .cell { fill: rgb(var(--heat)); }
svg .empty { stroke: var(--weak); stroke-dasharray: 2 4; }
"""
STYLE += shades.style()


def color(index: int) -> str:
    """Return a CSS color."""
    return f"var(--c{index % COLORS})"


def dashes(index: int) -> str:
    """Return the ``stroke-dasharray`` of a line, so that lines differ without color, too."""
    return _DASHES[(index + index // COLORS) % len(_DASHES)]
