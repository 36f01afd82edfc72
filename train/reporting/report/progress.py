"""How far a run is, from its files."""

import statistics
from collections.abc import Sequence


def progress(rows: Sequence[dict], sessions: Sequence[dict]) -> tuple[int, int | None]:
    """Return the last logged step, and the length of the run in steps if it is known."""
    totals = (s["num_steps"] for s in reversed(sessions))
    total = next((steps for steps in totals if steps is not None), None)
    return max((row["step"] for row in rows), default=0), total


def throughput(rows: Sequence[dict]) -> float | None:
    """Return the median of the images per second; None if no row has them."""
    rates = [row["images_per_second"] for row in rows if row.get("images_per_second")]
    return statistics.median(rates) if rates else None
