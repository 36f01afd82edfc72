"""What differs between two runs of segmentation, in words and as a part of the page."""

from collections.abc import Sequence

from flax_resnet.text import truncate
from train.compare.pair.differences import ClassDifference
from train.compare.pair.pixels import PixelDifferences
from train.compare.pair.words import count_clear, points
from train.reporting import html_page
from train.runtime.formatting import format_percent, pluralize

_MAX_NAMED = 3  # classes in a line
_SHOWN_CLASSES = 20  # the others are folded
_MAX_NAME = 60
MEANING = (
    "The intervals are of resamples of the images (paired bootstrap), the same for both runs. They"
    " are about these two trained networks: other seeds may differ as much, and for runs that were"
    " chosen among many by these images they are too narrow."
)


def heading(found: PixelDifferences) -> str:
    """Return the names of the two runs."""
    first, second = (truncate(name, _MAX_NAME) for name in found.names)
    return f"From {first} to {second}"


def verdict(found: PixelDifferences) -> str:
    """Return one sentence on whether mIoU differs."""
    one, images = found.overall, pluralize(found.images, "image")
    values = f"{one.name} {format_percent(one.first, 2)} → {format_percent(one.second, 2)}"
    if not one.difference:
        return f"No difference on these {images}: {values}."
    change = f"{values}, {points(one)}"
    if one.interval is None:
        return f"{change} on these {images}, without an interval."
    if not one.is_clear:
        return f"No clear difference on these {images}: {change}; the 95 % interval includes 0."
    better, other = (1, 0) if one.difference > 0 else (0, 1)
    names = [truncate(name, _MAX_NAME) for name in found.names]
    return (
        f"{names[better]} is better than {names[other]} on these {images}: {change}; the 95 %"
        " interval excludes 0."
    )


def by_class(found: PixelDifferences) -> str:
    """Return how many classes differ clearly, and how many would by chance."""
    known = [one for one in found.classes if one.interval is not None]
    if not known:
        return "no class has an interval"
    return count_clear([one.is_clear for one in known])


def lines(found: PixelDifferences) -> list[str]:
    """Return the differences in a few lines for the console."""
    largest = [one for one in found.classes if one.difference][:_MAX_NAMED]
    named = ", ".join(f"{truncate(one.name, 30)!r}: {points(one)}" for one in largest)
    return [
        f"{heading(found)}: {verdict(found)}",
        f"IoU by class: {named or 'no difference'}; {by_class(found)}",
    ]


def part(found: PixelDifferences) -> str:
    """Return the HTML."""
    first, second = (truncate(name, _MAX_NAME) for name in found.names)
    head = ["class", "images", f"IoU: {first}", second, "difference", "95 % interval"]
    rows = [_row(one) for one in found.classes]
    clear = [i for i, one in enumerate(found.classes) if one.is_clear]
    text = f"Largest difference first; marked: {by_class(found)}."
    parts = [
        f"<h3>{html_page.escape(heading(found))}</h3>",
        f"<p><strong>{html_page.escape(verdict(found))}</strong></p>",
        html_page.paragraph(MEANING, "weak"),
        "<h4>Difference in IoU by class</h4>",
        html_page.paragraph(text, "weak"),
        html_page.table(head, rows[:_SHOWN_CLASSES], "differences by class", _in(clear, 0)),
    ]
    if rest := rows[_SHOWN_CLASSES:]:
        title = pluralize(len(rest), "more class")
        marked = _in(clear, _SHOWN_CLASSES)
        parts.append(html_page.folded(title, html_page.table(head, rest, title, marked)))
    return "\n".join(parts)


def _in(indices: Sequence[int], start: int) -> list[int]:
    """Return the indices of a table that begins with row ``start``."""
    stop = _SHOWN_CLASSES if start == 0 else max(indices, default=0) + 1
    return [index - start for index in indices if start <= index < stop]


def _row(one: ClassDifference) -> list[str]:
    interval = "–"
    if one.interval is not None:
        interval = " to ".join(f"{100 * end:+.1f}" for end in one.interval)
    shares = format_percent(one.first, 2), format_percent(one.second, 2)
    name = truncate(one.name, _MAX_NAME)
    return [name, f"{one.examples:,}", *shares, f"{100 * one.difference:+.1f}", interval]
