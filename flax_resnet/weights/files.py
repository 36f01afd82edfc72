"""Read any weight file, recognized by its content rather than its suffix."""

import os
import zipfile
from pathlib import Path

import numpy as np

from flax_resnet.weights.checkpoints import find_checkpoint, read_checkpoint, verify_checkpoint
from flax_resnet.weights.keras_files import read_keras
from flax_resnet.weights.pickles import read_torch
from flax_resnet.weights.safetensors_files import read_safetensors
from flax_resnet.weights.tensors import (
    BFLOAT16,
    REPOSITORY_FILES,
    Tensor,
    WeightFile,
    WeightsError,
    wrap_read_errors,
)

_SUPPORTED = ".safetensors, PyTorch .pth/.pt/.bin, Keras .h5/.weights.h5/.keras, .npz"


def read_file(path: str | os.PathLike[str]) -> WeightFile:
    """Read the names, shapes and types of a file's tensors; values are read on demand.

    Args:
      path: a safetensors file, a PyTorch zip archive, a Keras HDF5 file or archive, an ``.npz``,
        or a directory: an Orbax checkpoint, a workdir (its last step) or a downloaded repository.

    Raises:
      WeightsError: the file does not exist, is corrupt or has another format.
    """
    path = Path(path)
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise WeightsError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:  # for example, the name is too long
        raise WeightsError(f"{path} cannot be read: {error}") from error
    if path.is_dir():
        try:
            return _read_directory(path)
        except PermissionError as error:
            raise WeightsError(f"no permission to read {error.filename}") from error
    with wrap_read_errors(str(path)):
        return _read_content(path)


def _read_directory(path: Path) -> WeightFile:
    for name in REPOSITORY_FILES:
        if (path / name).is_file():
            return read_file(path / name)
    checkpoint = find_checkpoint(path)
    if checkpoint is None:
        raise WeightsError(
            f"{path} is a directory without a checkpoint: name a weight file ({_SUPPORTED}),"
            " an Orbax checkpoint, or a workdir that has checkpoints/STEP"
        )
    verify_checkpoint(checkpoint)
    return read_checkpoint(checkpoint)


def _read_content(path: Path) -> WeightFile:
    with path.open("rb") as file:
        start = file.read(16)
    if not start:
        raise WeightsError(f"{path} is empty; download or save it again")
    if start.startswith(b"\x89HDF"):
        return read_keras(path)
    if start.startswith(b"PK"):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any(name.endswith("data.pkl") for name in names):
            return read_torch(path)
        if "model.weights.h5" in names:
            return read_keras(path)
        if names and all(name.endswith(".npy") for name in names):
            return _read_npz(path)
        raise WeightsError(f"{path} is a zip archive, but not from PyTorch, Keras or NumPy")
    if start[8:9] == b"{":
        return read_safetensors(path)
    if start[:1] == b"\x80":
        raise WeightsError(
            f"{path} is a bare pickle, PyTorch's format before 1.6; only its zip format can be read"
            " without running code. Convert it with PyTorch: torch.save(torch.load(FILE,"
            " weights_only=True), OUT)"
        )
    raise WeightsError(
        f"{path} is not a supported weight file: it starts with {start[:8]!r}. Supported are"
        f" {_SUPPORTED}"
    )


def _read_npz(path: Path) -> WeightFile:
    archive = zipfile.ZipFile(path)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    tensors = {}
    for entry in archive.namelist():
        name = entry.removesuffix(".npy")
        with archive.open(entry) as file:
            shape, _, stored = read_header[np.lib.format.read_magic(file)](file)
        if stored.hasobject:
            raise WeightsError(
                f"{path}: {name} contains Python objects, which cannot be read without running"
                " code: refused. Save plain arrays with numpy.savez"
            )
        # NumPy has no name for bfloat16 and writes it as a 2-byte void type.
        dtype = BFLOAT16 if stored == np.dtype("V2") else stored

        def read(entry: str = entry, dtype: np.dtype = dtype) -> np.ndarray:
            with archive.open(entry) as file:
                return np.lib.format.read_array(file, allow_pickle=False).view(dtype)

        tensors[name] = Tensor(shape, dtype, read)
    return WeightFile("NumPy npz", tensors)
