"""Names of files that a command writes for pictures, without their extension."""

import itertools
import os
from collections.abc import Sequence

_MAX_STEM_BYTES = 200  # a name has 255 at most, with a number and the suffix of a partial file


class OutputNames:
    """The names of pictures without folder and extension; repeated ones get a number."""

    def __init__(self) -> None:
        self._used: set[str] = set()

    def of(self, file: str) -> str:
        """Return the name for a picture, another one at each call."""
        stem = os.path.splitext(os.path.basename(file))[0]
        encoded = os.fsencode(stem)
        if len(encoded) > _MAX_STEM_BYTES:
            stem = encoded[:_MAX_STEM_BYTES].decode("utf-8", "ignore")
        names = itertools.chain([stem], (f"{stem}_{number}" for number in itertools.count(2)))
        name = next(name for name in names if name.casefold() not in self._used)
        self._used.add(name.casefold())
        return name


def png_files(files: Sequence[str], folder: str) -> list[str]:
    """Return the PNG file that is written in a folder for each picture."""
    names = OutputNames()
    return [os.path.join(folder, f"{names.of(file)}.png") for file in files]
