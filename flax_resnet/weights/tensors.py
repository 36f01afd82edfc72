"""The common result of all readers: named tensors of known shape, with values read on demand."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from flax_resnet.text import OneLineError, error_reason

# Weight files of a Hugging Face or timm repository, in order of preference.
REPOSITORY_FILES = ("model.safetensors", "pytorch_model.bin", "flax_model.msgpack")
REPOSITORY_STEMS = {name.partition(".")[0] for name in REPOSITORY_FILES}

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


class WeightsError(OneLineError):
    """A weight file or a request is invalid; the message says what to do."""


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor in a file, whose values are read only when :attr:`read` is called.

    The shape that a file claims is thus compared with the network's before memory is allocated.

    Attributes:
      shape: the shape in the file.
      dtype: the NumPy type, including those of ``ml_dtypes``.
      read: returns the values as an array of ``shape`` and ``dtype``, possibly a view. If the
        file is corrupt, it raises whatever its library raises.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]


@dataclasses.dataclass(frozen=True)
class WeightFile:
    """The content of a file.

    Attributes:
      format: such as ``safetensors``.
      tensors: by name.
      metadata: texts that the file's writer added.
      notes: remarks for the user.
      part: the network that ``FILE#PART`` names; empty if none is named.
      group: the keys of the dictionaries around the tensors, such as ``state_dict``.
      left: names of tensors that belong to none of the file's networks.
      beside: those of ``left`` that may be a head's, by their names beside the network without the
        modules around both, such as ``classifier.0.weight``; each with its name in ``left``.
      fields: fields of the network that the files beside it show.
    """

    format: str
    tensors: dict[str, Tensor]
    metadata: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    part: str = ""
    group: str = ""
    left: tuple[str, ...] = ()
    beside: dict[str, tuple[str, Tensor]] = dataclasses.field(default_factory=dict)
    fields: dict[str, Any] = dataclasses.field(default_factory=dict)


@contextlib.contextmanager
def wrap_read_errors(source: str) -> Iterator[None]:
    """Convert any exception of a parser to a WeightsError saying that ``source`` is corrupt.

    On corrupt bytes zipfile, zlib, safetensors, NumPy and h5py raise a dozen kinds of errors.
    """
    try:
        yield
    except WeightsError:
        raise
    except PermissionError as error:
        raise WeightsError(f"{source} cannot be read: {error.strerror}") from error
    except Exception as error:
        raise WeightsError(
            f"{source} is corrupt or truncated ({error_reason(error)}); download or save it again"
        ) from error


def is_valid_shape(numbers: Sequence[int], *others: int) -> bool:
    """Return whether a tensor may have these sizes or strides, and others such as its offset.

    Without limits, multiplying numbers from a malicious file could take arbitrarily long.
    """
    return len(numbers) <= 32 and all(
        isinstance(n, int) and 0 <= n <= 2**48 for n in (*numbers, *others)
    )


def is_float(dtype: np.dtype) -> bool:
    """Return whether ``dtype`` can hold weights: float16, bfloat16, float32 or float64."""
    return dtype == BFLOAT16 or np.issubdtype(dtype, np.floating)
