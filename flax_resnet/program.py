"""The name under which a command of this package runs."""

import sys


def program(module: str) -> str:
    """Return ``flax-resnet COMMAND`` if that runs, else ``python -m flax_resnet.MODULE``."""
    installed = sys.argv[0].startswith("flax-resnet ")
    return sys.argv[0] if installed else f"python -m flax_resnet.{module}"
