"""Small versions of the source archives of ImageNet and CIFAR-10."""

import io
import itertools
import tarfile
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from tests.train.pictures import encode, photograph

TRAIN, VALIDATION = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
# Wrongly encoded in the real archive; TFDS repairs these two files by name.
CMYK, PNG = "n01739381_1309.JPEG", "n02105855_2933.JPEG"


def tar(files, mode="w"):
    """Return a tar archive of ``{name: bytes}``."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def imagenet_archives(folder):
    """Write ImageNet archives with 150 training and 60 validation images."""
    seeds = itertools.count()

    def image(kind="JPEG", mode=None, height=48, width=64):
        return encode(photograph(next(seeds), height, width), kind, mode)

    names = Path(tfds.core.tfds_path("datasets/imagenet2012/labels.txt")).read_text().split()
    synsets = sorted({*names[:3], CMYK.partition("_")[0], PNG.partition("_")[0]})
    train = {}
    for synset in synsets:
        images = {f"{synset}_{n}.JPEG": image() for n in range(30)}
        images[f"{synset}_0.JPEG"] = image(mode="L")
        if CMYK.startswith(synset):
            del images[f"{synset}_1.JPEG"]
            images[CMYK] = image(mode="CMYK")
        if PNG.startswith(synset):
            del images[f"{synset}_1.JPEG"]
            images[PNG] = image("PNG")
        train[f"{synset}.tar"] = tar(images)
    validation = {
        f"ILSVRC2012_val_{n:08d}.JPEG": image(height=40 + n % 20, width=50) for n in range(1, 61)
    }
    folder.mkdir()
    (folder / TRAIN).write_bytes(tar(train))
    (folder / VALIDATION).write_bytes(tar(validation))
    return folder


def cifar_archive(folder):
    """Write CIFAR-10's archive with as many images as above, to compile only once."""
    rng = np.random.default_rng(1)
    names = "airplane automobile bird cat deer dog frog horse ship truck".split()
    files = {"batches.meta.txt": "\n".join([*names, ""]).encode()}
    for name, count in [*((f"data_batch_{n}", 30) for n in range(1, 6)), ("test_batch", 60)]:
        records = rng.integers(0, 256, (count, 1 + 32 * 32 * 3), np.uint8)
        records[:, 0] %= 10
        files[f"{name}.bin"] = records.tobytes()
    folder.mkdir()
    archive = tar({f"cifar-10-batches-bin/{name}": data for name, data in files.items()}, "w:gz")
    (folder / "cifar-10-binary.tar.gz").write_bytes(archive)
    return folder
