"""HTML of evaluated pictures with their masks and predictions, from the content of the report."""

from collections.abc import Mapping, Sequence
from typing import Any

from flax_resnet.images.mask_files import COLORS
from flax_resnet.text import one_line
from train.data.masks import IGNORED
from train.reporting import html_page
from train.reporting.report import enlarge
from train.reporting.report.pictures import GAP, large_part

_ABOUT = (
    "Each picture, its mask and the prediction, covered by the colors of the classes. The IoU"
    " of a picture is the mean over the classes that its mask or prediction has; below it are the"
    " classes with the lowest. The mIoU of the evaluation is no mean of these, since it adds up the"
    " pixels of all pictures first. A click enlarges a picture."
)
_TITLES = {
    "worst": "Pictures with the lowest IoU",
    "others": "Other pictures, evenly spaced by IoU",
}


def picture_sections(part: Mapping[str, Any], key: str) -> list[str]:
    """Return the HTML of the pictures; nothing without any.

    Args:
      part: content of the section, with :data:`~.pictures.FIELDS`.
      key: identifies the evaluation in the page.
    """
    groups = {name: part[name] for name in _TITLES if part.get(name)}
    if not groups:
        return []
    names = [one["name"] for one in part["classes"]]
    sections = ["<h3>Pictures</h3>", html_page.paragraph(_ABOUT), _color_key(part["shown"], names)]
    for name, cells in groups.items():
        figures = (_figure(cell, f"{key}{name[0]}-{index}") for index, cell in enumerate(cells))
        sections.append(
            f'<h4>{_TITLES[name]}</h4><div class="pictures triple">{"".join(figures)}</div>'
        )
    return sections


def _color_key(shown: Sequence[int], names: Sequence[str]) -> str:
    """Return the colors of classes with their names."""
    items = []
    for number in shown:
        name = "ignored" if number == IGNORED else one_line(names[number])
        name += "" if number else " (no color)"
        red, green, blue = map(int, COLORS[number])
        # Class 0 leaves pictures as they are.
        color = f"background:rgb({red},{green},{blue})" if number else "background:none"
        swatch = f'<span class="swatch" style="{color}"></span>'
        items.append(f"<li>{swatch}{html_page.isolated(name)}</li>")
    return f'<ul class="legend">{"".join(items)}</ul>'


def _figure(cell: Mapping[str, Any], key: str) -> str:
    caption, width = cell["caption"], 100 * cell["aspect"]
    smooth = ' style="image-rendering:pixelated"' if cell["small"] else ""
    size = f'width="{width:.5g}" height="100" preserveAspectRatio="none"'
    drawing = f'<image id="{key}i" href="{html_page.escape(cell["image"])}" {size}{smooth}/>'
    large = large_part(f"{key}i", width, "Picture")
    covered = (("m", "Mask", "mask", "in_mask"), ("p", "Prediction", "prediction", "predicted"))
    offset = 0.0
    for letter, title, image, areas in covered:
        offset += width + GAP
        drawing += (
            f'<g id="{key}{letter}" transform="translate({offset:.5g})"><use href="#{key}i"/>'
            f'<image href="{html_page.escape(cell[image])}" {size}'
            ' style="image-rendering:pixelated"/></g>'
        )
        large += large_part(f"{key}{letter}", width, title, offset, cell[areas])
    svg = f'<svg viewBox="0 0 {offset + width:.5g} 100" aria-hidden="true">{drawing}</svg>'
    lines = "".join(f"<span>{html_page.isolated(line)}</span>" for line in caption.split("\n"))
    label = f"Enlarge: {caption}".replace("\n", ", ")
    return (
        f"<figure>{enlarge.picture_opener(key, label, svg)}<figcaption>{lines}</figcaption>"
        + enlarge.window(key, caption, f'<div class="pair">{large}</div>')
        + "</figure>"
    )
