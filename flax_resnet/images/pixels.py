"""The form of an image's pixels: how many channels they have, and of how many bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # configurations need no NumPy
    import numpy as np

MAX_CHANNELS = 16
RGB_MEAN, RGB_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


class PixelFormat(NamedTuple):
    """Channels and bits of the images of a run.

    Attributes:
      channels: 1 to ``MAX_CHANNELS``; 1 is gray, 3 is RGB, others have no defined color.
      bits: 8 or 16, as unsigned integers.
    """

    channels: int = 3
    bits: int = 8

    @property
    def dtype(self) -> np.dtype:
        """The type of the values."""
        import numpy as np

        return np.dtype(np.uint8 if self.bits == 8 else np.uint16)

    @property
    def max_value(self) -> int:
        """The largest value, which is 1 before normalization."""
        return 2**self.bits - 1

    def __str__(self) -> str:
        """Return for example ``"12 channels of 16 bits"``."""
        return f"{self.channels} channel{'s' * (self.channels > 1)} of {self.bits} bits"


RGB = PixelFormat()
