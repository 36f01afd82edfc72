"""The sections of ``report.html`` on the data."""

from collections.abc import Mapping, Sequence
from typing import Any

from train.reporting import html_page


def sections(parts: Mapping[str, Any]) -> list[str]:
    """Return the HTML of the sections, from the content of ``report.json``."""
    grid = ""
    if samples := parts.get("samples"):
        grid = html_page.image_grid(samples["cells"], samples["small"])
    return [
        html_page.section("Data", _findings(parts.get("findings", []))),
        html_page.section("Training images (augmented)", grid),
    ]


def _findings(findings: Sequence[dict[str, Any]]) -> str:
    """Return a table of findings on the data, the warnings first; nothing without any."""
    rows = [("warning" if one["is_warning"] else "note", one["text"]) for one in findings]
    if not rows:
        return ""
    return html_page.table(("kind", "finding"), sorted(rows, reverse=True), "findings on the data")
