"""The archives that people have to fetch themselves: are they there, and whole?"""

from __future__ import annotations

import glob
import os
import tarfile

from train.prepare.staging import size
from train.runtime.errors import RunError

# Names and bytes as image-net.org gives them out; TFDS looks for these names.
_IMAGENET = {
    "ILSVRC2012_img_train.tar": 147_897_477_120,
    "ILSVRC2012_img_val.tar": 6_744_924_160,
}
ARCHIVES = {"imagenet2012": _IMAGENET, "imagenet2012_subset": _IMAGENET}


def check_archives(name: str, folder: str, any_size: bool) -> int:
    """Checks that ``folder`` has what TFDS reads ``name`` from, and gives its bytes.

    Args:
      name: the data set.
      folder: where the archives should be.
      any_size: accept archives of another size than the published one.

    Raises RunError that tells what is missing and what was probably meant.
    """
    if not os.path.isdir(folder):
        raise RunError(
            f"{name} cannot be downloaded by a program and there is no folder {folder!r};"
            f" put {_wanted(name)} into a folder and name it with --manual_dir=FOLDER"
        )
    return sum(_check(folder, *entry, any_size) for entry in ARCHIVES.get(name, {}).items()) or (
        _anything_in(name, folder)
    )


def _wanted(name: str) -> str:
    return " and ".join(ARCHIVES.get(name, ["what TFDS's page of the data set tells"]))


def _anything_in(name: str, folder: str) -> int:
    if not os.listdir(folder):
        raise RunError(f"{folder!r} is empty; put {_wanted(name)} there for {name}")
    return 0


def _check(folder: str, archive: str, expected: int, any_size: bool) -> int:
    path = os.path.join(folder, archive)
    if not os.path.isfile(path):
        raise RunError(f"{path} is not there{_hint(folder, archive)}")
    actual = os.path.getsize(path)
    if actual != expected and not any_size:
        reason = "its download is not complete" if actual < expected else "it is another file"
        raise RunError(
            f"{path} has {actual:,} bytes and should have {expected:,} ({size(expected)}):"
            f" {reason}; fetch it again, or pass --any_size if it is meant to be another"
        )
    if not tarfile.is_tarfile(path):
        raise RunError(f"{path} is not a tar archive; fetch it again")
    return actual


def _hint(folder: str, archive: str) -> str:
    """What was probably meant, in words that follow "it is not there"."""
    near = [os.path.dirname(folder), *glob.glob(os.path.join(glob.escape(folder), "*", ""))]
    for other in near:
        if os.path.isfile(os.path.join(other, archive)):
            return f", but in {os.path.abspath(other)}: name that with --manual_dir"
    parts = glob.glob(os.path.join(glob.escape(folder), glob.escape(archive) + "?*"))
    if parts:
        return f", but {os.path.basename(parts[0])}: finish its download or rename it"
    inner = ("n0*", os.path.join("*", "n0*"), "ILSVRC2012_val_*")
    if any(glob.glob(os.path.join(glob.escape(folder), pattern)) for pattern in inner):
        return (
            " but extracted files are: TFDS reads the archive as it was downloaded, so keep the"
            " .tar, or train from folders of images with --config.dataset.name=folder"
        )
    return "; it comes from https://image-net.org/download-images, which asks for an account"
