"""Checks of the names of classes."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable

from flax_resnet.text import truncate
from train.data.source import DataSource
from train.runtime.errors import UsageError
from train.runtime.formatting import join_names

_IN_MEMORY = ("arrays", "given", "hf")  # sources that do not know each other's classes
ALIKE = "only in letter case, spaces, invisible characters, Unicode form or zeros of a number"
_NUMBER = re.compile(r"0*(\d+?)(?:\.0*)?")  # whole; its value has no leading zeros


def check_classes(one: DataSource, other: DataSource) -> None:
    """Raise UsageError if two splits have different classes."""
    if one.class_names == other.class_names:
        return
    parts = []
    for source, reference in ((one, other), (other, one)):
        if missing := sorted(set(reference.class_names) - set(source.class_names)):
            parts.append(f"{source.split!r} lacks {join_names([repr(name) for name in missing])}")
    text = "; ".join(parts) or "they have another order"
    groups = alike({*one.class_names, *other.class_names})
    if groups:
        text += f"; {join_names([' and '.join(group) for group in groups])} differ {ALIKE}"
    elif one.name == "folder":
        text += "; add images to the missing classes, or remove those classes from both splits"
    elif one.name in _IN_MEMORY:
        names = sorted({*one.class_names, *other.class_names})
        text += f"; name all classes for both splits: class_names={truncate(repr(names))}"
    raise UsageError(f"the splits of {one.name} have different classes: {text}")


def alike(names: Iterable[str]) -> list[list[str]]:
    """Return groups of names that look alike, each as a Python string literal."""
    groups = defaultdict(list)
    for name in sorted(names):
        visible = "".join(c for c in name if c.isprintable() or c.isspace())
        folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", visible).casefold())
        text = " ".join(folded.split())
        number = _NUMBER.fullmatch(text)
        groups[number[1] if number else text].append(name)
    return [
        # Characters of another Unicode form would look the same.
        list(map(repr if len({*map(_composed, group)}) == len(group) else ascii, group))
        for group in groups.values()
        if len(group) > 1
    ]


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)
