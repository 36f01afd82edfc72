"""Calls of registered parts, which may be a user's code."""

from typing import Any

from flax_resnet.registry import Registry
from flax_resnet.text import error_reason
from train.runtime.errors import RunError, UsageError


def build(registry: Registry, name: str, *arguments: Any) -> Any:
    """Call the registered function ``name``.

    Raises:
      UsageError: it is not the project's, and fails; the message names it.
    """
    try:
        return registry[name](*arguments)
    except (UsageError, RunError):
        raise
    except Exception as error:
        if registry.owner(name) is None:  # a traceback says more about a bug of the project
            raise
        raise UsageError(
            f"the {registry.kind} {name!r} fails: {type(error).__name__}: {error_reason(error)}"
        ) from error
