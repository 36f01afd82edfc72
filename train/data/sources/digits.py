"""The handwritten digits of scikit-learn as a TFDS data set, which needs no download.

1,797 images of 8×8 pixels from the UCI data set "Optical Recognition of Handwritten Digits"
(Alpaydin and Kaynak, 1998). The last 360 are the test images, from other writers than most of
the training images.
"""

from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from train.data.images import encode_png

TRAIN_IMAGES = 1437


class SklearnDigits(tfds.core.GeneratorBasedBuilder):
    """1,437 training and 360 test images, 8×8 gray, labels 0…9."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        # self.dataset_info_from_configs would look for files next to one of TFDS's own builders.
        return tfds.core.DatasetInfo(
            builder=self,
            description="Handwritten digits of 8×8 pixels, from scikit-learn.",
            homepage="https://scikit-learn.org/stable/datasets/toy_dataset.html",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=[str(digit) for digit in range(10)]),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        del dl_manager  # nothing to download
        from sklearn.datasets import load_digits  # imported only here: it takes a second

        images, labels = load_digits(return_X_y=True)
        # 17 gray levels, 0…16, scaled to 0…255.
        images = np.rint(images.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
        return {
            "train": self._generate_examples(images[:TRAIN_IMAGES], labels[:TRAIN_IMAGES]),
            "test": self._generate_examples(images[TRAIN_IMAGES:], labels[TRAIN_IMAGES:]),
        }

    def _generate_examples(
        self, images: np.ndarray, labels: np.ndarray
    ) -> Iterator[tuple[int, dict]]:
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            # Encoded here, because TFDS encodes arrays with TensorFlow.
            yield index, {"image": encode_png(image), "label": int(label)}
