"""Text for terminals, plots and reports: names, counts, sizes and durations."""

import csv
import datetime
import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from flax_resnet.text import one_line

MAX_CAPTION = 40  # characters of a class name above an image


def join_names(names: Sequence[str], max_names: int = 8) -> str:
    """Return the first names, separated by commas, and the number of further ones."""
    more = f" and {len(names) - max_names} more" if len(names) > max_names else ""
    return ", ".join(map(one_line, names[:max_names])) + more


def pluralize(number: int, noun: str) -> str:
    """Return a number with its noun: ``"1 step"``, ``"1,000 steps"``, ``"2 classes"``."""
    ending = "" if number == 1 else "es" if noun.endswith("ss") else "s"
    return f"{number:,} {noun}{ending}"


def run_name(workdir: str) -> str:
    """Return the name of a run: that of its folder."""
    return one_line(os.path.basename(os.path.realpath(workdir)))


def csv_row(fields: Sequence[object]) -> str:
    """Return a CSV row without its line end."""
    buffer = io.StringIO(newline="")
    # With lineterminator="" Python 3.11 would not quote fields that contain line breaks.
    csv.writer(buffer, lineterminator="\n").writerow(fields)
    return buffer.getvalue().removesuffix("\n")


def json_row(fields: Mapping[str, Any]) -> str:
    """Return a JSON object on one line that is safe to print."""
    text = json.dumps(fields, ensure_ascii=False, allow_nan=False)
    # JSON's own escapes, so that a terminal is safe and the names are not changed.
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def format_array(value: Any) -> str:
    """Return dtype and shape of an array, ``"float32 (4, 1)"``, or the type of another object."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype} {tuple(value.shape)}"
    return "None" if value is None else f"an object of the type {type(value).__name__}"


def format_count(number: int) -> str:
    """Return a rounded number: ``"1.82 billion"``, ``"25.6 million"``, ``"4,096"``."""
    for name, unit in (("billion", 1e9), ("million", 1e6)):
        if number >= unit:
            return f"{number / unit:.3g} {name}"
    return f"{number:,}"


def format_bytes(number: float) -> str:
    """Return a size in decimal units: ``"999 bytes"``, ``"6.7 GB"``, ``"148 GB"``."""
    units = ["bytes", "kB", "MB", "GB", "TB"]
    while number >= 999.5 and len(units) > 1:
        number /= 1000
        units.pop(0)
    digits = 0 if units[0] == "bytes" or number >= 99.5 else 1
    return f"{number:.{digits}f} {units[0]}"


def format_clock(seconds: float) -> str:
    """Return a duration as on a clock: ``"0:07"``, ``"3:07"``, ``"1:03:07"``."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def format_duration(seconds: float) -> str:
    """Return a duration with seconds below a minute: ``"2.4 s"``, ``"3:07"``, ``"1:03:07"``."""
    return f"{seconds:.2g} s" if seconds < 60 else format_clock(seconds)


def format_span(seconds: float) -> str:
    """Return a duration in words: ``"12 s"``, ``"3 min 7 s"``, ``"1 h 3 min"``, ``"2 d 4 h"``."""
    units = {"d": 86400, "h": 3600, "min": 60, "s": 1}
    rest, parts = max(0, round(seconds)), []
    for name, size in units.items():
        count, rest = divmod(rest, size)
        if count or parts:
            parts.append(f"{count} {name}")
    return " ".join(part for part in parts[:2] if not part.startswith("0 ")) or "0 s"


def format_about(seconds: float) -> str:
    """Return a rough duration: ``"40 s"``, ``"12 min"``, ``"3.5 h"``, ``"2.1 days"``."""
    for unit, size, end in (("s", 1, 90), ("min", 60, 90), ("h", 3600, 48)):
        if seconds < end * size:
            value = seconds / size
            return f"{value:.1f} {unit}" if unit == "h" and value < 10 else f"{value:.0f} {unit}"
    return f"{seconds / 86400:.1f} days"


def format_percent(share: float, decimals: int = 1) -> str:
    """Return a share of 1 as text: ``"97.8 %"``."""
    return f"{100 * share:.{decimals}f} %"


def format_number(value: float, digits: int = 4) -> str:
    """Return a number as text: ``"1.25"``, ``"12,500"``, ``"1.2e-6"``."""
    text = f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.{digits}g}"
    return re.sub(r"e([+-])0*(\d)", lambda m: f"e{m[1].strip('+')}{m[2]}", text)


def format_time(moment: str | float) -> str:
    """Return a time in the local zone: ``"2026-11-30 14:05 CET"``.

    Args:
      moment: in ISO 8601, of UTC if it names no zone, or in seconds since 1970.

    Raises:
      ValueError: the text is no time.
    """
    if isinstance(moment, str):
        time = datetime.datetime.fromisoformat(moment)
        time = time if time.tzinfo else time.replace(tzinfo=datetime.UTC)
    else:
        time = datetime.datetime.fromtimestamp(moment, datetime.UTC)
    local = time.astimezone()
    zone = local.tzname() or f"{local:%z}"
    return f"{local:%Y-%m-%d %H:%M} {zone if zone[:1].isalpha() else f'UTC{zone}'}"
