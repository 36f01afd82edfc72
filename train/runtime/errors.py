"""Errors that commands report in one line instead of a traceback, and warnings."""

import os
import sys


class RunError(Exception):
    """An error outside the configuration; commands exit with status 1."""


class UsageError(Exception):
    """A wrong command line or configuration; commands exit with status 2."""


def warn(text: str) -> None:
    """Print a one-line warning to stderr."""
    print(f"warning: {text}", file=sys.stderr, flush=True)


def discard_output() -> None:
    """Discard further output to stdout, whose reader is gone or whose disk is full."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
