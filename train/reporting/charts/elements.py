"""Elements of SVG that all charts use."""

import re
import unicodedata
from html import escape

from train.reporting.charts.palette import LIGHT, STYLE


def text(
    x: float,
    y: float,
    content: str,
    anchor: str = "middle",
    is_upright: bool = False,
    kind: str = "",
) -> str:
    """Return a ``<text>`` element; upright text reads from bottom to top, ``kind`` is its class."""
    place = f'transform="translate({x:.5g} {y:.5g}) rotate(-90)"'
    if not is_upright:
        place = f'x="{x:.5g}" y="{y:.5g}"'
    kind = f' class="{kind}"' if kind else ""
    return f'<text {place} text-anchor="{anchor}"{kind}>{escape(content)}</text>'


def text_length(content: str) -> float:
    """Return about how many pixels a text of the charts' font size takes."""
    return sum(12 if unicodedata.east_asian_width(c) in "WF" else 6.6 for c in content)


def file_text(drawing: str, width: int, height: int) -> str:
    """Return the text of an SVG file, with fixed colors because many viewers know no variables."""
    content = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"'
        f' height="{height}" font-family="sans-serif">\n<style>\n{STYLE}</style>\n'
        f'<rect width="100%" height="100%" fill="var(--back)"/>\n{drawing}\n</svg>\n'
    )
    content = re.sub(r"var\(--(\w+)\)", lambda match: LIGHT[match[1]], content)
    return content.encode("utf-8", "replace").decode()  # class names may hold invalid bytes
