"""``.npz`` files of arrays without Python objects."""

import zipfile
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from train.runtime.errors import RunError, UsageError


def save_arrays(path: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays to a compressed ``.npz``; unlike ``np.savez``, also one of the name "file"."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asarray(array), allow_pickle=False)


def read_arrays(
    path: str,
    required: Sequence[str],
    written_by: str,
    aliases: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, np.ndarray]:
    """Return the arrays of a ``.npz`` file.

    Args:
      path: the file.
      required: arrays that it must have.
      written_by: flag that writes such a file, for the message.
      aliases: other names of arrays: ``np.savez`` cannot write one named ``file``.

    Raises:
      RunError: the file cannot be read.
      UsageError: it lacks an array.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            arrays = {aliases.get(name, name): content[name] for name in content.files}
    except Exception as error:  # zipfile, zlib and NumPy raise a dozen kinds
        reason = getattr(error, "strerror", None) or error
        if "pickle" in str(reason):  # NumPy's advice is to load it unsafely
            reason = "it is no .npz file of numbers and text"
        raise RunError(f"cannot read {path!r}: {reason}") from error
    if lacking := [name for name in required if name not in arrays]:
        raise UsageError(
            f"{path!r} must have the arrays {' and '.join(map(repr, required))}, as {written_by}"
            f" writes them; it has no {' and no '.join(map(repr, lacking))}"
        )
    return arrays
