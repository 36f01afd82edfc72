"""Errors that are told to a person in one line instead of a traceback."""


class RunError(Exception):
    """Something outside the configuration went wrong; commands end with status 1."""


class UsageError(Exception):
    """The command or its configuration is wrong; commands end with status 2."""
