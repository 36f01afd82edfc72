"""A folder of images with masks, for segmentation.

The mask of ``images/a/b.jpg`` is ``masks/a/b.png``. Three layouts:

* a pair of folders per split, ``ROOT/{train,val|validation|valid|test}/{images,masks}``, or
  ``ROOT/{images,masks}/{train,…}``;
* ``ROOT/{images,masks}``, and a list of names per split, ``ROOT/{train,val,…}.txt``, as Pascal VOC
  has;
* ``ROOT/{images,masks}``, of which a fraction is held out for evaluation.

The names of the classes are the lines of ``ROOT/classes.txt``.
"""

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, NamedTuple, Self

import numpy as np

from train.data.hold_out import groups_by_pattern, hold_out
from train.data.mask_checks import check_sample, count_classes
from train.data.masks import MaskSource, MaskValues, default_names
from train.data.registries import register_source
from train.data.source import fingerprint, require_no_names, source_argument
from train.data.sources.folder_scan import (
    NO_FILES,
    NO_IMAGE,
    NO_MASK,
    UNLISTED,
    FolderScan,
    has_image_extension,
)
from train.data.sources.image_folder import ImageFiles, check_listed, check_root, read_below
from train.data.sources.labeled_images import CLASS_FILES, read_class_names, read_names
from train.data.splits import ALL, EVAL_SPLITS, HELD_OUT_PART, TRAIN, locate_split, name_located
from train.runtime.config_dict import ConfigDict
from train.runtime.errors import RunError, UsageError
from train.runtime.formatting import join_names, pluralize

IMAGES, MASKS = "images", "masks"
LAYOUT = (
    "put images and masks into ROOT/train/images, ROOT/train/masks, ROOT/val/images and"
    " ROOT/val/masks, or into ROOT/images and ROOT/masks"
)


@dataclass(frozen=True)
class MaskFolder(ImageFiles):
    """The records of images with masks.

    Attributes:
      masks: paths of the masks below ``root``.
    """

    masks: tuple[str, ...]

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return {"image": self.read(self.files[index]), "label": self.read(self.masks[index])}

    def read_mask(self, index: int) -> bytes:
        """Return the content of a mask, without reading its image."""
        return self.read(self.masks[index])

    def select(self, indices: np.ndarray) -> Self:
        """Return some of the records."""
        files, masks = (tuple(paths[i] for i in indices) for paths in (self.files, self.masks))
        return replace(self, files=files, masks=masks)


class Place(NamedTuple):
    """Where a split is, relative to the root.

    Attributes:
      images: folder of its images.
      masks: folder of its masks.
      names: file with their names; "" if all images are of the split.
    """

    images: str = IMAGES
    masks: str = MASKS
    names: str = ""


@register_source("segmentation_folder")
def open_segmentation_folder(dataset: ConfigDict, split: str) -> MaskSource:
    """Open a split of the folder ``config.dataset.data_dir``.

    Raises:
      RunError: there is no such folder, it cannot be listed, or its masks cannot be used.
      UsageError: there is no such split, or it has no images with masks.
    """
    source_argument(dataset)
    require_no_names(dataset)
    root = dataset.data_dir
    check_root(root)
    places = find_places(root, split)
    if not places and not os.path.isdir(os.path.join(root, IMAGES)):
        raise UsageError(f"{root!r} has no folder {IMAGES!r}{_describe_folders(root)}; {LAYOUT}")
    name, part = locate_split(split, places, f"the folder {root!r}", bool(dataset.fold))
    scan = FolderScan(root)
    files, masks = _pairs(scan, places.get(name, Place()), places)
    lists = {place.names for place in places.values()}
    name_files = {f"{stem}.txt" for stem in CLASS_FILES}
    scan.skip_beside({IMAGES, MASKS, TRAIN, *EVAL_SPLITS, split, *lists, *name_files})
    check_listed(scan)
    pattern = dataset.group_pattern
    groups = groups_by_pattern(pattern, files) if pattern else None
    if part:
        folder = os.path.join(places.get(name, Place()).images, "")
        names = [file.removeprefix(folder) for file in files]
        chosen = dataset.val_fraction, dataset.val_seed
        kept = hold_out(part, names, np.ones((len(files), 1), np.uint8), groups, (), *chosen)
        files, masks = [files[i] for i in kept], [masks[i] for i in kept]
        groups = groups and tuple(groups[i] for i in kept)
    values = MaskValues(tuple(dataset.mask_values), tuple(dataset.ignore_values))
    class_names = _class_names(scan, values, places)
    source = MaskSource(
        "segmentation_folder",
        name_located(split, name, part),
        class_names,
        MaskFolder(root, tuple(files), tuple(masks)),
        names=tuple(files),
        skipped=scan.skipped,
        groups=groups,
        is_held_out=part == HELD_OUT_PART,
        mask_values=values,
    )
    codes = source.mask_values.table(len(class_names))
    source = replace(source, fingerprint=fingerprint([*files, *masks], codes, None))
    check_sample(source, dataset)
    return source


def _describe_folders(root: str) -> str:
    """Return the names of the folders that a user may have meant, if there are any."""
    with os.scandir(root) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir())
    return f", only {join_names(list(map(repr, names)), 4)}" * bool(names)


def has_splits(root: str) -> bool:
    """Return whether the folder has its own splits."""
    return bool(find_places(root))


def find_places(root: str, *more: str) -> dict[str, Place]:
    """Return where each split is that the folder has; ``more`` are further names of splits."""
    places = {}
    for name in dict.fromkeys((TRAIN, *EVAL_SPLITS, *more)):
        nested = Place(os.path.join(name, IMAGES), os.path.join(name, MASKS))
        inside = Place(os.path.join(IMAGES, name), os.path.join(MASKS, name))
        listed = Place(names=f"{name}.txt")
        for place in (nested, inside):
            if os.path.isdir(os.path.join(root, place.images)):
                places[name] = place
        if name not in places and name != ALL and os.path.isfile(os.path.join(root, listed.names)):
            places[name] = listed
    return places


def _pairs(
    scan: FolderScan, place: Place, places: Mapping[str, Place]
) -> tuple[list[str], list[str]]:
    """Return the images of a split and their masks; ``scan`` gets those without the other.

    Raises:
      RunError: there are none, or two images or masks of the same name.
    """
    images, masks = (_by_name(scan, folder) for folder in (place.images, place.masks))
    if place.names:
        lists = {p.names: _read_list(scan.root, p.names) for p in places.values() if p.names}
        for name in images.keys() - {name for names in lists.values() for name in names}:
            scan.skip(UNLISTED, images[name])
        own = lists[place.names]
        for name in own:
            if name not in images and name not in masks:
                scan.skip(NO_FILES, f"{name} of {place.names}")
        images = {name: images[name] for name in own if name in images}
        masks = {name: masks[name] for name in own if name in masks}
    paired = [name for name in images if name in masks]
    for name in images.keys() - masks.keys():
        scan.skip(NO_MASK, images[name])
    for name in masks.keys() - images.keys():
        scan.skip(NO_IMAGE, masks[name])
    for reason in (NO_MASK, NO_IMAGE, UNLISTED):
        scan.skipped.get(reason, []).sort()
    if not paired:
        raise UsageError(_describe_none(scan, place))
    return [images[name] for name in paired], [masks[name] for name in paired]


def _class_names(
    scan: FolderScan, values: MaskValues, places: Mapping[str, Place]
) -> tuple[str, ...]:
    """Return the names in ``classes.txt``; without it those of ``values``, or of all masks."""
    names = read_class_names(scan.root)
    if names is not None:
        names = [name.strip() for name in names]
        if wrong := _describe_wrong_name(names):
            raise UsageError(
                f"{scan.root!r}: {wrong}; classes.txt must have the name of class 0 in line 1, of"
                " class 1 in line 2 and so on, each a different one"
            )
        return tuple(names)
    if values.values:
        return default_names(len(values.values))
    folders = dict.fromkeys(place.masks for place in places.values() or [Place()])
    masks = [mask for folder in folders for mask in FolderScan(scan.root).images(folder)]
    return default_names(_count_classes(scan.root, tuple(masks), frozenset(values.ignored)))


def _describe_wrong_name(names: Sequence[str]) -> str:
    """Return what is wrong with the lines of ``classes.txt``, if anything."""
    if not names:
        return "classes.txt is empty"
    for line, name in enumerate(names, 1):
        if not name:
            return f"line {line} of classes.txt is empty"
        first = names.index(name) + 1
        if first < line:
            return f"lines {first} and {line} of classes.txt have the same name, {name!r}"
    return ""


def _count_classes(root: str, masks: tuple[str, ...], ignored: frozenset[int]) -> int:
    """Return the number of classes in the masks, which all splits of a folder have in common."""
    return _counted(root, masks, ignored, _changes(root, masks))


@lru_cache(maxsize=1)
def _counted(
    root: str, masks: tuple[str, ...], ignored: frozenset[int], changes: tuple[tuple, ...]
) -> int:
    """Return the number of classes; masks that did not change are not read again."""
    return count_classes(masks, partial(read_below, root), {*ignored})


def _changes(root: str, masks: Sequence[str]) -> tuple[tuple, ...]:
    """Return times and sizes of files; of those that cannot be read nothing."""
    found = []
    for mask in masks:
        with contextlib.suppress(OSError):
            state = os.stat(os.path.join(root, mask))
            found.append((mask, state.st_mtime_ns, state.st_size))
    return tuple(found)


def _by_name(scan: FolderScan, folder: str) -> dict[str, str]:
    """Return the images in a folder by their path below it, without the extension."""
    if not os.path.isdir(os.path.join(scan.root, folder)):
        raise UsageError(f"{scan.root!r} has no folder {folder!r}; {LAYOUT}")
    by_name: dict[str, str] = {}
    repeated = []
    for path in scan.images(folder):
        name = os.path.splitext(os.path.relpath(path, folder))[0]
        if name in by_name:
            repeated.append(f"{by_name[name]} and {path}")
        by_name[name] = path
    if repeated:
        raise RunError(
            f"{scan.root!r} has {pluralize(len(repeated), 'pair')} of files that differ in their"
            " extension only, so that it is not known which of them belong together:"
            f" {join_names(repeated, 3)}; rename or remove one of each"
        )
    return by_name


def _read_list(root: str, file: str) -> list[str]:
    """Return the names in a list of a split; extensions of images are optional."""
    names = [line.strip() for line in read_names(os.path.join(root, file))]
    names = [name for name in names if name]
    repeated = len(names) - len({*names})
    if repeated:
        raise RunError(f"{os.path.join(root, file)!r} has {repeated:,} repeated names; remove them")
    return [os.path.splitext(name)[0] if has_image_extension(name) else name for name in names]


def _describe_none(scan: FolderScan, place: Place) -> str:
    parts = [f"{scan.root!r} has no image with a mask"]
    for folder in (place.images, place.masks):
        found = _by_name(scan, folder).values()
        parts.append(f"{folder!r} has {join_names(list(found), 2) or 'no images'}")
    listed = f" that {place.names} names" * bool(place.names)
    return f"{'; '.join(parts)}. The mask of images/a.jpg is masks/a.png{listed}"
