"""A folder of pictures, one subfolder a class, as in torchvision's ImageFolder.

Two forms: ``ROOT/{train,val|validation|valid|test}/CLASS/**`` and ``ROOT/CLASS/**``, of which a
part is held out for evaluation. Files are pictures by the ending of their name, in any case;
those that begin with a dot are passed over. Links are followed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from train.data.source import DataSource
from train.runtime.errors import RunError, UsageError

ENDINGS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm"),
)
TRAIN = "train"
# What an evaluation split may be called; the first that is there.
HELD_OUT = ("val", "validation", "valid", "test")
ALL = "all"  # every picture of a folder that has the classes themselves
LAYOUT = "put the pictures into ROOT/train/CLASS/ and ROOT/val/CLASS/, or into ROOT/CLASS/"


@dataclass(frozen=True)
class ImageFolder(Sequence):
    """Files and labels as records; a record is read when it is asked for."""

    root: str
    files: tuple[str, ...]  # below root
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        name = self.files[index]
        with open(os.path.join(self.root, name), "rb") as file:
            return {"image": file.read(), "label": self.labels[index]}


def open_folder(root: str, split: str, held_out: float, seed: int) -> DataSource:
    """Opens the pictures of ``split`` below ``root``; class names are sorted.

    Args:
      root: the folder.
      split: a subfolder's name, such as ``"train"`` or ``"val"``. Where another of
        ``HELD_OUT`` is there instead of the one that is named, it is taken; where none is,
        or ``root`` has the classes themselves, a part of the training pictures; of the latter
        ``"all"`` are all pictures.
      held_out: share of every class that is kept from training for evaluation in that case,
        at least one picture.
      seed: decides which. A picture stays on its side when others are added, but for few.

    Raises UsageError or RunError, in one line, where there is no such folder, or no
    pictures, or a single class.
    """
    if "://" in root:
        raise UsageError(f"a folder of pictures must be on a disk of this machine, not {root!r}")
    if not os.path.isdir(root):
        raise RunError(
            f"{root!r} is {'a file' if os.path.exists(root) else 'not there'}; name the folder"
            " with the pictures with --config.dataset.data_dir=FOLDER"
        )
    try:
        below, part = _place_of(root, split)
        classes = _classes(os.path.join(root, below))
    except OSError as error:
        raise RunError(f"cannot list {error.filename!r}: {error.strerror}") from error
    if len(classes) < 2:
        found = f"one class, {next(iter(classes))!r}" if classes else "no folder with pictures"
        raise UsageError(f"{os.path.join(root, below)!r} has {found}; {LAYOUT}")
    chosen = []
    for label, (name, files) in enumerate(classes.items()):
        if part:
            files = _part(part, name, files, held_out, seed)
        chosen += [(os.path.join(below, name, file), label) for file in files]
    files, labels = (tuple(column) for column in zip(*chosen, strict=True))
    return DataSource(
        "folder", split, tuple(classes), ImageFolder(root, files, labels), names=files
    )


def has_splits(root: str) -> bool:
    """Whether the folder has subfolders for splits, and not the classes themselves."""
    return any(os.path.isdir(os.path.join(root, name)) for name in (TRAIN, *HELD_OUT))


def _place_of(root: str, split: str) -> tuple[str, str]:
    """The folder below ``root`` to read, and which part of it: '' for all, or a name."""
    has = {name for name in (TRAIN, *HELD_OUT, split) if os.path.isdir(os.path.join(root, name))}
    if split in has:
        others = [name for name in HELD_OUT if name in has]
        return split, "" if split != TRAIN or others else "train"
    if split == ALL and not has:
        return "", ""
    if split == TRAIN and not has & set(HELD_OUT):
        return "", "train"
    if split in HELD_OUT:
        instead = [name for name in HELD_OUT if name in has]
        if instead:
            return instead[0], ""
        return (TRAIN if TRAIN in has else ""), "held out"
    if "[" in split or "+" in split:
        raise UsageError(
            f"the split {split!r} is a slice or a sum, which data sets of TFDS have and folders do"
            f" not: their pictures lie sorted by class; name a whole one, such as {HELD_OUT[0]!r}"
        )
    named = ", ".join(sorted(has)) or "none of train, " + ", ".join(HELD_OUT)
    raise UsageError(f"{root!r} has no subfolder {split!r} for that split; it has {named}")


def _classes(folder: str) -> dict[str, list[str]]:
    """Pictures by class, all sorted, as paths below the class's folder."""
    found = {}
    with os.scandir(folder) as entries:
        names = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    for name in names:
        top = os.path.join(folder, name)
        files = sorted(os.path.relpath(file, top) for file in pictures_in(top))
        if files:
            try:
                name.encode()
            except UnicodeEncodeError:
                raise UsageError(
                    f"the name of the class {name!r} in {folder!r} is not UTF-8; rename the folder"
                ) from None
            found[name] = files
    return found


def pictures_in(folder: str, dangling: bool = False) -> Iterator[str]:
    """All pictures in a folder, at any depth, in no order. Raises OSError.

    Links that lead nowhere are passed over unless ``dangling`` asks for them.
    """
    return _pictures(folder, dangling, set())


def _pictures(folder: str, dangling: bool, seen: set[str]) -> Iterator[str]:
    """All pictures at any depth; a folder that links lead to twice is walked once."""
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            # A link to a folder above would bring in other classes' pictures.
            if entry.is_dir() and not _is_above(os.path.realpath(entry.path), real):
                yield from _pictures(entry.path, dangling, seen)
            elif entry.name.lower().endswith(ENDINGS) and (
                entry.is_file() or (dangling and not os.path.exists(entry.path))
            ):
                yield entry.path


def _is_above(folder: str, other: str) -> bool:
    return os.path.commonpath([folder, other]) == folder


def _part(part: str, name: str, files: list[str], held_out: float, seed: int) -> list[str]:
    """The share of a class that is held out, or the rest."""
    if len(files) < 2:
        raise UsageError(
            f"the class {name!r} has a single picture, which cannot be both trained on and held"
            " out; add more, or make folders train and val"
        )

    def drawn(file: str) -> bytes:
        return hashlib.sha256(f"{seed}/{name}/{file}".encode(errors="surrogatepass")).digest()

    count = min(len(files) - 1, max(1, round(held_out * len(files))))
    held = set(sorted(files, key=drawn)[:count])
    return [file for file in files if (file in held) == (part == "held out")]
