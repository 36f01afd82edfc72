"""The name of a command of this package, its arguments and its output."""

import argparse
import sys
from typing import NoReturn

from flax_resnet.text import one_line


class OneLineParser(argparse.ArgumentParser):
    """Parser that reports a usage error in one line."""

    def error(self, message: str) -> NoReturn:
        """Exit with status 2 instead of printing the usage first."""
        self.exit(2, f"error: {one_line(message)}; see {self.prog} --help\n")


def program(module: str) -> str:
    """Return ``flax-resnet COMMAND`` if that runs, else ``python -m flax_resnet.MODULE``."""
    installed = sys.argv[0].startswith("flax-resnet ")
    return sys.argv[0] if installed else f"python -m flax_resnet.{module}"


def replace_unencodable() -> None:
    """Let the standard streams replace characters that their encoding does not have, such as ×."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")
