"""A folder of images, one subfolder per class, as in torchvision's ImageFolder.

Two layouts: ``ROOT/{train,val|validation|valid|test}/CLASS/**``, and ``ROOT/CLASS/**``, of which
a fraction is held out for evaluation. Images are recognized by their file extension, in any
case. Symbolic links are followed. Everything else is skipped, and listed in the source's
``skipped``; ``folder_scan`` has the rules.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from train.data.hold_out import groups_by_pattern, hold_out
from train.data.registries import register_source
from train.data.skipped import describe_skipped
from train.data.source import DataSource, require_no_names, source_argument
from train.data.sources.folder_scan import BROKEN_LINK, UNREADABLE, FolderScan, has_image_extension
from train.data.splits import EVAL_SPLITS, HELD_OUT_PART, TRAIN, locate_split, name_located
from train.runtime.config_dict import ConfigDict
from train.runtime.errors import RunError, UsageError
from train.runtime.formatting import join_names

LAYOUT = "put the images into ROOT/train/CLASS/ and ROOT/val/CLASS/, or into ROOT/CLASS/"
# Names of folders that are splits, not classes, if there are no folders of the names above.
SPLIT_LIKE = {TRAIN, *EVAL_SPLITS, "training", "testing", "eval", "evaluation", "dev"}


@dataclass(frozen=True)
class ImageFiles(Sequence):
    """Records of image files, which are read on access.

    Attributes:
      root: the folder.
      files: paths below ``root``.
    """

    root: str
    files: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.files)

    def read(self, name: str) -> bytes:
        """Return the content of the file ``name`` below the root."""
        return read_below(self.root, name)


@dataclass(frozen=True)
class ImageFolder(ImageFiles):
    """The records of images of one class each.

    Attributes:
      labels: class indices.
    """

    labels: tuple[int, ...]

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return {"image": self.read(self.files[index]), "label": self.labels[index]}

    def select(self, indices: np.ndarray) -> Self:
        """Return some of the records."""
        files = tuple(self.files[i] for i in indices)
        return replace(self, files=files, labels=tuple(self.labels[i] for i in indices))

    def all_labels(self) -> tuple[int, ...]:
        """Return the labels of all records, in order."""
        return self.labels


def read_below(root: str, name: str) -> bytes:
    """Return the content of the file ``name`` below ``root``."""
    with open(os.path.join(root, name), "rb") as file:
        return file.read()


@register_source("folder")
def open_image_folder(dataset: ConfigDict, split: str) -> DataSource:
    """Open a split of the folder ``config.dataset.data_dir``; see :func:`open_folder`."""
    source_argument(dataset)
    require_no_names(dataset)
    selection = dataset.val_fraction, dataset.val_seed, dataset.group_pattern, bool(dataset.fold)
    return open_folder(dataset.data_dir, split, *selection)


def open_folder(
    root: str,
    split: str,
    val_fraction: float,
    val_seed: int,
    group_pattern: str = "",
    whole: bool = False,
) -> DataSource:
    """Open the images of ``split`` below ``root``; class names are sorted.

    Args:
      root: the folder.
      split: name of a subfolder, such as ``"train"`` or ``"val"``. A missing evaluation split is
        replaced by another of ``EVAL_SPLITS``, else by a held-out part of the training images.
        ``"all"`` is every image of a folder without splits.
      val_fraction: fraction of each class that is held out from training in that case, at least
        one image.
      val_seed: seed of that selection. Most images stay on their side when others are added.
      group_pattern: regular expression whose group is the name of an image's group; all images
        of a group are held out, or none.
      whole: whether no part is held out of the training images.

    Raises:
      RunError: there is no such folder, or it cannot be listed.
      UsageError: there is no such split, or it has fewer than two classes.
    """
    check_root(root)
    subfolder, part = _locate_split(root, split, whole)
    scan = FolderScan(root)
    classes = scan.classes(subfolder)
    if subfolder:
        scan.skip_beside({TRAIN, *EVAL_SPLITS, split})
    check_listed(scan)
    _check_classes(scan, subfolder, classes)
    files = [file for images in classes.values() for file in images]
    labels = np.repeat(np.arange(len(classes)), [len(images) for images in classes.values()])
    groups = groups_by_pattern(group_pattern, files) if group_pattern else None
    if part:
        names = [file.removeprefix(os.path.join(subfolder, "")) for file in files]
        kept = hold_out(part, names, labels, groups, tuple(classes), val_fraction, val_seed)
        files, labels = [files[i] for i in kept], labels[kept]
        groups = groups and tuple(groups[i] for i in kept)
    return DataSource(
        "folder",
        name_located(split, subfolder, part),
        tuple(classes),
        ImageFolder(root, tuple(files), tuple(labels.tolist())),
        names=tuple(files),
        skipped=scan.skipped,
        groups=groups,
        is_held_out=part == HELD_OUT_PART,
    )


def check_root(root: str) -> None:
    """Raise UsageError or RunError unless ``root`` is a local folder."""
    if not root:
        raise UsageError("set --config.dataset.data_dir=FOLDER to the folder with the images")
    if "://" in root:
        raise UsageError(f"an image folder must be on a local disk, not {root!r}")
    if not os.path.isdir(root):
        raise RunError(
            f"{root!r} {'is a file' if os.path.exists(root) else 'does not exist'}; set"
            " --config.dataset.data_dir=FOLDER to the folder with the images"
        )


def has_splits(root: str) -> bool:
    """Return whether the folder has subfolders for splits instead of classes."""
    return any(os.path.isdir(os.path.join(root, name)) for name in (TRAIN, *EVAL_SPLITS))


def list_images(folder: str) -> tuple[list[str], list[str]]:
    """List the images in a folder, at any depth.

    Returns:
      The paths of images, sorted, with links to images that cannot be read, and descriptions of
      everything else in the folder.

    Raises:
      RunError: a folder cannot be listed.
    """
    scan = FolderScan(folder)
    images = scan.images("")
    check_listed(scan)
    for reason in (BROKEN_LINK, UNREADABLE):
        links = scan.skipped.get(reason, [])
        images += filter(has_image_extension, links)
        scan.skipped[reason] = [link for link in links if not has_image_extension(link)]
    skipped = [finding.text for finding in describe_skipped(folder, scan.skipped)]
    return [os.path.join(folder, image) for image in sorted(images)], skipped


def _locate_split(root: str, split: str, whole: bool) -> tuple[str, str]:
    """Return the subfolder to read, and which part of each class; see ``splits.locate_split``."""
    names = (TRAIN, *EVAL_SPLITS, split)
    existing = {name for name in names if os.path.isdir(os.path.join(root, name))}
    return locate_split(split, existing, f"the folder {root!r}", whole)


def check_listed(scan: FolderScan) -> None:
    """Raise RunError if there are folders whose content is unknown."""
    if scan.errors:
        folders = join_names([repr(error.filename) for error in scan.errors], 4)
        raise RunError(
            f"cannot list {folders}: {scan.errors[0].strerror}; make them readable, or move them"
            " out of the folder with the images"
        )


def _check_classes(scan: FolderScan, subfolder: str, classes: Mapping[str, Sequence[str]]) -> None:
    """Raise UsageError unless there are at least two classes, with names that can be written."""
    folder, names = os.path.join(scan.root, subfolder), list(classes)
    if len(names) < 2:
        content = f"one class, {names[0]!r}" if names else "no folder with images"
        parts = [f"{folder!r} has {content}"]
        parts += [finding.text for finding in describe_skipped(scan.root, scan.skipped)]
        nested = os.path.join(folder, names[0]) if names else ""
        if nested and len(FolderScan(nested).classes("")) > 1:
            parts.append(f"if the classes are the folders in it, set data_dir to {nested!r}")
        raise UsageError("; ".join([*parts, LAYOUT]))
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise UsageError(
                f"the name of the class {name!r} in {folder!r} is not UTF-8; rename the folder"
            ) from None
    if all(name.casefold() in SPLIT_LIKE for name in names):
        raise UsageError(
            f"the folders {join_names(names)} in {folder!r} look like splits, not classes; rename"
            f" them to {TRAIN!r} and {EVAL_SPLITS[0]!r}"
        )
