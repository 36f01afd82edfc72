"""Tiles of the first screen on the classes and the calibration of an evaluation."""

from collections.abc import Mapping
from typing import Any

from train.reporting.html_page import Tile
from train.reporting.report.result_sentence import quote, worst_class
from train.runtime.formatting import format_percent, pluralize


def class_tiles(part: Mapping[str, Any]) -> list[Tile]:
    """Return the worst class and the calibration of an evaluation in ``report.json``."""
    tiles = []
    if worst := worst_class(part):
        found = round(worst["recall"] * worst["examples"])
        remark = f"recall of {quote(worst['name'])}: {found:,} of {worst['examples']:,} images"
        equal = sum(bool(one["recall"] == worst["recall"]) for one in part["classes"])
        remark += f"; {pluralize(equal - 1, 'more class')}" if equal > 1 else ""
        tiles.append(("worst class", format_percent(worst["recall"]), remark))
    ece, confidence = part.get("expected_calibration_error"), part.get("mean_confidence")
    if ece is not None:
        remark = "mean gap of confidence and accuracy"
        if confidence is not None:
            remark = (
                f"mean confidence {format_percent(confidence)}, accuracy"
                f" {format_percent(part['top1'])}"
            )
        tiles.append(("calibration error (ECE)", format_percent(ece), remark))
    return tiles
