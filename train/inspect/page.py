"""The page of an inspection."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from flax_resnet.images.pixels import PixelFormat
from flax_resnet.preprocessing import to_viewable
from flax_resnet.text import one_line, truncate
from train.data.images import resize_area
from train.inspect.findings_table import (
    BLANK,
    CONFLICT,
    COPY,
    LABEL,
    LEAK,
    NEAR,
    OUTLIER,
    UNREADABLE,
    FindingRow,
    count_kinds,
)
from train.inspect.images import Images
from train.inspect.inspection import Inspection
from train.reporting import html_page
from train.runtime.formatting import MAX_CAPTION, format_duration, format_percent

MAX_SHOWN = 48  # pictures of a kind
_SIDE = 128
_MAX_ROWS = 200
_TITLES = {
    LABEL: ("Likely label errors", "The given class, and the more likely one with its score."),
    LEAK: ("Copies across splits", "The accuracy is overestimated; remove them from one split."),
    CONFLICT: ("Copies with different labels", "At most one of the labels is right."),
    COPY: ("Copies within a split", ""),
    NEAR + LEAK: ("Near copies across splits", "Perhaps scaled, encoded or cropped again."),
    NEAR + CONFLICT: ("Near copies with different labels", ""),
    NEAR + COPY: ("Near copies within a split", ""),
    OUTLIER: ("Outliers", "Far from all other images; the score is relative to a typical image."),
    BLANK: ("Images of one color", ""),
}


def page(inspection: Inspection, title: str, pixels: PixelFormat) -> str:
    """Return the HTML of an inspection; ``pixels`` are channels and bits of the images."""
    images, rows = inspection.images, inspection.rows
    counts = count_kinds(rows)
    tiles = [("images", f"{len(images):,}", f"in {len(images.sources)} splits")]
    tiles += [(kind, f"{number:,}", "") for kind, number in counts.items()]
    body = [
        f"<header>\n<h1>{html_page.escape(title)}</h1>\n</header>",
        html_page.tiles(tiles),
        html_page.section("Classes", _class_table(images), *_notes(inspection)),
        html_page.section("Image sizes", _size_table(images)),
        html_page.section("Findings on the data", _findings(inspection)),
    ]
    for kind, (name, explanation) in _TITLES.items():
        chosen = [row for row in rows if row.kind == kind]
        body.append(_pictures(inspection, chosen, name, explanation, pixels))
    body.append(_unreadable([row for row in rows if row.kind == UNREADABLE]))
    durations = [(name, format_duration(value)) for name, value in inspection.seconds.items()]
    body.append(
        html_page.section("Durations", html_page.table(("part", "time"), durations, "time"))
    )
    return html_page.page(f"{title} – flax-resnet", body)


def _notes(inspection: Inspection) -> list[str]:
    return [html_page.paragraph(note, "weak") for note in inspection.notes]


def _class_table(images: Images) -> str:
    names = images.sources[0].class_names
    counts = [images.class_counts(number) for number in range(len(images.sources))]
    totals = list(map(len, images.sources))
    rows = [
        (
            one_line(name),
            *(
                f"{n[i]:,} ({format_percent(n[i] / of)})"
                for n, of in zip(counts, totals, strict=True)
            ),
        )
        for i, name in enumerate(names)
    ]
    head = ("class", *(source.split for source in images.sources))
    table = html_page.table(head, rows[:_MAX_ROWS], "images of each class")
    if len(rows) > _MAX_ROWS:
        more = html_page.table(head, rows[_MAX_ROWS:], "images of the other classes")
        table += html_page.folded(f"{len(rows) - _MAX_ROWS:,} more classes", more)
    return table


def _size_table(images: Images) -> str:
    rows = []
    for number, source in enumerate(images.sources):
        size = images.size[(images.split == number) & images.readable]
        if not len(size):
            continue
        ratio = np.sort(size[:, 1] / size[:, 0])
        common, times = Counter(map(tuple, size.tolist())).most_common(1)[0]
        low, middle, high = (int(np.quantile(size.min(axis=1), q)) for q in (0, 0.5, 1))
        rows.append(
            (
                source.split,
                f"{low:,} / {middle:,} / {high:,}",
                f"{ratio[0]:.2f} to {ratio[-1]:.2f}",
                f"{common[1]}×{common[0]} ({format_percent(times / len(size))})",
            )
        )
    head = (
        *("split", "shorter side: least / median / largest"),
        *("width : height", "most frequent size"),
    )
    return html_page.table(head, rows, "image sizes") if rows else ""


def _findings(inspection: Inspection) -> str:
    rows = [("warning" if f.is_warning else "note", f.text) for f in inspection.findings]
    head = ("kind", "finding")
    return html_page.table(head, sorted(rows, reverse=True), "findings") if rows else ""


def _unreadable(rows: Sequence[FindingRow]) -> str:
    cells = [(one_line(row.file), row.split, row.other) for row in rows[:_MAX_ROWS]]
    if not cells:
        return ""
    return html_page.section(
        "Unreadable images", html_page.table(("file", "split", "reason"), cells, "unreadable")
    )


def _pictures(
    inspection: Inspection,
    rows: Sequence[FindingRow],
    title: str,
    explanation: str,
    pixels: PixelFormat,
) -> str:
    if not rows:
        return ""
    shown = rows[:MAX_SHOWN]
    if len(rows) > len(shown):
        explanation += f" {len(shown)} of {len(rows):,} are shown; findings.csv lists all."
    images = inspection.images
    pictures = [_read(images, row.image, pixels) for row in shown]
    cells = html_page.image_cells(pictures, [_caption(images, row) for row in shown])
    small = bool(np.median(images.size[[row.image for row in shown]]) < 64)
    explanation = html_page.paragraph(explanation.strip(), "weak") if explanation else ""
    return html_page.section(title, explanation, html_page.image_grid(cells, small))


def _caption(images: Images, row: FindingRow) -> str:
    label = truncate(row.label, MAX_CAPTION)
    in_folder = row.file.startswith(f"{row.split}/")
    lines = [label, row.file if in_folder else f"{row.split}: {row.file}"]
    if row.kind == LABEL:
        lines[0] += f" → {truncate(row.suggestion, MAX_CAPTION)} ({format_percent(row.score, 0)})"
    elif row.kind == OUTLIER:
        lines[0] += f" ({row.score:.1f})"
    elif row.other:
        lines.append(f"{'≈' if row.kind.startswith(NEAR) else '='} {row.other}")
    return "\n".join(lines)


def _read(images: Images, index: int, pixels: PixelFormat) -> np.ndarray:
    """Return an image as uint8 RGB of at most 128 pixels; its thumbnail if it cannot be read."""
    source = images.sources[images.split[index]]
    try:
        image = to_viewable(source.decode(int(images.record[index]), lambda *_: None, pixels)[0])
    except ValueError:  # it has changed since
        image = images.thumbnail[index]
    height, width = image.shape[:2]
    scale = _SIDE / max(height, width)
    if scale < 1:
        width, height = (max(1, round(side * scale)) for side in (width, height))
        return resize_area(image, width, height)
    return image
