"""Errors that are told to a person in one line instead of a traceback, and warnings."""

import os
import sys


class RunError(Exception):
    """Something outside the configuration went wrong; commands end with status 1."""


class UsageError(Exception):
    """The command or its configuration is wrong; commands end with status 2."""


def warn(text: str) -> None:
    """One line that asks for attention, on stderr."""
    print(f"warning: {text}", file=sys.stderr, flush=True)


def discard_output() -> None:
    """What is printed from now on goes nowhere: whoever read it has gone, or its disk is full."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
