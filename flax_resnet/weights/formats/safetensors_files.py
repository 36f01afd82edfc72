"""Read and write ``.safetensors`` files."""

import functools
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from flax_resnet.files import write_atomically
from flax_resnet.text import truncate
from flax_resnet.weights.formats.limits import check_table
from flax_resnet.weights.tensors import Tensor, WeightFile, WeightsError

# The types of safetensors that NumPy and ml_dtypes have.
_SAFETENSORS_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}


def read_safetensors(path: Path) -> WeightFile:
    """Read the header of a safetensors file; values are read on demand.

    Raises:
      WeightsError: the file has a shape or type that is not supported.
      Exception: the file is corrupt; whatever safetensors raises.
    """
    size = path.stat().st_size
    with path.open("rb") as raw:
        check_table(int.from_bytes(raw.read(8), "little"), size, "header")
    file = safe_open(path, framework="numpy")
    tensors = {}
    for name in file.keys():
        view = file.get_slice(name)
        shape, code = tuple(view.get_shape()), view.get_dtype()
        if code not in _SAFETENSORS_DTYPES:
            raise WeightsError(
                f"{path}: {truncate(name)} has type {code}, which is not supported; save it as"
                " float32"
            )
        dtype = np.dtype(_SAFETENSORS_DTYPES[code])
        tensors[name] = Tensor(shape, dtype, functools.partial(file.get_tensor, name))
    return WeightFile("safetensors", tensors, file.metadata() or {})


def write_safetensors(
    path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Write C-contiguous arrays by name, atomically.

    Raises:
      WeightsError: the file cannot be written.
    """
    try:
        # Not save_file, whose files only their owner can read.
        write_atomically(os.fspath(path), save(dict(arrays), dict(metadata)))
    except OSError as error:
        raise WeightsError(f"cannot write {path}: {error.strerror or error}") from error
