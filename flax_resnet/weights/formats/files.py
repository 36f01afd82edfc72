"""Read any weight file, recognized by its content rather than its suffix."""

import dataclasses
import os
import stat
from pathlib import Path

from flax_resnet.text import error_reason, truncate
from flax_resnet.weights.checkpoints import find_checkpoint, read_checkpoint, verify_checkpoint
from flax_resnet.weights.formats.keras_files import read_keras
from flax_resnet.weights.formats.limits import check_tensors, open_zip
from flax_resnet.weights.formats.msgpack_files import is_msgpack, read_msgpack
from flax_resnet.weights.formats.npz_files import read_npz
from flax_resnet.weights.formats.old_torch_files import is_old_torch, read_old_torch
from flax_resnet.weights.formats.safetensors_files import read_safetensors
from flax_resnet.weights.formats.torch_files import read_torch
from flax_resnet.weights.naming.parts import split_part
from flax_resnet.weights.tensors import (
    REPOSITORY_FILES,
    WeightFile,
    WeightsError,
    wrap_read_errors,
)

_SUPPORTED = (
    ".safetensors, PyTorch .pth/.pt/.bin, Keras .h5/.weights.h5/.keras, Flax .msgpack, .npz"
)


def read_file(path: str | os.PathLike[str]) -> WeightFile:
    """Read the names, shapes and types of a file's tensors; values are read on demand.

    Args:
      path: a safetensors file, a PyTorch zip archive, a Keras HDF5 file or archive, a Flax
        msgpack file, an ``.npz``, or a directory: an Orbax checkpoint, a workdir (its last step)
        or a downloaded repository. ``FILE#PART`` names one of several networks in a file.

    Raises:
      WeightsError: the file does not exist, is corrupt or has another format.
    """
    path, part = split_part(path)
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise WeightsError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:  # for example, the name is too long
        raise WeightsError(f"{path} cannot be read: {error_reason(error)}") from error
    if stat.S_ISDIR(mode):
        try:
            return _read_directory(path, part)
        except PermissionError as error:
            raise WeightsError(f"no permission to read {error.filename}") from error
    if not stat.S_ISREG(mode):  # a pipe would have to be written first, a device may never end
        raise WeightsError(f"{path} is not a file: copy the weights into one")
    with wrap_read_errors(str(path)):
        file = dataclasses.replace(_read_content(path, part), part=part)
        check_tensors(file, path)
    return file


def _read_directory(path: Path, part: str) -> WeightFile:
    for name in REPOSITORY_FILES:
        if (path / name).is_file():
            return read_file(f"{path / name}#{part}" if part else path / name)
    checkpoint = find_checkpoint(path)
    if checkpoint is None:
        raise WeightsError(
            f"{path} is a directory without a checkpoint: name a weight file ({_SUPPORTED}),"
            " an Orbax checkpoint, or a workdir that has checkpoints/STEP"
        )
    if part not in ("", "ema", "params"):
        raise WeightsError(f"{path} has the parts 'ema' and 'params', but not {truncate(part)!r}")
    verify_checkpoint(checkpoint)
    return read_checkpoint(checkpoint, {"ema": True, "params": False}.get(part))


def _read_content(path: Path, part: str) -> WeightFile:
    with path.open("rb") as file:
        start = file.read(16)
    if not start:
        raise WeightsError(f"{path} is empty; download or save it again")
    if start.startswith(b"\x89HDF"):
        return read_keras(path)
    if start.startswith(b"PK"):
        archive = open_zip(path)
        names = archive.namelist()
        if any(name.endswith("data.pkl") for name in names):
            return read_torch(path, archive, part)
        if "model.weights.h5" in names:
            return read_keras(path, archive)
        if names and all(name.endswith(".npy") for name in names):
            return read_npz(path, archive)
        raise WeightsError(f"{path} is a zip archive, but not from PyTorch, Keras or NumPy")
    if start[8:9] == b"{":
        return read_safetensors(path)
    if is_msgpack(start):
        return read_msgpack(path)
    if is_old_torch(start):
        return read_old_torch(path, part)
    if start[:1] == b"\x80":
        raise WeightsError(
            f"{path} is a pickle of Python objects, which could run code: refused. Save the weights"
            " as .safetensors, or with torch.save(model.state_dict(), OUT)"
        )
    raise WeightsError(
        f"{path} is not a supported weight file: it starts with {start[:8]!r}. Supported are"
        f" {_SUPPORTED}"
    )
