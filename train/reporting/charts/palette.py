"""Colors and style of charts, light and dark."""

COLORS = 8  # --c0 … --c7 of the palettes; further lines are dashed
LIGHT = {
    **{"back": "#fff", "card": "#f5f6f8", "text": "#1b1f24", "weak": "#545d68"},
    **{"line": "#d0d7de", "heat": "37,99,235", "link": "#0a58ca"},
    **{"c0": "#0b62a8", "c1": "#c2410c", "c2": "#0f766e", "c3": "#9333a8"},
    **{"c4": "#8a5a00", "c5": "#be185d", "c6": "#4d7c0f", "c7": "#475569"},
}
DARK = {
    **{"back": "#14171c", "card": "#1e232a", "text": "#e8ebef", "weak": "#a9b3bf"},
    **{"line": "#3b434d", "heat": "96,165,250", "link": "#7db5ff"},
    **{"c0": "#6cb6ff", "c1": "#ff9d5c", "c2": "#4fd1c5", "c3": "#d7a0ff"},
    **{"c4": "#f2c94c", "c5": "#ff8fb8", "c6": "#a3d977", "c7": "#b0bccd"},
}
STYLE = """\
svg text { font-size: 11px; fill: var(--weak); }
svg .title { font-size: 13px; font-weight: 600; fill: var(--text); }
svg .count { fill: var(--text); }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg .axis { stroke: var(--weak); fill: none; }
svg .line { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
svg .bar { fill-opacity: .35; }
svg .cell { fill: rgb(var(--heat)); }
"""


def color(index: int) -> str:
    """Return a CSS color, with the dash style of further lines."""
    dashes = index // COLORS
    dash = f";stroke-dasharray:{2 + 3 * dashes} 3" if dashes else ""
    return f"var(--c{index % COLORS}){dash}"
