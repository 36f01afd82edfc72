"""A folder of images, one subfolder per class, as in torchvision's ImageFolder.

Two layouts: ``ROOT/{train,val|validation|valid|test}/CLASS/**``, and ``ROOT/CLASS/**``, of which
a fraction is held out for evaluation. Images are recognized by their file extension, in any
case; names that begin with a dot are skipped. Symbolic links are followed.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from train.data.source import DataSource
from train.runtime.errors import RunError, UsageError

EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm"),
)
TRAIN = "train"
EVAL_SPLITS = ("val", "validation", "valid", "test")  # in order of preference
ALL = "all"  # every image of a folder without splits
LAYOUT = "put the images into ROOT/train/CLASS/ and ROOT/val/CLASS/, or into ROOT/CLASS/"


@dataclass(frozen=True)
class ImageFolder(Sequence):
    """The records of image files, which are read on access.

    Attributes:
      root: the folder.
      files: paths below ``root``.
      labels: class indices.
    """

    root: str
    files: tuple[str, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        name = self.files[index]
        with open(os.path.join(self.root, name), "rb") as file:
            return {"image": file.read(), "label": self.labels[index]}


def open_folder(root: str, split: str, val_fraction: float, val_seed: int) -> DataSource:
    """Open the images of ``split`` below ``root``; class names are sorted.

    Args:
      root: the folder.
      split: name of a subfolder, such as ``"train"`` or ``"val"``. A missing evaluation split is
        replaced by another of ``EVAL_SPLITS``, else by a held-out part of the training images.
        ``"all"`` is every image of a folder without splits.
      val_fraction: fraction of each class that is held out from training in that case, at least
        one image.
      val_seed: seed of that selection. Most images stay on their side when others are added.

    Raises:
      RunError: there is no such folder, or it cannot be listed.
      UsageError: there is no such split, or it has fewer than two classes.
    """
    if "://" in root:
        raise UsageError(f"an image folder must be on a local disk, not {root!r}")
    if not os.path.isdir(root):
        raise RunError(
            f"{root!r} {'is a file' if os.path.exists(root) else 'does not exist'}; set"
            " --config.dataset.data_dir=FOLDER to the folder with the images"
        )
    try:
        subfolder, part = _locate_split(root, split)
        classes = _list_classes(os.path.join(root, subfolder))
    except OSError as error:
        raise RunError(f"cannot list {error.filename!r}: {error.strerror}") from error
    if len(classes) < 2:
        content = f"one class, {next(iter(classes))!r}" if classes else "no folder with images"
        raise UsageError(f"{os.path.join(root, subfolder)!r} has {content}; {LAYOUT}")
    labeled = []
    for label, (name, files) in enumerate(classes.items()):
        if part:
            files = _select_part(part, name, files, val_fraction, val_seed)
        labeled += [(os.path.join(subfolder, name, file), label) for file in files]
    files, labels = (tuple(column) for column in zip(*labeled, strict=True))
    return DataSource(
        "folder", split, tuple(classes), ImageFolder(root, files, labels), names=files
    )


def has_splits(root: str) -> bool:
    """Return whether the folder has subfolders for splits instead of classes."""
    return any(os.path.isdir(os.path.join(root, name)) for name in (TRAIN, *EVAL_SPLITS))


def list_images(folder: str, dangling: bool = False) -> Iterator[str]:
    """Yield the paths of all images in a folder, at any depth, in no order.

    Args:
      folder: the folder.
      dangling: whether to include symbolic links without a target.

    Raises:
      OSError: a folder cannot be listed.
    """
    return _walk(folder, dangling, set())


_TRAINING_PART, _HELD_OUT_PART = "training", "held out"


def _locate_split(root: str, split: str) -> tuple[str, str]:
    """Return the subfolder to read, and which part of each class: ``""`` for all."""
    names = (TRAIN, *EVAL_SPLITS, split)
    existing = {name for name in names if os.path.isdir(os.path.join(root, name))}
    eval_splits = [name for name in EVAL_SPLITS if name in existing]
    if split in existing:
        return split, "" if split != TRAIN or eval_splits else _TRAINING_PART
    if split == ALL and not existing:
        return "", ""
    if split == TRAIN and not eval_splits:
        return "", _TRAINING_PART
    if split in EVAL_SPLITS:
        if eval_splits:
            return eval_splits[0], ""
        return (TRAIN if TRAIN in existing else ""), _HELD_OUT_PART
    if "[" in split or "+" in split:
        raise UsageError(
            f"the split {split!r} uses TFDS's split syntax, but the images of a folder are sorted"
            f" by class; name a whole split, such as {EVAL_SPLITS[0]!r}"
        )
    named = ", ".join(sorted(existing)) or "none of train, " + ", ".join(EVAL_SPLITS)
    raise UsageError(f"{root!r} has no subfolder {split!r} for that split; it has {named}")


def _list_classes(folder: str) -> dict[str, list[str]]:
    """Return the images of each class, all sorted, as paths below the folder of the class."""
    classes = {}
    with os.scandir(folder) as entries:
        names = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    for name in names:
        top = os.path.join(folder, name)
        files = sorted(os.path.relpath(file, top) for file in list_images(top))
        if files:
            try:
                name.encode()
            except UnicodeEncodeError:
                raise UsageError(
                    f"the name of the class {name!r} in {folder!r} is not UTF-8; rename the folder"
                ) from None
            classes[name] = files
    return classes


def _walk(folder: str, dangling: bool, visited: set[str]) -> Iterator[str]:
    """Yield all images at any depth; a folder with several links to it is visited once."""
    real = os.path.realpath(folder)
    if real in visited:
        return
    visited.add(real)
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            # A link to a parent folder would add the images of other classes.
            if entry.is_dir() and not _is_parent(os.path.realpath(entry.path), real):
                yield from _walk(entry.path, dangling, visited)
            elif entry.name.lower().endswith(EXTENSIONS) and (
                entry.is_file() or (dangling and not os.path.exists(entry.path))
            ):
                yield entry.path


def _is_parent(folder: str, other: str) -> bool:
    return os.path.commonpath([folder, other]) == folder


def _select_part(
    part: str, name: str, files: list[str], val_fraction: float, val_seed: int
) -> list[str]:
    """Return the files of a class that are held out, or the others."""
    if len(files) < 2:
        raise UsageError(
            f"the class {name!r} has a single image, which cannot be used for both training and"
            " evaluation; add more, or make folders train and val"
        )

    def rank(file: str) -> bytes:
        return hashlib.sha256(f"{val_seed}/{name}/{file}".encode(errors="surrogatepass")).digest()

    count = min(len(files) - 1, max(1, round(val_fraction * len(files))))
    held_out = set(sorted(files, key=rank)[:count])
    return [file for file in files if (file in held_out) == (part == _HELD_OUT_PART)]
