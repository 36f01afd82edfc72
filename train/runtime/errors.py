"""Errors that commands report in one line instead of a traceback, and warnings."""

import os
import sys
from collections.abc import Callable
from typing import TextIO

from flax_resnet.text import MAX_MESSAGE, truncate


class RunError(Exception):
    """An error outside the configuration; commands exit with status 1."""


class UsageError(Exception):
    """A wrong command line or configuration; commands exit with status 2."""


def print_line(text: object, stream: TextIO | None = None) -> None:
    """Print one line to stdout or ``stream``, whatever names of files and classes it has."""
    print_or_continue(truncate(text, MAX_MESSAGE), stream)


def print_or_continue(
    text: str, stream: TextIO | None = None, write: Callable[..., None] = print
) -> None:
    """Print a text; if the reader of the output, such as ``head``, is gone, discard what follows.

    A command that also writes files must not end before they are written.
    """
    stream = stream or sys.stdout
    try:
        write(text, file=stream)
        stream.flush()
    except BrokenPipeError:
        discard_output(stream)


def print_error(error: object) -> None:
    """Print a one-line error to stderr."""
    print_line(f"error: {error}", sys.stderr)


def warn(text: object) -> None:
    """Print a one-line warning to stderr."""
    print_line(f"warning: {text}", sys.stderr)


def discard_output(stream: TextIO | None = None) -> None:
    """Discard output to stdout or ``stream``, whose reader is gone or whose disk is full."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), (stream or sys.stdout).fileno())
