"""The name of a command of this package, its arguments and its output."""

import argparse
import io
import os
import sys
from typing import NoReturn, TextIO

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


def prepare_streams() -> None:
    """Let standard output and errors take any text, and outlive their readers.

    Characters that their encoding does not have, such as ×, are replaced. If a reader ends before
    the command, as ``head`` does, further output is discarded: the command still writes its files,
    and ends with its own status. Streams that the caller closed are opened, so that no file gets
    their numbers.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)
    sys.stderr = sys.stderr or open(2, "w", closefd=False)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        stream.reconfigure(errors="replace")
        buffer = getattr(stream, "buffer", None)
        raw = getattr(buffer, "raw", buffer)  # without a buffer under python -u
        if isinstance(raw, io.FileIO):  # not if a caller in Python has redirected it
            stream.flush()
            output = io.TextIOWrapper(
                io.BufferedWriter(_Output(raw, stream)),
                encoding=stream.encoding,
                errors="replace",
                line_buffering=stream.line_buffering,
                write_through=stream.write_through,
            )
            setattr(sys, name, output)


def reader_is_gone(stream: TextIO) -> bool:
    """Return whether output was discarded since the reader of the stream has ended."""
    output = getattr(getattr(stream, "buffer", None), "raw", None)
    return isinstance(output, _Output) and output.reader_is_gone


class _Output(io.RawIOBase):
    """Output to a file, or to a pipe until its reader ends."""

    def __init__(self, file: io.FileIO, owner: TextIO):
        super().__init__()
        self._file = file
        self._owner = owner  # which would close the file once nobody refers to it
        self.reader_is_gone = False

    def write(self, data: bytes) -> int | None:
        """Write, or discard the data if nobody reads them."""
        try:
            return self._file.write(data)
        except BrokenPipeError:
            self.reader_is_gone = True
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._file.fileno())  # also for libraries that write to the number
            os.close(null)
            return len(data)

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the number of the file."""
        return self._file.fileno()

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return self._file.isatty()
