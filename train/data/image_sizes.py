"""The schedule of the training image size."""

from flax_resnet.preprocessing import height_and_width
from train.runtime.config_dict import ConfigDict
from train.runtime.errors import UsageError


class ImageSizes:
    """Shorter side of the training images by epoch, from ``config.dataset``.

    Either one size other than that of evaluation (Touvron et al. 2019, arXiv:1906.06423), or
    progressive resizing, which saves time at the start (Howard 2018). The step is compiled once
    per size.

    Attributes:
      train_sizes: the sizes in pixels, in order; empty if ``image_size`` is used throughout.
    """

    def __init__(self, dataset: ConfigDict, training: bool):
        self.train_sizes = tuple(dataset.train_sizes) if training else ()
        self._starts = tuple(dataset.train_size_epochs) if training else ()
        self._image_size = min(height_and_width(dataset.image_size))
        if len(self.train_sizes) == 1 and not self._starts:
            self._starts = (0.0,)
        if len(self.train_sizes) != len(self._starts) or (self._starts and self._starts[0]):
            raise UsageError(
                f"config.dataset.train_sizes={self.train_sizes} needs as many"
                " config.dataset.train_size_epochs, the epoch from which each size is used,"
                f" starting with 0, not {self._starts}"
            )

    def at(self, epoch: float) -> int:
        """Return the shorter side in pixels at ``epoch``, counted from 0."""
        size = self._image_size
        for start, train_size in zip(self._starts, self.train_sizes, strict=True):
            size = train_size if epoch >= start else size
        return size
