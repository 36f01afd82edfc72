"""Checks of archives that must be downloaded by hand: presence, size and type."""

import glob
import os
import tarfile

from train.runtime.errors import RunError
from train.runtime.formatting import format_bytes

# File names and sizes in bytes as published on image-net.org; TFDS expects these names.
_IMAGENET = {
    "ILSVRC2012_img_train.tar": 147_897_477_120,
    "ILSVRC2012_img_val.tar": 6_744_924_160,
}
ARCHIVES = {"imagenet2012": _IMAGENET, "imagenet2012_subset": _IMAGENET}


def check_archives(name: str, folder: str, any_size: bool) -> int:
    """Check that ``folder`` holds the archives of data set ``name`` and return their bytes.

    Args:
      name: name of the data set.
      folder: directory that should hold the archives.
      any_size: accept archives whose size differs from the published one.

    Returns:
      Total size of the archives; 0 if the data set's archives are not known.

    Raises:
      RunError: an archive is missing or corrupt. The message names the likely cause.
    """
    archives = ARCHIVES.get(name, {})
    names = " and ".join(archives or ["the files that its TFDS page lists"])
    if not os.path.isdir(folder):
        raise RunError(
            f"{name} must be downloaded by hand and there is no folder {folder!r}; put {names}"
            " into a folder and pass --manual_dir=FOLDER"
        )
    if not archives and not os.listdir(folder):
        raise RunError(f"{folder!r} is empty; put {names} there for {name}")
    return sum(_check_archive(folder, *entry, any_size) for entry in archives.items())


def _check_archive(folder: str, archive: str, expected: int, any_size: bool) -> int:
    path = os.path.join(folder, archive)
    if not os.path.isfile(path):
        raise RunError(f"{path} is missing{_hint(folder, archive)}")
    actual = os.path.getsize(path)
    if actual != expected and not any_size:
        reason = "the download is incomplete" if actual < expected else "it is another file"
        raise RunError(
            f"{path} has {actual:,} bytes instead of {expected:,} ({format_bytes(expected)}):"
            f" {reason}; download it again, or pass --any_size if the difference is intended"
        )
    if not tarfile.is_tarfile(path):
        raise RunError(f"{path} is not a tar archive; download it again")
    return actual


def _hint(folder: str, archive: str) -> str:
    """Return the likely cause of a missing archive, as the end of the sentence."""
    nearby = [os.path.dirname(folder), *glob.glob(os.path.join(glob.escape(folder), "*", ""))]
    for other in nearby:
        if os.path.isfile(os.path.join(other, archive)):
            return f", but exists in {os.path.abspath(other)}: pass that as --manual_dir"
    partial = glob.glob(os.path.join(glob.escape(folder), glob.escape(archive) + "?*"))
    if partial:
        name = os.path.basename(partial[0])
        return f", but {name} exists: complete the download or rename it"
    extracted = ("n0*", os.path.join("*", "n0*"), "ILSVRC2012_val_*")
    if any(glob.glob(os.path.join(glob.escape(folder), pattern)) for pattern in extracted):
        return (
            ", but extracted files exist: TFDS reads the original archive, so keep the .tar, or"
            " train from folders of images with --config.dataset.name=folder"
        )
    return "; download it from https://image-net.org/download-images, which requires an account"
