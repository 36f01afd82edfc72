"""Web pages of one file: style, charts and pictures inside, no script, nothing from elsewhere."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence

import numpy as np

from train.data.images import encode_jpeg, encode_png, resize_area
from train.runtime.formatting import one_line

SIDE = 160  # of pictures, in pixels, at most

_STYLE = """
:root { color-scheme: light dark; --back: #fff; --card: #f5f6f8; --text: #1b1f24; --weak: #545d68;
  --line: #d0d7de; --heat: 37,99,235; --link: #0a58ca; --c0: #0b62a8; --c1: #c2410c; --c2: #0f766e;
  --c3: #9333a8; --c4: #8a5a00; --c5: #be185d; --c6: #4d7c0f; --c7: #475569; }
@media (prefers-color-scheme: dark) { :root { --back: #14171c; --card: #1e232a; --text: #e8ebef;
  --weak: #a9b3bf; --line: #3b434d; --heat: 96,165,250; --link: #7db5ff; --c0: #6cb6ff;
  --c1: #ff9d5c; --c2: #4fd1c5; --c3: #d7a0ff; --c4: #f2c94c; --c5: #ff8fb8; --c6: #a3d977;
  --c7: #b0bccd; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 76rem; background: var(--back);
  color: var(--text); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: .2rem 0; line-height: 1.25; }
h2 { font-size: 1.2rem; margin: 2rem 0 .6rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.2rem 0 .4rem; }
p { margin: .4rem 0; }
.weak { color: var(--weak); }
.tiles, .charts, .cells { display: grid; gap: .7rem; }
.tiles { grid-template-columns: repeat(auto-fill, minmax(min(100%, 9.5rem), 1fr)); }
.charts { grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); }
.cells { grid-template-columns: repeat(auto-fill, minmax(6.2rem, 1fr)); }
.tiles > div, figure { background: var(--card); border-radius: .5rem; padding: .6rem .7rem; }
.tiles b { display: block; font-size: 1.25rem; line-height: 1.3; }
.tiles span { color: var(--weak); font-size: .85rem; }
figure { margin: 0; min-width: 0; }
figcaption { font-weight: 600; }
.cells.pairs { grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); }
.cells figure { padding: .4rem; font-size: .8rem; line-height: 1.3; }
.cells figcaption { font-weight: 400; white-space: pre-line; }
.cells img { width: 100%; display: block; border-radius: .25rem; margin-bottom: .3rem; }
.pixels { image-rendering: pixelated; }
img { max-width: 100%; height: auto; }
svg { width: 100%; height: auto; display: block; }
svg text { font-size: 11px; fill: var(--weak); }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg .axis { stroke: var(--weak); fill: none; }
svg .line { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
.legend { list-style: none; margin: .2rem 0 0; padding: 0; font-size: .85rem;
  display: flex; flex-wrap: wrap; gap: .1rem 1rem; }
.swatch { display: inline-block; width: 1.2rem; border-top: 3px solid; vertical-align: middle;
  margin-right: .35rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .6rem; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; white-space: nowrap; }
td.long { white-space: normal; min-width: 10rem; }
th .note { display: block; font-weight: 400; color: var(--weak); white-space: normal;
  min-width: 9rem; max-width: 34rem; }
thead th { color: var(--weak); font-weight: 600; }
.matrix th, .matrix td { text-align: right; padding: .15rem .4rem; white-space: nowrap; }
pre { background: var(--card); padding: .6rem .7rem; border-radius: .5rem; white-space: pre-wrap;
  margin: .4rem 0; }
code, pre { font: .9em/1.5 ui-monospace, monospace; }
summary { cursor: pointer; color: var(--link); padding: .3rem 0; }
"""


def page(title: str, body: Sequence[str]) -> str:
    """A whole document; ``body`` is HTML, the title text."""
    title = escape(title)
    text = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>{title}</title>\n<style>{_STYLE}</style>\n'
        "</head>\n<body>\n" + "\n".join(part for part in body if part) + "\n</body>\n</html>\n"
    )
    # Names of files and classes may hold bytes that are no text.
    return text.encode("utf-8", "replace").decode()


def escape(text: str) -> str:
    """For HTML; what would move the cursor or turn what follows is spelled, but line breaks."""
    return html.escape("\n".join(map(one_line, text.split("\n"))))


def section(title: str, *body: str) -> str:
    """A section with its heading, or nothing where the body is empty."""
    inside = "\n".join(part for part in body if part)
    return f"<section>\n<h2>{escape(title)}</h2>\n{inside}\n</section>" if inside else ""


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def tiles(facts: Sequence[tuple[str, str, str]]) -> str:
    """Values in large letters, each with what it is above and a remark below."""
    cells = "".join(
        f"<div><span>{escape(name)}</span><b>{escape(value)}</b><span>{escape(remark)}</span></div>"
        for name, value, remark in facts
    )
    return f'<div class="tiles">{cells}</div>'


def table(head: Sequence[str], rows: Sequence[Sequence[object]], label: str) -> str:
    """A table of text that scrolls by itself where it is too wide.

    What comes after a line break in a row's first cell is a note, and shown smaller.
    """
    titles = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    lines = "".join(
        f'<tr><th scope="row">{_noted(str(row[0]))}</th>'
        + "".join(f"<td{_long(str(cell))}>{escape(str(cell))}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    inside = f"<table><thead><tr>{titles}</tr></thead><tbody>{lines}</tbody></table>"
    return scrolling(inside, label)


def _noted(text: str) -> str:
    name, _, note = text.partition("\n")
    return escape(name) + (f'<span class="note">{escape(note)}</span>' if note else "")


def _long(text: str) -> str:
    return ' class="long"' if len(text) > 24 else ""


def scrolling(inside: str, label: str) -> str:
    """What may be wider than the page, reached by keyboard, too."""
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(label)}">{inside}</div>'
    )


def folded(title: str, inside: str) -> str:
    """What is shown on request."""
    return f"<details><summary>{escape(title)}</summary>\n{inside}\n</details>"


def picture(image: np.ndarray) -> str:
    """A uint8 RGB image ``(H, W, 3)`` as a data URI, small ones to the pixel."""
    longer = max(image.shape[:2])
    if longer > SIDE:
        width, height = (max(1, round(side * SIDE / longer)) for side in image.shape[1::-1])
        image = resize_area(image, width, height)
    if longer > 64:
        return _uri("jpeg", encode_jpeg(image, 85))
    return _uri("png", encode_png(image))


def heat_map(shares: np.ndarray) -> str:
    """Shares ``(H, W)`` in 0…1 as a data URI, a pixel each, from white to blue."""
    blue, white = np.array([37, 99, 235]), np.array([255, 255, 255])
    share = np.clip(shares, 0, 1)[..., None] ** 0.5  # or rare mistakes would not be seen
    return _uri("png", encode_png(np.rint(white + share * (blue - white)).astype(np.uint8)))


def _uri(kind: str, encoded: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(encoded).decode()}"


def cells(pictures: Sequence[dict[str, str]], small: bool, pairs: bool = False) -> str:
    """A grid of ``{"picture": URI, "caption": text}``; ``small`` ones show their pixels, and
    ``pairs`` are twice as wide as high.
    """
    kind = ' class="pixels"' if small else ""
    inside = "".join(
        f'<figure><img{kind} src="{escape(one["picture"])}"'
        f' alt="{escape(one["caption"].replace(chr(10), " "))}">'
        f"<figcaption>{escape(one['caption'])}</figcaption></figure>"
        for one in pictures
    )
    return f'<div class="cells{" pairs" * pairs}">{inside}</div>'
