"""The font files of this machine."""

import importlib.util
import os
import sys
from collections.abc import Iterator
from functools import cache

from train.reporting.fonts.character_map import covers

EXTENSIONS = (".ttf", ".otf", ".ttc", ".otc")
DEJAVU = "DejaVuSans.ttf"
_PLACEHOLDERS = "lastresort"  # fonts with a sign for each script instead of its letters
# Words in the names of fonts that are less legible in small captions; the first are the worst.
_WORSE = (
    ("fallback", "braille"),
    ("italic", "oblique", "slanted"),
    ("condensed", "display", "thin", "light", "black", "bold", "heavy"),
    ("serif", "mono", "medium", "ming", "song", "mincho"),
)


@cache
def primary_font() -> str | None:
    """Return the font of Latin text: DejaVu Sans where it is found; None without any font.

    DejaVu Sans also has Greek, Cyrillic, Arabic, Hebrew, Armenian and Georgian. matplotlib brings
    it, so that captions do not depend on the fonts of a container.
    """
    if (package := importlib.util.find_spec("matplotlib")) is not None:  # without importing it
        for folder in package.submodule_search_locations or ():
            path = os.path.join(folder, "mpl-data", "fonts", "ttf", DEJAVU)
            if os.path.exists(path):
                return path
    files = installed_fonts()
    latin = (file for file in files if covers(file, "aAzZ09%…"))
    return next((f for f in files if os.path.basename(f) == DEJAVU), next(latin, None))


@cache
def installed_fonts() -> tuple[str, ...]:
    """Return the paths of all installed fonts, the most legible first."""
    paths = {path for folder in font_folders() for path in _fonts_in(folder)}
    return tuple(sorted(paths, key=lambda path: (_rank(os.path.basename(path)), path)))


def font_folders() -> list[str]:
    """Return the folders of the system's and the user's fonts, which need not exist."""
    home = os.path.expanduser("~")
    if sys.platform == "darwin":
        return ["/System/Library/Fonts", "/Library/Fonts", f"{home}/Library/Fonts"]
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA", home)
        return [
            os.path.join(os.environ.get("WINDIR", r"C:\Windows"), "Fonts"),
            os.path.join(local, "Microsoft", "Windows", "Fonts"),
        ]
    shared = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
    own = os.environ.get("XDG_DATA_HOME") or f"{home}/.local/share"
    data = [own, *shared.split(":"), os.path.join(sys.prefix, "share")]
    return [*(os.path.join(folder, "fonts") for folder in data), f"{home}/.fonts"]


def _fonts_in(folder: str) -> Iterator[str]:
    for place, _, names in os.walk(folder):
        for name in names:
            if name.lower().endswith(EXTENSIONS) and _PLACEHOLDERS not in name.lower():
                yield os.path.join(place, name)


def _rank(name: str) -> int:
    words = [any(word in name.lower() for word in group) for group in _WORSE]
    return sum(bad << (len(words) - i) for i, bad in enumerate(words))
