"""Values of the golden networks: the same here and where the other libraries are installed."""

import zlib

import numpy as np

CLASSES = 7


def golden_images():
    """Return two random images, float32 ``(2, 32, 32, 3)``."""
    return np.random.RandomState(0).standard_normal((2, 32, 32, 3)).astype(np.float32)


def golden_tensor(name, shape, out_axis=0):
    """Return the values of a tensor, which follow from its name; ``RandomState`` never changes.

    Args:
      name: the library's name.
      shape: the library's shape.
      out_axis: axis of the kernels' output channels: 0 in PyTorch, -1 in Keras.
    """
    leaf = name.replace("/", ".").rpartition(".")[2]
    if leaf == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if len(shape) > 1:
        values *= (2 * shape[out_axis] / np.prod(shape)) ** 0.5
    elif leaf in ("running_var", "moving_variance"):
        values = np.exp(0.3 * values)
    else:
        values = 0.1 * values + (0.6 if leaf in ("weight", "gamma") else 0)
    return np.asarray(values, np.float32)
