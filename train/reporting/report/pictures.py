"""Evaluated images in the report: small ones that open large, beside their Grad-CAM maps."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from flax_resnet import schema
from flax_resnet.gradcam import overlay_colors
from train.data.images import resize_area
from train.reporting import html_page
from train.reporting.charts.elements import text
from train.reporting.report import enlarge

MAX_BYTES = 1_000_000  # of the images of an evaluation in the page
SIDES = (320, 256, 192, 160, 128, 96)  # of images in pixels, the largest that fit
_MAX_HEAT_SIDE = 40  # of maps, which are smooth
GAP = 4  # between image and map, of 100

CELLS = schema.sequence(
    schema.record(
        image=html_page.data_uri,
        caption=schema.text(10_000, any_path=True),
        heat=schema.optional(html_page.data_uri),
    ),
    0,
    100,
)


def picture_cells(
    groups: Sequence[tuple[np.ndarray, Sequence[str]]], heats: Sequence[np.ndarray] | None
) -> list[list[dict[str, Any]]]:
    """Return groups of images with captions for the page, as large as fits into its limit.

    Args:
      groups: uint8 images ``(N, H, W, 3)`` with captions.
      heats: maps ``(N, H, W)`` in 0…1 for each group; None if there are none.
    """
    for side in SIDES:
        uris = [[html_page.image_uri(one, side) for one in images] for images, _ in groups]
        if sum(len(uri) for group in uris for uri in group) <= MAX_BYTES:
            break
    cells = []
    for index, (_, captions) in enumerate(groups):
        pairs = zip(uris[index], captions, strict=True)
        cells.append([{"image": uri, "caption": caption} for uri, caption in pairs])
        if heats is not None:
            for cell, heat in zip(cells[-1], heats[index], strict=True):
                cell["heat"] = heat_uri(heat)
    return cells


def heat_uri(heat: np.ndarray) -> str:
    """Return a map ``(H, W)`` in 0…1 as a data URI of an image to lay over the original one."""
    longer = max(heat.shape)
    if longer > _MAX_HEAT_SIDE:
        height, width = (max(1, round(side * _MAX_HEAT_SIDE / longer)) for side in heat.shape)
        heat = resize_area(heat.astype(np.float32)[..., None], width, height)[..., 0]
    colors, alpha = overlay_colors(heat)
    rgba = np.concatenate([colors, 255 * alpha], axis=-1)
    return html_page.png_uri(np.rint(rgba).astype(np.uint8))


def picture_grid(
    cells: Sequence[dict[str, Any]], pixelated: bool, key: str, aspect: float = 1.0
) -> str:
    """Return a grid of images with captions, beside their maps if there are any.

    Each image is in the page once: the large ones refer to the small ones.

    Args:
      cells: ``image``, ``caption`` and perhaps ``heat``, see :func:`picture_cells`.
      pixelated: whether to enlarge the images without smoothing.
      key: identifier of the grid within the page.
      aspect: width of the images divided by their height.
    """
    has_heat = any(cell.get("heat") for cell in cells)
    figures = "".join(
        _figure(cell, pixelated, f"{key}-{index}", 100 * aspect) for index, cell in enumerate(cells)
    )
    single = "" if has_heat else " single"
    return f'<div class="pictures{single}">{figures}</div>'


def _figure(cell: dict[str, Any], pixelated: bool, key: str, width: float) -> str:
    caption, heat = cell["caption"], cell.get("heat")
    smooth = ' style="image-rendering:pixelated"' if pixelated else ""
    size = f'width="{width:.5g}" height="100" preserveAspectRatio="none"'
    drawing = f'<image id="{key}i" href="{html_page.escape(cell["image"])}" {size}{smooth}/>'
    total, offset = width, width + GAP
    large = large_part(f"{key}i", width, "image")
    if heat:
        drawing += (
            f'<g id="{key}h" transform="translate({offset:.5g})"><use href="#{key}i"/>'
            f'<image href="{html_page.escape(heat)}" {size}/></g>'
        )
        total = offset + width
        large += large_part(f"{key}h", width, "Grad-CAM map over the image", offset)
    svg = f'<svg viewBox="0 0 {total:.5g} 100" aria-hidden="true">{drawing}</svg>'
    lines = "".join(f"<span>{html_page.isolated(line)}</span>" for line in caption.split("\n"))
    label = f"Enlarge: {caption}".replace("\n", ", ")
    return (
        f"<figure>{enlarge.picture_opener(key, label, svg)}<figcaption>{lines}</figcaption>"
        + enlarge.window(
            key, caption, f'<div class="pair">{large}</div>{heat_key() if heat else ""}'
        )
        + "</figure>"
    )


def large_part(of: str, width: float, title: str, left: float = 0, content: str = "") -> str:
    """Return a part of a small drawing at the full size of a window.

    Args:
      of: identifier of the element in the small drawing.
      width: of the part, which is 100 high.
      title: shown above it.
      left: where it starts in the drawing.
      content: what it shows in words, for screen readers.
    """
    label = html_page.escape(f"{title}: {content}" if content else title)
    return (
        f"<figure><figcaption>{title}</figcaption>"
        f'<svg viewBox="{left:.5g} 0 {width:.5g} 100" role="img" aria-label="{label}">'
        f'<use href="#{of}"/></svg></figure>'
    )


def heat_key() -> str:
    """Return the color key of Grad-CAM maps, over gray."""
    steps, side = 20, 12
    parts = [f'<rect x="4" y="2" width="{steps * side}" height="14" fill="#888"/>']
    colors, alpha = overlay_colors(np.linspace(0, 1, steps))
    for index, (rgb, opacity) in enumerate(zip(np.rint(colors), alpha[..., 0], strict=True)):
        red, green, blue = map(int, rgb)
        parts.append(
            f'<rect x="{4 + side * index}" y="2" width="{side}" height="14"'
            f' fill="rgb({red},{green},{blue})" fill-opacity="{opacity:.3f}"/>'
        )
    width = steps * side + 8
    parts.append(text(4, 29, "no support", "start"))
    parts.append(text(width - 4, 29, "strongest in the image", "end"))
    label = "color key of the maps: from no support to the strongest in the image"
    return (
        f'<div class="heat-key"><svg viewBox="0 0 {width} 34" role="img" aria-label="{label}">'
        f"{''.join(parts)}</svg></div>"
    )
