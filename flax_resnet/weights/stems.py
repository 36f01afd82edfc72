"""Adapt the first convolution to another number of image channels."""

import numpy as np

from flax_resnet.weights.tensors import WeightsError


def adapt_stem(kernel: np.ndarray, channels: int) -> np.ndarray:
    """Return a stem's kernel for another number of image channels, as timm does.

    One channel gets the sum over red, green and blue, so that a gray image has the response that
    it had as RGB. Otherwise the channels are red, green, blue, red, … with weights scaled by
    3 / ``channels``, which keeps that response if ``channels`` is a multiple of 3.

    Args:
      kernel: ``(H, W, 3, out)``.
      channels: number of channels of the result.

    Raises:
      WeightsError: the kernel is not for RGB.
    """
    given = kernel.shape[2]
    if given != 3:
        raise WeightsError(
            f"the weights are of a network for images with {given} channels, and cannot be adapted"
            f" to {channels}: only those for 3 channels can"
        )
    if channels == 1:
        return kernel.sum(axis=2, keepdims=True)
    scale = np.float32(given / channels)
    return np.take(kernel, np.arange(channels) % given, axis=2) * scale
