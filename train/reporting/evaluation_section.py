"""The part of ``report.html`` about an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from train.engine.predictions import output_names
from train.reporting import curves, html_page, svg
from train.runtime.formatting import one_line, truncate

_MOST_CLASSES = 25  # in the table of classes


def section(name: str, part: dict[str, Any]) -> str:
    """The HTML of the evaluation ``name``; ``part`` is what the run's report kept of it."""
    average = ", moving average of the weights" if part["weights"] == "ema" else ""
    bad = f", {part['bad']} more unreadable" if "bad" in part else ""
    flip = ", with mirror images" if part.get("tta") else ""
    interval = "top-1 {:.2%} (95 % interval {:.2%} to {:.2%})".format(
        part["top1"], *part["top1_interval"]
    )
    told = (
        f"{part['dataset']} {part['split']}, step {part['step']:,}{average}{flip}:"
        f" {part['examples']:,} images{bad}; {interval}; loss {part['loss']:.4g};"
        f" {part['mean_confidence']:.1%} sure on average, expected calibration error"
        f" {part['expected_calibration_error']:.2%}."
    )
    small = part["small"]
    grids = [
        ("Where the network looks (Grad-CAM)", "explained"),
        ("The most confident mistakes", "mistakes"),
    ]
    return html_page.section(
        f"Evaluation: {name}",
        html_page.paragraph(told),
        "<h3>Confusion: classes in rows, answers in columns</h3>",
        _confusion(part),
        "<h3>Classes</h3>",
        *_classes(part["classes"]),
        "<h3>Calibration</h3>",
        f'<div class="charts">{svg.figure(_reliability(part), values=False)}</div>',
        *(
            f"<h3>{title}</h3>{html_page.cells(part[key], small, key == 'explained')}"
            for title, key in grids
            if part.get(key)
        ),
    )


def _confusion(part: dict[str, Any]) -> str:
    if "confusion" not in part:
        return (
            '<p class="weak">The darker, the more of a class; square roots, so that rare ones'
            f' show.</p><img class="pixels" style="width:min(100%,36rem)" src="{part["heat_map"]}"'
            ' alt="confusion matrix">'
        )
    counts = part["confusion"]
    names = output_names([one["name"] for one in part["classes"]], len(counts))
    head = "".join(f'<th scope="col">{html_page.escape(truncate(name, 14))}</th>' for name in names)
    lines = []
    for name, row in zip(names, counts, strict=True):
        total = sum(row) or 1
        cells = "".join(
            f'<td style="background:rgba(var(--heat),{0.45 * n / total:.2f})">{n}</td>'
            if n
            else "<td></td>"
            for n in row
        )
        lines.append(f'<tr><th scope="row">{html_page.escape(truncate(name, 20))}</th>{cells}</tr>')
    inside = (
        f'<table class="matrix"><thead><tr><td></td>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table>"
    )
    return html_page.scrolling(inside, "confusion matrix")


def _classes(classes: Sequence[dict[str, Any]]) -> list[str]:
    """The worst classes, and the others on request."""
    seen = sorted((c for c in classes if c["examples"]), key=lambda c: c["accuracy"])
    rows = [
        (
            one_line(one["name"]),
            f"{one['accuracy']:.1%}",
            "{:.1%} to {:.1%}".format(*one["interval"]),
            "–" if one["precision"] is None else f"{one['precision']:.1%}",
            f"{one['examples']:,}",
        )
        for one in seen
    ]
    head = ("class", "found", "95 % interval", "right of those said", "images")
    shown = [html_page.table(head, rows[:_MOST_CLASSES], "accuracy of each class, the worst first")]
    if len(rows) > _MOST_CLASSES:
        rest = html_page.table(head, rows[_MOST_CLASSES:], "accuracy of the other classes")
        shown.append(html_page.folded(f"{len(rows) - _MOST_CLASSES:,} better classes", rest))
    return shown


def _reliability(part: dict[str, Any]) -> curves.Panel:
    bins = [one for one in part["reliability"] if one["examples"]]
    points = [(one["confidence"], one["accuracy"]) for one in bins]
    return curves.Panel(
        "how often answers of each confidence are right",
        [
            curves.Series("as sure as right", [(0.0, 0.0), (1.0, 1.0)], colour=7),
            curves.Series("this network", points, dots=True),
        ],
        x="confidence",
        low=0,
        high=1,
        percent=True,
    )
