"""Folders of images with masks, for the tests."""

import io

import numpy as np
from PIL import Image

from tests.train.pictures import photograph
from train.config.loading import default_config
from train.data.datasets import open_source


def png(values, mode=None, palette=None, **options):
    """Encode an array, of a mask or an image, as PNG."""
    image = Image.fromarray(values)
    if palette is not None:
        image = Image.fromarray(values, "P")
        image.putpalette(palette)
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, "PNG", **options)
    return buffer.getvalue()


def mask(seed, height, width, classes=3):
    """Return a mask of large areas, uint8 ``(H, W)``."""
    areas = np.random.default_rng(seed).integers(0, classes, (4, 5), np.uint8)
    rows, columns = np.arange(height) * 4 // height, np.arange(width) * 5 // width
    return areas[rows[:, None], columns]


def write(root, names, folder="", first=0, names_of_classes=("sky", "tree", "car")):
    """Write images and masks of odd sizes below ``root``; return ``{name: (image, mask)}``."""
    written = {}
    for number, name in enumerate(names, first):
        height, width = 20 + number % 7, 24 + number % 5
        image, classes = photograph(number, height, width), mask(number, height, width)
        for kind, content in (("images", png(image)), ("masks", png(classes))):
            path = root / folder / kind / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        written[name] = image, classes
    if names_of_classes:
        (root / "classes.txt").write_text("\n".join(names_of_classes) + "\n")
    return written


def opened(root, split="train", **keys):
    """Open a split as a run does."""
    dataset = default_config().dataset
    dataset.update(name="segmentation_folder", data_dir=str(root), **keys)
    return open_source(dataset, split)
