"""Calls of registered parts, which may be a user's code."""

import os
import traceback
from typing import Any

from flax_resnet.recipes import is_local
from flax_resnet.registry import Registry
from flax_resnet.text import error_reason
from train.runtime.errors import RunError, UsageError

# What a call of own code may raise: a script that it calls may exit.
FAILURES = (Exception, SystemExit)
_PICKLED = "<dynamic-code>"  # the file of a recipe's functions that cloudpickle sent to a worker


def build(registry: Registry, name: str, *arguments: Any) -> Any:
    """Call the registered function ``name``.

    Raises:
      UsageError: it is not the project's, and fails or returns None; the message names it.
    """
    try:
        part = registry[name](*arguments)
    except (UsageError, RunError):
        raise
    except FAILURES as error:
        if registry.owner(name) is None:  # a traceback says more about a bug of the project
            raise
        raise UsageError(f"the {registry.kind} {name!r} fails: {describe(error)}") from error
    if part is None:
        raise UsageError(
            f"the {registry.kind} {name!r} returned None; its function may lack a return statement"
        )
    return part


def describe(error: BaseException) -> str:
    """Return type and message of an error of own code, and where it was raised, on one line."""
    reason, where = error, place(error)
    while len(reason.args) == 1 and isinstance(reason.args[0], BaseException):
        reason = reason.args[0]  # a ConfigDict's AttributeError holds a KeyError
    if isinstance(reason, KeyError) and "\n" in str(*reason.args[:1]):
        reason = ValueError(*reason.args)  # a KeyError's text would be escaped
    text = f"{type(error).__name__}: {error_reason(reason)}"
    return f"{text} ({where})" if where else text


def place(error: BaseException) -> str | None:
    """Return the innermost line of a user's code in a traceback, such as ``"my.py, line 3"``."""
    frames = traceback.walk_tb(error.__traceback__)
    lines = [(frame.f_code.co_filename, number) for frame, number in frames]
    own = [(file, number) for file, number in lines if _is_own(file)]
    if not own:
        return None
    file, number = own[-1]
    return f"{'the recipe' if file == _PICKLED else os.path.basename(file)}, line {number}"


def _is_own(file: str) -> bool:
    return file == _PICKLED or (file[0] != "<" and is_local(file))
