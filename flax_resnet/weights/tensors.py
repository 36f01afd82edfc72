"""What every reader gives: named tensors of known shape, whose values are read on demand."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence

import ml_dtypes
import numpy as np

# The files that a Hugging Face or timm repository keeps its weights in.
REPOSITORY_FILES = ("model.safetensors", "pytorch_model.bin")


class WeightsError(ValueError):
    """A weight file or a request that cannot be served; the message says what to do."""


def shortened(text: str, most: int = 80) -> str:
    """The text's beginning: what a file says may be of any length."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def is_sane_shape(numbers: Sequence[int], *others: int) -> bool:
    """Whether these may be a tensor's sizes or strides, with other numbers such as its offset.

    A product of what a file merely claims could otherwise take any time.
    """
    return len(numbers) <= 32 and all(
        isinstance(n, int) and 0 <= n <= 2**48 for n in (*numbers, *others)
    )


@contextlib.contextmanager
def wrap_read_errors(what: str) -> Iterator[None]:
    """Turns whatever a parser raises into a WeightsError that ``what`` is damaged.

    Over damaged bytes zipfile, zlib, json, NumPy and h5py raise errors of a dozen kinds.
    """
    try:
        yield
    except WeightsError:
        raise
    except PermissionError as error:
        raise WeightsError(f"{what} cannot be read: {error.strerror}") from error
    except Exception as error:
        reason = shortened(str(error) or type(error).__name__, 200)
        raise WeightsError(
            f"{what} is damaged or cut short ({reason}); fetch or save it again"
        ) from error


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor in a file. Its values are not touched before :attr:`read` is called.

    So a shape that a file merely claims is compared with the network's before memory is
    given to it.

    Attributes:
      shape: as in the file.
      dtype: NumPy's type; ``ml_dtypes.bfloat16`` where the file has that.
      read: gives the values as an array of ``shape`` and ``dtype``, maybe a view. Where the
        file is damaged it raises what its library raises.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]


@dataclasses.dataclass(frozen=True)
class WeightFile:
    """What stands in a file: its format in words, its tensors by name, remarks on it."""

    format: str
    tensors: dict[str, Tensor]
    metadata: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()


BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def is_float(dtype: np.dtype) -> bool:
    """Whether weights may be of this type: float16, bfloat16, float32 or float64."""
    return dtype == BFLOAT16 or np.issubdtype(dtype, np.floating)
