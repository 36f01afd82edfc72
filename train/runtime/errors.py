"""Errors that commands report in one line instead of a traceback, and warnings."""

import os
import sys
from typing import TextIO

from flax_resnet.text import MAX_MESSAGE, truncate


class RunError(Exception):
    """An error outside the configuration; commands exit with status 1."""


class UsageError(Exception):
    """A wrong command line or configuration; commands exit with status 2."""


def print_line(text: object, stream: TextIO | None = None) -> None:
    """Print one line to stdout or ``stream``, whatever names of files and classes it has."""
    print(truncate(text, MAX_MESSAGE), file=stream, flush=True)


def print_error(error: object) -> None:
    """Print a one-line error to stderr."""
    print_line(f"error: {error}", sys.stderr)


def warn(text: object) -> None:
    """Print a one-line warning to stderr."""
    print_line(f"warning: {text}", sys.stderr)


def note(text: object) -> None:
    """Print a one-line note to stderr."""
    print_line(f"note: {text}", sys.stderr)


def print_message(text: str) -> None:
    """Print a line of a command: to stderr if it is marked as a note or warning."""
    is_remark = text.startswith(("note: ", "warning: "))
    print_line(text, sys.stderr if is_remark else sys.stdout)


def discard_output() -> None:
    """Discard further output to stdout, whose reader is gone or whose disk is full."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
