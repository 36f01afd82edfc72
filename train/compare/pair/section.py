"""The part of the page on the differences between two runs."""

from collections.abc import Sequence

import numpy as np

from flax_resnet.text import truncate
from train.compare.pair import words
from train.compare.pair.differences import ClassDifference, Differences
from train.compare.pair.thumbnails import read_thumbnails
from train.data.label_sets import join_classes
from train.reporting import html_page
from train.reporting.report.evaluated_images import PIXELATED_BELOW
from train.runtime.errors import RunError
from train.runtime.formatting import MAX_CAPTION, format_percent, pluralize

_SHOWN_CLASSES = 20  # the others are folded
_THUMBNAILS = 12  # in each direction
_LISTED = 500  # images in each direction
_MAX_NAME = 200  # characters of the name of an image or class


def part(found: Differences) -> str:
    """Return the HTML."""
    first, second = words.labels(found)
    right = "completely right" if found.paired.several_labels else "right"
    pairs = found.pairs
    square = html_page.table(
        ["images", f"{second}: {right}", f"{second}: wrong"],
        [
            (f"{first}: {right}", f"{pairs.both:,}", f"{pairs.only_first:,}"),
            (f"{first}: wrong", f"{pairs.only_second:,}", f"{pairs.neither:,}"),
        ],
        "images by which run is right",
    )
    pictures, note = _pictures(found)
    changed = ""
    if len(found.lost) or len(found.gained):
        changed = "<h4>Images that changed sides</h4>" + note
        for what, indices in _directions(found):
            changed += _changed(found, what, indices, pictures.get(what, []))
    parts = [
        f"<h3>{html_page.escape(words.heading(found))}</h3>",
        f"<p><strong>{html_page.escape(words.verdict(found))}</strong></p>",
        html_page.paragraph(words.overall(found)) if found.overall else "",
        html_page.paragraph(words.meaning(found), "weak"),
        square,
        _classes(found),
        changed,
    ]
    return "\n".join(filter(None, parts))


def _directions(found: Differences) -> tuple[tuple[str, np.ndarray], ...]:
    return ("right → wrong", found.lost), ("wrong → right", found.gained)


def _classes(found: Differences) -> str:
    """Return the table of the classes, the largest differences first."""
    if not found.classes:
        return ""
    first, second = words.labels(found)
    measure, label = words.measure(found), "differences by class"
    head = ["class", "images", f"{measure}: {first}", second, "difference", "95 % interval"]
    head += [] if found.paired.several_labels else ["right → wrong", "wrong → right"]
    rows = list(map(_class_row, found.classes))
    clear = [i for i, one in enumerate(found.classes) if one.is_clear]
    shown, rest = rows[:_SHOWN_CLASSES], rows[_SHOWN_CLASSES:]
    marked = [i for i in clear if i < _SHOWN_CLASSES]
    text = f"Largest difference first; marked: {words.by_class(found)}."
    parts = [
        f"<h4>{html_page.escape(measure.capitalize())} by class</h4>",
        html_page.paragraph(text, "weak"),
        html_page.table(head, shown, label, marked),
    ]
    if rest:
        marked = [i - _SHOWN_CLASSES for i in clear if i >= _SHOWN_CLASSES]
        title = pluralize(len(rest), "more class")
        parts.append(html_page.folded(title, html_page.table(head, rest, title, marked)))
    return "\n".join(parts)


def _class_row(one: ClassDifference) -> list[str]:
    interval = "–"
    if one.interval is not None:
        interval = " to ".join(f"{100 * end:+.1f}" for end in one.interval)
    shares = format_percent(one.first), format_percent(one.second)
    cells = [
        truncate(one.name, _MAX_NAME),
        f"{one.examples:,}",
        *shares,
        f"{100 * one.difference:+.1f}",
        interval,
    ]
    return cells if one.lost is None else [*cells, f"{one.lost:,}", f"{one.gained:,}"]


def _pictures(found: Differences) -> tuple[dict[str, list[dict[str, str]]], str]:
    """Return the pictures of each direction, and a note if there are none."""
    first = found.paired.first
    indices = np.concatenate([part[:_THUMBNAILS] for _, part in _directions(found)])
    if not len(indices):
        return {}, ""
    names = [first.names[i] for i in indices]
    try:
        images = read_thumbnails(found.paired.paths[0], first.record[indices], names)
    except RunError as error:
        return {}, html_page.paragraph(f"Without pictures: {error}.", "weak")
    small = max(images.shape[1:3]) < PIXELATED_BELOW
    captions = [_caption(found, i) for i in indices]
    cells = [one | {"small": small} for one in html_page.image_cells(images, captions)]
    count = min(len(found.lost), _THUMBNAILS)
    (lost, _), (gained, _) = _directions(found)
    return {lost: cells[:count], gained: cells[count:]}, ""


def _caption(found: Differences, index: int) -> str:
    paired = found.paired
    name = truncate(paired.first.names[index], MAX_CAPTION)
    answers = (
        f"{run}: {_answer(found, which, index)}"
        for run, which in zip(words.labels(found), (paired.first, paired.second), strict=True)
    )
    return "\n".join((name, f"true: {_label(found, index)}", *answers))


def _changed(found: Differences, what: str, indices: np.ndarray, cells: Sequence[dict]) -> str:
    """Return the pictures and the folded list of the images of one direction."""
    if not len(indices):
        return ""
    paired = found.paired
    rows = [
        (
            truncate(paired.first.names[i], _MAX_NAME),
            _label(found, i),
            *(_answer(found, which, i) for which in (paired.first, paired.second)),
        )
        for i in indices[:_LISTED]
    ]
    more = len(indices) - len(rows)
    listed = html_page.table(["image", "true", *words.labels(found)], rows, f"images {what}")
    listed += html_page.paragraph(f"and {more:,} more", "weak") if more else ""
    title = f"{what}: {pluralize(len(indices), 'image')}"
    grid = ""
    if cells:
        grid = html_page.image_grid(cells, cells[0]["small"], pairs=False)
    return html_page.paragraph(title) + grid + html_page.folded(f"List of {title}", listed)


def _label(found: Differences, index: int) -> str:
    label = found.paired.first.label[index]
    if found.paired.several_labels:
        return truncate(join_classes(label, found.paired.class_names) or "none", MAX_CAPTION)
    return truncate(found.paired.class_names[label], MAX_CAPTION)


def _answer(found: Differences, predictions, index: int) -> str:
    """Return the answer of a run on an image, with its probability if there is one answer."""
    names, answer = found.paired.class_names, predictions.predicted[index]
    if found.paired.several_labels:
        return truncate(join_classes(answer, names) or "none", MAX_CAPTION)
    name = names[answer] if answer < len(names) else f"output {answer}"
    confidence = format_percent(float(predictions.confidence[index]), 0)
    return f"{truncate(name, MAX_CAPTION)} ({confidence})"
