"""Descriptions of the files and folders that a walk over a folder of images skipped."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from flax_resnet.images.formats import UNSUPPORTED_EXTENSIONS, describe_format, detect_format
from train.data.sources import folder_scan
from train.runtime.formatting import join_names

MAX_EXAMPLES = 3
_MAX_OPENED = 1000  # files without an image extension whose content is examined
_HEAD = 2000  # bytes of them
_OTHER_FORMAT, _MISNAMED = "other format", "misnamed"  # kinds of folder_scan.EXTENSION


@dataclass(frozen=True)
class Finding:
    """Files, folders or classes that a user should know of.

    Attributes:
      kind: a short name, such as a reason of ``folder_scan``.
      count: their number.
      examples: some of them.
      text: count, examples, and what to do about them.
      is_warning: whether they can do harm.
    """

    kind: str
    count: int
    examples: tuple[str, ...]
    text: str
    is_warning: bool


class _Description(NamedTuple):
    one: str
    several: str
    advice: str = ""
    is_warning: bool = False


_DESCRIPTIONS = {
    folder_scan.EMPTY_CLASS: _Description(
        "class folder without images, which is not a class of the model",
        "class folders without images, which are not classes of the model",
        advice="add images or remove the folder",
        is_warning=True,
    ),
    _OTHER_FORMAT: _Description(
        "image of an unsupported format",
        "images of unsupported formats",
        advice="convert to JPEG or PNG",
        is_warning=True,
    ),
    _MISNAMED: _Description(
        "image without the extension of one",
        "images without the extension of one",
        advice="rename",
        is_warning=True,
    ),
    folder_scan.OUTSIDE: _Description(
        "image outside of the class folders",
        "images outside of the class folders",
        advice="move into a class folder",
        is_warning=True,
    ),
    folder_scan.IMAGES_BESIDE: _Description(
        "folder with images beside the splits",
        "folders with images beside the splits",
        advice="if the name of a split is that of a class, rename it",
        is_warning=True,
    ),
    folder_scan.NO_MASK: _Description(
        "image without a mask",
        "images without a mask",
        advice="add the masks, or remove the images",
        is_warning=True,
    ),
    folder_scan.NO_IMAGE: _Description(
        "mask without an image",
        "masks without an image",
        advice="add the images, or remove the masks",
        is_warning=True,
    ),
    folder_scan.NO_FILES: _Description(
        "name in a list without image and mask",
        "names in lists without image and mask",
        advice="add the files, or remove the names",
        is_warning=True,
    ),
    folder_scan.UNLISTED: _Description(
        "image that no list of a split names", "images that no list of a split names"
    ),
    folder_scan.BROKEN_LINK: _Description("broken link", "broken links", is_warning=True),
    folder_scan.UNREADABLE: _Description(
        "link into an unreadable folder", "links into unreadable folders", is_warning=True
    ),
    folder_scan.BESIDE: _Description("folder beside the splits", "folders beside the splits"),
    folder_scan.EXTENSION: _Description(
        "file without an image extension", "files without an image extension"
    ),
    folder_scan.HIDDEN: _Description("hidden file or folder", "hidden files and folders"),
    folder_scan.SYSTEM: _Description(
        "file or folder of an operating system or file server",
        "files and folders of operating systems or file servers",
    ),
    folder_scan.REPEATED_LINK: _Description(
        "link to a folder that is read anyway", "links to folders that are read anyway"
    ),
    folder_scan.SPECIAL: _Description("pipe, socket or device", "pipes, sockets and devices"),
}


def describe_skipped(root: str, skipped: folder_scan.Skipped) -> list[Finding]:
    """Return a finding for each reason for which paths below ``root`` were skipped."""
    others = skipped.get(folder_scan.EXTENSION, ())
    paths = skipped_by_kind(root, skipped)
    return [_describe(kind, paths[kind], others) for kind in paths]


def skipped_by_kind(root: str, skipped: folder_scan.Skipped) -> dict[str, Sequence[str]]:
    """Return the skipped paths below ``root`` by the kind of their finding."""
    paths = dict(skipped) | _by_content(root, skipped.get(folder_scan.EXTENSION, ()))
    return {kind: paths[kind] for kind in _DESCRIPTIONS if paths.get(kind)}


def advice_for(kind: str) -> str:
    """Return what to do about skipped paths of a kind; empty if nothing."""
    return _DESCRIPTIONS[kind].advice


def _by_content(root: str, files: Sequence[str]) -> dict[str, list[str]]:
    """Separate images from other files, all without the extension of a supported image."""
    result: dict[str, list[str]] = {_OTHER_FORMAT: [], _MISNAMED: [], folder_scan.EXTENSION: []}
    opened = 0
    for file in files:
        kind = folder_scan.EXTENSION
        if _extension(file) in UNSUPPORTED_EXTENSIONS:
            kind = _OTHER_FORMAT
        elif opened < _MAX_OPENED:
            opened += 1
            head = _read_head(os.path.join(root, file))
            if detect_format(head) is not None:
                kind = _MISNAMED
            elif describe_format(head) in UNSUPPORTED_EXTENSIONS.values():
                kind = _OTHER_FORMAT
        result[kind].append(file)
    return result


def _read_head(path: str) -> bytes:
    """Return the first bytes of a regular file; none if it cannot be read."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # it may have become a pipe
        try:
            return os.read(file, _HEAD)
        finally:
            os.close(file)
    except OSError:
        return b""


def _describe(kind: str, paths: Sequence[str], others: Sequence[str]) -> Finding:
    """Return the finding for some paths; ``others`` are files without an image extension."""
    description = _DESCRIPTIONS[kind]
    names = paths[:MAX_EXAMPLES]
    details = ""
    if kind in (_OTHER_FORMAT, folder_scan.EXTENSION):
        details = _tally(map(_extension, paths))
    elif kind == folder_scan.SYSTEM:
        details = _tally(map(os.path.basename, paths))
    elif kind == folder_scan.EMPTY_CLASS:
        names = [_with_content(path, others) for path in names]
    text = f"skipped {len(paths):,} {description.one if len(paths) == 1 else description.several}"
    text += f" ({details})" * bool(details) + ": "
    text += join_names([*names, *paths[MAX_EXAMPLES:]], MAX_EXAMPLES)
    text += f"; {description.advice}" * bool(description.advice)
    return Finding(kind, len(paths), tuple(paths[:MAX_EXAMPLES]), text, description.is_warning)


def _with_content(folder: str, files: Sequence[str]) -> str:
    inside = [_extension(file) for file in files if file.startswith(os.path.join(folder, ""))]
    return f"{folder} ({_tally(inside)})" if inside else folder


def _tally(names: Iterable[str]) -> str:
    """Return the frequent names with their numbers: ``"40 .heic, 2 .txt"``."""
    counts = Counter(names).most_common()
    return join_names([f"{count:,} {name}" for name, count in counts], 5)


def _extension(path: str) -> str:
    return os.path.splitext(path)[1].lower() or "without extension"
