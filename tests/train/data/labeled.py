"""The same images and labels as arrays, tar shards and a Hugging Face data set, for the tests."""

import io
import os
import tarfile

import numpy as np

from train.config.loading import default_config
from train.data.datasets import open_source
from train.data.images import encode_png

IMAGES = np.random.default_rng(0).integers(0, 256, (30, 5, 6), np.uint8)
LABELS = np.arange(30) % 3


def opened(name, data_dir, split="train", **keys):
    """Open a split as a run does."""
    dataset = default_config().dataset
    dataset.update({"name": name, "data_dir": str(data_dir), **keys})
    return open_source(dataset, split)


def add(archive, name, content=b"", **fields):
    """Add a member to a tar archive."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for field, value in fields.items():
        setattr(member, field, value)
    archive.addfile(member, io.BytesIO(content))


def write_shard(path, images, labels, first=0):
    """Write a tar shard of PNGs with labels as text."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for number, (image, label) in enumerate(zip(images, labels, strict=True), first):
            add(archive, f"{number:04d}.png", encode_png(image))
            add(archive, f"{number:04d}.cls", str(label).encode())


def huggingface(images, labels, class_names):
    """Return a ``datasets.Dataset`` of PNGs."""
    import datasets

    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(class_names))}
    )
    encoded = [{"bytes": encode_png(image), "path": None} for image in images]
    columns = {"image": encoded, "label": [int(label) for label in labels]}
    return datasets.Dataset.from_dict(columns, features=features)
