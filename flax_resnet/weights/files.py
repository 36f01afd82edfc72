"""Any weight file in, by its content and not its suffix; safetensors out.

The safetensors format is a length, a JSON table and the raw values
(https://huggingface.co/docs/safetensors, "Format"); it is read and written here, so that
bfloat16 comes through NumPy and a damaged table is told in words.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from flax_resnet.weights.checkpoints import check_tree, find_checkpoint, read_checkpoint
from flax_resnet.weights.keras_files import read_keras
from flax_resnet.weights.pickles import read_torch
from flax_resnet.weights.tensors import (
    BFLOAT16,
    REPOSITORY_FILES,
    Tensor,
    WeightFile,
    WeightsError,
    is_sane_shape,
    shortened,
    wrap_read_errors,
)

_SAFETENSORS_DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": BFLOAT16,
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U64": np.dtype(np.uint64),
    "U32": np.dtype(np.uint32),
    "U16": np.dtype(np.uint16),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
_MAX_HEADER = 100_000_000  # the format's own limit

_KNOWN = ".safetensors, .pth/.pt/.bin of PyTorch, .h5/.weights.h5/.keras of Keras, .npz"


def read_file(path: str | os.PathLike[str]) -> WeightFile:
    """Reads the table of tensors of a weight file, or of a checkpoint directory.

    Takes safetensors, PyTorch's zip pickle, Keras's HDF5 and archives, ``.npz``, and a
    directory: an Orbax checkpoint, a run's workdir (the last step), or a downloaded
    repository.

    Raises WeightsError, which names the file and what to do, for anything else.
    """
    path = Path(path)
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise WeightsError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:  # such as a name that is too long
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
            f"{path} is a directory without a checkpoint: name a weight file ({_KNOWN}),"
            " an Orbax checkpoint, or a workdir that holds checkpoints/STEP"
        )
    check_tree(checkpoint)
    return read_checkpoint(checkpoint)


def _read_content(path: Path) -> WeightFile:
    with path.open("rb") as file:
        start = file.read(16)
    if not start:
        raise WeightsError(f"{path} is empty; fetch or save it again")
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
        raise WeightsError(f"{path} is a zip archive, but not of PyTorch, Keras or NumPy")
    if start[8:9] == b"{":
        return _read_safetensors(path)
    if start[:1] == b"\x80":
        raise WeightsError(
            f"{path} is a bare pickle, as PyTorch wrote before 1.6; only its zip format can be"
            " read without running code. Where PyTorch is: torch.save(torch.load(FILE,"
            " weights_only=True), OUT)"
        )
    raise WeightsError(
        f"{path} is no weight file that is known here: it starts with {start[:8]!r}. Known are"
        f" {_KNOWN}"
    )


def _read_safetensors(path: Path) -> WeightFile:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(size - 8, _MAX_HEADER):
            raise WeightsError(
                f"{path} is cut short or no safetensors file: its table would take {length:,}"
                f" bytes, the file has {size:,}"
            )
        text = file.read(length)
    table = json.loads(text)
    metadata = {str(key): str(value) for key, value in table.pop("__metadata__", {}).items()}
    entries = {
        name: (entry["dtype"], tuple(entry["shape"]), *entry["data_offsets"])
        for name, entry in table.items()
    }
    if not all(is_sane_shape(shape, *offsets) for _, shape, *offsets in entries.values()):
        raise WeightsError(
            f"{path} is damaged: its table has more than 32 axes, or sizes outside 0 … 2**48"
        )
    values = np.memmap(path, np.uint8, "r") if size > 8 + length else np.empty(0, np.uint8)
    values = values[8 + length :]
    tensors = {}
    for name, (kind, shape, start, end, *_) in entries.items():
        dtype = _SAFETENSORS_DTYPES.get(kind)
        if dtype is None:
            raise WeightsError(
                f"{path}: {shortened(name)} is of type {shortened(str(kind))}, which is not known"
                " here"
            )
        if end > values.size:
            raise WeightsError(
                f"{path} is cut short: {shortened(name)} ends at byte {8 + length + end:,}, the"
                f" file at {size:,}; fetch or save it again"
            )
        if end - start != math.prod(shape) * dtype.itemsize:
            raise WeightsError(
                f"{path} is damaged: {shortened(name)} of shape {shape} and type {kind} has"
                f" {end - start:,} bytes"
            )
        tensors[name] = Tensor(
            shape,
            dtype,
            lambda raw=values[start:end], dtype=dtype, shape=shape: raw.view(dtype).reshape(shape),
        )
    return WeightFile("safetensors", tensors, metadata)


def _read_npz(path: Path) -> WeightFile:
    archive = zipfile.ZipFile(path)
    tensors = {}
    for entry in archive.namelist():
        name = entry.removesuffix(".npy")
        with archive.open(entry) as file:
            version = np.lib.format.read_magic(file)
            header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, _, dtype = header(file)
        if dtype.hasobject:
            raise WeightsError(
                f"{path}: {name} holds Python objects, which only running code could read:"
                " refused. Save plain arrays with numpy.savez"
            )
        # NumPy has no name for bfloat16 and writes it as two nameless bytes.
        real = BFLOAT16 if dtype == np.dtype("V2") else dtype

        def read(entry: str = entry, real: np.dtype = real) -> np.ndarray:
            with archive.open(entry) as file:
                array = np.lib.format.read_array(file, allow_pickle=False)
            return array.view(real) if array.dtype.kind == "V" else array

        tensors[name] = Tensor(shape, real, read)
    return WeightFile("NumPy npz", tensors)


def write_safetensors(
    path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Writes arrays of float32 or int64 under their names, all or nothing.

    The file is written beside ``path`` and then renamed to it: whoever reads sees the old
    file or the new one, also when this process is killed on the way.

    Raises WeightsError where the directory does not exist or cannot be written to.
    """
    path = Path(path)
    kinds = {dtype: kind for kind, dtype in _SAFETENSORS_DTYPES.items()}
    table: dict[str, Any] = {"__metadata__": dict(metadata)}
    offset = 0
    for name, array in arrays.items():
        table[name] = {
            "dtype": kinds[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    header = json.dumps(table, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # so that the values are aligned
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with beside.open("xb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            for array in arrays.values():
                file.write(np.ascontiguousarray(array).data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise WeightsError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):  # where it could not be made, as its error tells
            beside.unlink()
