"""Self-contained HTML pages: style, charts and images inline, no scripts, no requests."""

import base64
import html
import re
import reprlib
from collections.abc import Collection, Sequence

import numpy as np

from flax_resnet.schema import SchemaError
from flax_resnet.text import one_line
from train.data.images import encode_jpeg, encode_png, resize_area
from train.reporting.charts.panel import Panel
from train.reporting.charts.svg import figure
from train.reporting.page_style import PAGE_STYLE

MAX_SIDE = 160  # of images, in pixels
# Even if foreign text were not escaped, the page would run no script and load nothing.
_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none';"
    " form-action 'none'"
)
_DATA_URI = re.compile(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/]+={0,2}")


def page(title: str, body: Sequence[str]) -> str:
    """Return a whole document. ``title`` is plain text, ``body`` HTML."""
    title = escape(title)
    text = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>{title}</title>\n<style>{PAGE_STYLE}</style>\n'
        "</head>\n<body>\n" + "\n".join(part for part in body if part) + "\n</body>\n</html>\n"
    )
    # Names of files and classes may hold invalid bytes.
    return text.encode("utf-8", "replace").decode()


def escape(text: str) -> str:
    """Escape text for HTML, and control characters other than line breaks as in Python."""
    return html.escape("\n".join(map(one_line, text.split("\n"))))


def section(title: str, *body: str) -> str:
    """Return a section with its heading, or nothing if the body is empty."""
    inside = "\n".join(part for part in body if part)
    return f"<section>\n<h2>{escape(title)}</h2>\n{inside}\n</section>" if inside else ""


def paragraph(text: str, css_class: str = "") -> str:
    """Return a paragraph of plain text, with an optional CSS class."""
    attribute = f' class="{css_class}"' if css_class else ""
    return f"<p{attribute}>{escape(text)}</p>"


def tiles(facts: Sequence[tuple[str, str, str]]) -> str:
    """Return large values from ``(name, value, remark)``, with the name above, the remark below."""
    cells = "".join(
        f"<div><span>{escape(name)}</span><b>{escape(value)}</b><span>{escape(remark)}</span></div>"
        for name, value, remark in facts
    )
    return f'<div class="tiles">{cells}</div>'


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[object]],
    label: str,
    marked: Collection[int] = (),
    tall: bool = False,
) -> str:
    """Return a table of plain text, which scrolls by itself if it is too wide.

    Text after a line break in the first cell of a row is a note in smaller letters.

    Args:
      head: titles of the columns.
      rows: one cell per column each.
      label: for screen readers.
      marked: indices of the rows to emphasize.
      tall: whether to limit its height, so that its rows scroll below the titles.
    """
    titles = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    lines = "".join(_row(i in marked, *map(str, row)) for i, row in enumerate(rows))
    inside = f"<table><thead><tr>{titles}</tr></thead><tbody>{lines}</tbody></table>"
    return scrolling(inside, label, tall)


def _row(is_marked: bool, first: str, *cells: str) -> str:
    name, _, note = first.partition("\n")
    note = f'<span class="note">{escape(note)}</span>' if note else ""
    long = ' class="long"'
    rest = "".join(f"<td{long if len(cell) > 24 else ''}>{escape(cell)}</td>" for cell in cells)
    kind = ' class="marked"' if is_marked else ""
    return f'<tr{kind}><th scope="row">{escape(name)}{note}</th>{rest}</tr>'


def scrolling(inside: str, label: str, tall: bool = False) -> str:
    """Wrap HTML that may be wider than the page, or ``tall``; it also scrolls by keyboard."""
    return f'<div class="wide{" tall" * tall}" tabindex="0" role="region" aria-label="{escape(label)}">{inside}</div>'


def folded(title: str, inside: str) -> str:
    """Wrap HTML in a collapsed section."""
    return f"<details><summary>{escape(title)}</summary>\n{inside}\n</details>"


def image_uri(image: np.ndarray) -> str:
    """Return a uint8 RGB image ``(H, W, 3)`` as a data URI: small ones lossless, others reduced."""
    longer = max(image.shape[:2])
    if longer > MAX_SIDE:
        width, height = (max(1, round(side * MAX_SIDE / longer)) for side in image.shape[1::-1])
        image = resize_area(image, width, height)
    if longer > 64:
        return _data_uri("jpeg", encode_jpeg(image, 85))
    return _data_uri("png", encode_png(image))


def heat_map_uri(shares: np.ndarray) -> str:
    """Return shares ``(H, W)`` in 0…1 as a data URI, one pixel each, from white to blue."""
    blue, white = np.array([37, 99, 235]), np.array([255, 255, 255])
    share = np.clip(shares, 0, 1)[..., None] ** 0.5  # keeps rare confusions visible
    return _data_uri("png", encode_png(np.rint(white + share * (blue - white)).astype(np.uint8)))


def data_uri(value: object, field: str) -> str:
    """Accept a result of :func:`image_uri` or :func:`heat_map_uri`, as a schema."""
    if not (isinstance(value, str) and _DATA_URI.fullmatch(value)):
        raise SchemaError(f"{field} must be an image as a data URI, not {reprlib.repr(value)}")
    return value


def _data_uri(kind: str, encoded: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(encoded).decode()}"


def charts(panels: Sequence[Panel]) -> str:
    """Return charts side by side, or nothing without any."""
    inside = "".join(map(figure, panels))
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
        f"<figcaption>{escape(one['caption'])}</figcaption></figure>"
        for one in images
    )
    return f'<div class="cells{" pairs" * pairs}">{inside}</div>'
