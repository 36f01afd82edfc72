"""A walk over a folder of images that keeps a list of everything it skips."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence, Set

from flax_resnet.images.formats import EXTENSIONS

FOLDER, IMAGE = "folder", "image"

# Reasons to skip a path.
HIDDEN = "hidden"
SYSTEM = "system"
EXTENSION = "extension"  # a file whose name does not end like that of an image
OUTSIDE = "outside"  # an image that is in no class folder
EMPTY_CLASS = "empty class"
BROKEN_LINK = "broken link"
REPEATED_LINK = "repeated link"  # to a parent folder, or to one that was already read
SPECIAL = "special"  # a pipe, socket or device; opening one could block forever
UNREADABLE = "unreadable"
BESIDE = "beside"  # a folder beside those of the splits
IMAGES_BESIDE = "images beside"  # the same, with images
NO_MASK, NO_IMAGE = "no mask", "no image"  # an image without a mask, and the reverse
UNLISTED = "unlisted"  # an image that no list of a split names
NO_FILES = "no files"  # a name in a list of a split without image and mask

Skipped = Mapping[str, Sequence[str]]  # paths below the root, by reason

# Folders and files of operating systems, file servers and tools. Thumbnails and deleted files in
# them would otherwise be images, and the folders classes. Other such names begin with a dot.
_SYSTEM = re.compile(
    r"@eaDir|@Syno\w+|.*@Syno(EAStream|Resource)|#recycle|#snapshot|@tmp|@sharesnap|@quarantine"
    r"|@Recycle|@Recently-Snapshot|@sharebin|~snapshot"  # Synology, QNAP, NetApp
    r"|__MACOSX|Icon\r|Network Trash Folder|Temporary Items|TheVolumeSettingsFolder"  # macOS
    r"|\$RECYCLE\.BIN|(?-i:RECYCLER|RECYCLED)|System Volume Information|\$Extend|FOUND\.\d{3}"
    r"|(eh)?thumbs(_vista)?\.db(:encryptable)?|desktop\.ini"  # Windows
    r"|lost\+found|LOST\.DIR|__pycache__",  # Linux, Android, Python
    re.IGNORECASE,
)


def has_image_extension(name: str) -> bool:
    """Return whether a file name ends like that of an image, in any case."""
    return name.lower().endswith(EXTENSIONS)


class FolderScan:
    """The images below ``root``, and all paths that were skipped.

    Only folders are opened, never files.

    Attributes:
      root: the folder; all paths are relative to it.
      skipped: skipped paths by reason.
      errors: the errors of folders that cannot be listed.
    """

    def __init__(self, root: str):
        self.root = root
        self.skipped: dict[str, list[str]] = {}
        self.errors: list[OSError] = []

    def skip(self, reason: str, path: str) -> None:
        """Add a path to ``skipped``."""
        self.skipped.setdefault(reason, []).append(path)

    def entries(self, folder: str) -> Iterator[tuple[str, os.DirEntry, str]]:
        """Yield path, entry, and ``FOLDER``, ``IMAGE`` or a reason to skip it, in order of name."""
        try:
            with os.scandir(os.path.join(self.root, folder)) as opened:
                entries = sorted(opened, key=lambda entry: entry.name)
        except OSError as error:
            self.errors.append(error)
            return
        for entry in entries:
            yield os.path.join(folder, entry.name), entry, _kind(entry)

    def images(self, folder: str) -> list[str]:
        """Return the images in a folder, at any depth, sorted."""
        images: list[str] = []
        visited: set[str] = set()
        folders = [(folder, os.path.realpath(os.path.join(self.root, folder)))]
        links: list[tuple[str, str]] = []  # followed last: a folder is preferred to a link to it
        while folders or links:
            folder, real = folders.pop() if folders else links.pop(0)
            if real in visited:
                self.skip(REPEATED_LINK, folder)
                continue
            visited.add(real)
            for path, entry, kind in self.entries(folder):
                if kind == IMAGE:
                    images.append(path)
                elif kind != FOLDER:
                    self.skip(kind, path)
                elif not entry.is_symlink():
                    folders.append((path, os.path.join(real, entry.name)))
                elif leads_up(entry.path, real):  # its images are of other classes
                    self.skip(REPEATED_LINK, path)
                else:
                    links.append((path, os.path.realpath(entry.path)))
        return sorted(images)

    def classes(self, folder: str) -> dict[str, list[str]]:
        """Return the images of each class, all sorted. The subfolders of ``folder`` are classes."""
        classes: dict[str, list[str]] = {}
        real = os.path.realpath(os.path.join(self.root, folder))
        for path, entry, kind in self.entries(folder):
            if kind == IMAGE:
                self.skip(OUTSIDE, path)
            elif kind != FOLDER:
                self.skip(kind, path)
            elif entry.is_symlink() and leads_up(entry.path, real):
                self.skip(REPEATED_LINK, path)
            elif images := self.images(path):
                classes[entry.name] = images
            else:
                self.skip(EMPTY_CLASS, path)
        return classes

    def skip_beside(self, used: Set[str]) -> None:
        """Add everything in the root to ``skipped``, other than what is ``used``."""
        for path, _, kind in self.entries(""):
            if path in used:
                continue
            if kind == FOLDER:
                inside = FolderScan(self.root).entries(path)  # whose errors do not matter
                has_images = any(kind == IMAGE for _, _, kind in inside)
                self.skip(IMAGES_BESIDE if has_images else BESIDE, path)
            else:
                self.skip(OUTSIDE if kind == IMAGE else kind, path)


def leads_up(link: str, folder: str) -> bool:
    """Return whether a link leads to ``folder``, a real path, or to one of its parents."""
    target = os.path.realpath(link)
    return os.path.commonpath([target, folder]) == target


def _kind(entry: os.DirEntry) -> str:
    """Return ``FOLDER``, ``IMAGE`` or a reason to skip the entry. Links are followed."""
    if entry.name.startswith("."):
        return HIDDEN
    named_image = has_image_extension(entry.name)
    try:
        if named_image and entry.is_file():
            return IMAGE
        if _SYSTEM.fullmatch(entry.name):
            return SYSTEM
        if entry.is_dir():
            return FOLDER
        if entry.is_file():
            return EXTENSION
        os.stat(entry.path)
    except PermissionError:  # of the folder that a link leads to
        return UNREADABLE
    except OSError:  # no target, or a circle of links
        return BROKEN_LINK
    return SPECIAL
