"""Self-contained HTML pages: style, charts and images inline, no scripts, no requests."""

import base64
import html
import re
import reprlib
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from flax_resnet.schema import SchemaError
from flax_resnet.text import one_line
from train.data.images import encode_jpeg, encode_png, resize_area
from train.reporting.charts.figure import figure
from train.reporting.charts.panel import Panel
from train.reporting.page_style import PAGE_STYLE

Tile = tuple[str, str, str]  # name, value and remark
MAX_SIDE = 160  # of images, in pixels
# Even if foreign text were not escaped, the page would run no script and load nothing.
_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none';"
    " form-action 'none'"
)
_WORD = r"[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]+"  # of Hebrew, Arabic, Syriac, Thaana, NKo
_RIGHT_TO_LEFT = re.compile(f"{_WORD}(?: {_WORD})*")
_DATA_URI = re.compile(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/]+={0,2}")


def page(title: str, body: Sequence[str]) -> str:
    """Return a whole document, with links to its sections on top.

    Args:
      title: plain text.
      body: HTML; the sections are those of :func:`section`.
    """
    title = escape(title)
    main, links = _with_ids("\n".join(part for part in body if part))
    text = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>{title}</title>\n<style>{PAGE_STYLE}</style>\n'
        f'</head>\n<body id="top">\n{links}<main>\n{main}\n</main>\n</body>\n</html>\n'
    )
    # Names of files and classes may hold invalid bytes.
    return text.encode("utf-8", "replace").decode()


def _with_ids(main: str) -> tuple[str, str]:
    """Return the HTML with an id for each section, and the navigation to them."""
    links = ['<a href="#top">Top</a>']
    ids = {"top"}

    def add_id(match: re.Match[str]) -> str:
        name = re.sub(r"[^a-z0-9]+", "-", html.unescape(match[1]).lower()).strip("-")
        while name in ids:
            name += "-"
        ids.add(name)
        links.append(f'<a href="#{name}">{match[1]}</a>')
        return f'<section id="{name}">\n<h2>{match[1]}</h2>'

    # Only section() makes these elements: in foreign text "<" is escaped.
    main = re.sub(r"<section>\n<h2>(.*?)</h2>", add_id, main, flags=re.DOTALL)
    inside = "".join(links)
    return main, f'<nav aria-label="Sections">{inside}</nav>\n' if len(links) > 2 else ""


def escape(text: str) -> str:
    """Escape text for HTML, and control characters other than line breaks as in Python."""
    return html.escape("\n".join(map(one_line, text.split("\n"))))


def isolated(text: str) -> str:
    """Escape text for HTML where names of classes stand beside numbers.

    Without isolation, ``name (47 %)`` of an Arabic or Hebrew name is shown as ``(% 47) name``.
    """
    return _RIGHT_TO_LEFT.sub(r"<bdi>\g<0></bdi>", escape(text))


def section(title: str, *body: str) -> str:
    """Return a section with its heading, or nothing if the body is empty."""
    inside = "\n".join(part for part in body if part)
    return f"<section>\n<h2>{escape(title)}</h2>\n{inside}\n</section>" if inside else ""


def paragraph(text: str, css_class: str = "") -> str:
    """Return a paragraph of plain text, with an optional CSS class."""
    attribute = f' class="{css_class}"' if css_class else ""
    return f"<p{attribute}>{isolated(text)}</p>"


class MainTile(NamedTuple):
    """The tile of the most important number.

    Attributes:
      name: what it is.
      value: its value as text.
      remark: how sure it is and what it compares with.
      shares: value, both ends of its confidence interval and the baseline or None, in 0…1, for a
        small drawing; None: no drawing.
    """

    name: str
    value: str
    remark: str
    shares: tuple[float, float, float, float | None] | None = None


def tiles(facts: Sequence[Tile], main: MainTile | None = None) -> str:
    """Return large values, with the name above and the remark below; ``main`` comes first."""
    cells = [_tile(*fact) for fact in facts]
    if main is not None:
        bar = interval_bar(*main.shares) if main.shares else ""
        cells.insert(0, _tile(main.name, main.value, main.remark, bar, ' class="main"'))
    return f'<div class="tiles">{"".join(cells)}</div>'


def _tile(name: str, value: str, remark: str, bar: str = "", attribute: str = "") -> str:
    return (
        f"<div{attribute}><span>{escape(name)}</span><b>{escape(value)}</b>{bar}"
        f"<span>{isolated(remark)}</span></div>"
    )


def interval_bar(value: float, low: float, high: float, baseline: float | None) -> str:
    """Draw a share with its confidence interval, and a mark at the baseline, over 0 to 100 %."""
    mark = "" if baseline is None else f'<i class="mark" style="left:{100 * baseline:.2f}%"></i>'
    return (
        '<div class="track" aria-hidden="true">'
        f'<i class="range" style="left:{100 * low:.2f}%;width:{100 * (high - low):.2f}%"></i>'
        f'{mark}<i class="dot" style="left:{100 * value:.2f}%"></i></div>'
    )


def facts(items: Sequence[tuple[str, str]]) -> str:
    """Return names with their texts, one pair a line; pairs without text are left out."""
    inside = "".join(
        f"<dt>{escape(name)}</dt><dd>{isolated(text)}</dd>" for name, text in items if text
    )
    return f'<dl class="facts">{inside}</dl>' if inside else ""


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[object]],
    label: str,
    marked: Collection[int] = (),
    tall: bool = False,
    stacks: bool = False,
    folds_notes: bool = False,
) -> str:
    """Return a table of plain text, which scrolls by itself if it is too wide.

    Text after a line break in the first cell of a row is a note in smaller letters. Columns of
    numbers are aligned to the right.

    Args:
      head: titles of the columns.
      rows: one cell per column each.
      label: what the table shows, for screen readers.
      marked: indices of the rows to emphasize.
      tall: whether to limit its height, so that its rows scroll below the titles.
      stacks: whether narrow screens show the cells of a row below each other; for few columns.
      folds_notes: whether to hide the notes until the first cell is clicked.
    """
    cells = [list(map(str, row)) for row in rows]
    numeric = [all(map(_NUMBER.fullmatch, column)) for column in zip(*cells, strict=True)][1:]
    numeric = [False, *numeric] if cells else [False] * len(head)
    titles = "".join(
        f'<th scope="col"{_ALIGNED * is_number}>{escape(name)}</th>'
        for name, is_number in zip(head, numeric, strict=True)
    )
    names = head if stacks else [""] * len(head)
    lines = "".join(
        f"<tr{_MARKED * (i in marked)}>{_row(row, numeric, names, folds_notes)}</tr>"
        for i, row in enumerate(cells)
    )
    kind = ' class="stack"' if stacks else ""
    inside = f"<table{kind}><thead><tr>{titles}</tr></thead><tbody>{lines}</tbody></table>"
    return scrolling(inside, label, tall)


# Text of a cell that is aligned like a number: 12,500, 36.4 %, 1.2e-6, a range, a dash.
_NUMBER = re.compile(r"[-+]?[\d,.]+(e-?\d+)?( %)?( (to|±) [-+]?[\d,.]+( %)?)?|–|")
_ALIGNED, _MARKED = " class=n", " class=marked"
_LONG = 24  # characters; longer text is broken into lines


def _row(cells: Sequence[str], numeric: Sequence[bool], names: Sequence[str], folds: bool) -> str:
    name, _, note = cells[0].partition("\n")
    first, wraps = isolated(name), " class=long" * (len(name) > _LONG)
    if note and folds:
        first = f"<details><summary>{first}</summary>{escape(note)}</details>"
    elif note:
        first += f'<span class="note">{escape(note)}</span>'
    rest = ""
    for cell, is_number, title in zip(cells[1:], numeric[1:], names[1:], strict=True):
        kind = _ALIGNED if is_number else " class=long" if len(cell) > _LONG else ""
        kind += f' data-title="{escape(title)}"' if title else ""
        rest += f"<td{kind}>{isolated(cell)}</td>"
    return f'<th scope="row"{wraps}>{first}</th>{rest}'


def scrolling(inside: str, label: str, tall: bool = False) -> str:
    """Wrap HTML that may be wider than the page, or ``tall``; it also scrolls by keyboard."""
    # Not role="region": a landmark needs a label that no other has.
    return (
        f'<div class="wide{" tall" * tall}" tabindex="0" role="group"'
        f' aria-label="{escape(label)}">{inside}</div>'
    )


def folded(title: str, inside: str) -> str:
    """Wrap HTML in a collapsed section."""
    return f"<details><summary>{escape(title)}</summary>\n{inside}\n</details>"


def image_uri(image: np.ndarray, max_side: int = MAX_SIDE) -> str:
    """Return a uint8 RGB image ``(H, W, 3)`` as a data URI: small ones lossless, others reduced."""
    longer = max(image.shape[:2])
    if longer > max_side:
        width, height = (max(1, round(side * max_side / longer)) for side in image.shape[1::-1])
        image = resize_area(image, width, height)
    if longer > 64:
        return _data_uri("jpeg", encode_jpeg(image, 85))
    return _data_uri("png", encode_png(image))


def png_uri(image: np.ndarray) -> str:
    """Return a uint8 image that :func:`encode_png` takes as a data URI without any loss."""
    return _data_uri("png", encode_png(image))


def encoded_png_uri(content: bytes) -> str:
    """Return a PNG file as a data URI."""
    return _data_uri("png", content)


def data_uri(value: object, field: str) -> str:
    """Accept a result of :func:`image_uri` or :func:`png_uri`, as a schema."""
    if not (isinstance(value, str) and _DATA_URI.fullmatch(value)):
        raise SchemaError(f"{field} must be an image as a data URI, not {reprlib.repr(value)}")
    return value


def _data_uri(kind: str, encoded: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(encoded).decode()}"


def charts(panels: Sequence[Panel], name: str = "") -> str:
    """Return charts side by side, or nothing without any; ``name`` is whose charts they are."""
    inside = "".join(figure(panel, name) for panel in panels)
    return f'<div class="charts">{inside}</div>' if inside else ""


def image_cells(images: np.ndarray, captions: Sequence[str]) -> list[dict[str, str]]:
    """Return images and captions as :func:`image_grid` shows them."""
    pairs = zip(images, captions, strict=True)
    return [{"image": image_uri(image), "caption": caption} for image, caption in pairs]


def image_grid(images: Sequence[dict[str, str]], pixelated: bool, pairs: bool = False) -> str:
    """Return a grid of ``{"image": URI, "caption": text}``.

    Args:
      images: data URIs with captions.
      pixelated: whether to enlarge the images without smoothing.
      pairs: whether the images are twice as wide as high.
    """
    kind = ' class="pixels"' if pixelated else ""
    inside = "".join(
        f'<figure><img{kind} src="{escape(one["image"])}"'
        f' alt="{escape(one["caption"].replace(chr(10), " "))}">'
        f"<figcaption>{isolated(one['caption'])}</figcaption></figure>"
        for one in images
    )
    return f'<div class="cells{" pairs" * pairs}">{inside}</div>'
