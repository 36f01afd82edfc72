"""Printing of predictions as they come."""

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import tqdm

from flax_resnet.program import reader_is_gone
from flax_resnet.text import one_line
from train.runtime.errors import print_error
from train.runtime.formatting import csv_row, pluralize

_NO_BAR = 32  # images, up to which there is no progress bar


def print_predictions(
    predictions: Iterable[Any],
    total: int,
    to_lines: Callable[[Any], list[str]],
    header: Sequence[str] | None,
    writes_files: bool,
) -> int:
    """Print predictions as they come, with a progress bar; return the number of those that failed.

    Args:
      predictions: of files; those that failed have an ``error``.
      total: their number.
      to_lines: returns the lines to print of one of them.
      header: columns of CSV; None for none.
      writes_files: whether the command continues if nobody reads its lines.
    """
    failed = 0
    hidden = total <= _NO_BAR or not sys.stderr.isatty()
    with tqdm.tqdm(total=total, unit=" images", leave=False, disable=hidden) as bar:
        if header is not None:
            bar.write(csv_row(header), sys.stdout)
        for prediction in predictions:
            if prediction.error is not None:
                failed += 1
                bar.write(one_line(f"error: {prediction.error}"), sys.stderr)
            for line in to_lines(prediction):
                # JSON and text are printable; CSV has no escapes, so files get it as it is.
                bar.write(one_line(line) if sys.stdout.isatty() else line, sys.stdout)
            bar.update()
            if reader_is_gone(sys.stdout) and not writes_files:
                break
    return failed


def exit_status(failed: int, total: int) -> int:
    """Report how many images failed, if any, and return the exit status."""
    if failed:
        print_error(f"{failed} of {pluralize(total, 'image')} failed")
    return 1 if failed else 0
