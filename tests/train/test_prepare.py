"""Preparing TFDS's own data sets from archives made here, and training on them without
TensorFlow. What needs TensorFlow is skipped where the extra ``prepare`` is not installed."""

import importlib.util
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from train.data import staging
from train.data.archives import check_archives
from train.data.decode import decode_rgb
from train.data.prepared import open_builder, open_prepared, raw_records
from train.data.resized import resize, resized_name, shrink
from train.errors import RunError, UsageError

needs_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None,
    reason="TensorFlow is not installed: pip install -e '.[prepare]'",
)
TRAIN, VALIDATION = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
# TFDS repairs these two by name, as the real archive has them wrong.
CMYK, PNG = "n01739381_1309.JPEG", "n02105855_2933.JPEG"
WITHOUT_TENSORFLOW = """
import runpy, sys
sys.modules["tensorflow"] = None  # importing it is an error
module, *sys.argv[1:] = sys.argv[1:]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def photo(rng, height=48, width=64, channels=3):
    """Smooth random pixels."""
    small = rng.integers(0, 256, (5, 6, channels), np.uint8)
    return np.squeeze(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC))


def encoded(pixels, kind="JPEG", mode=None, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels, mode).save(buffer, kind, **options)
    return buffer.getvalue()


def tar(files, mode="w"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def imagenet_archives(folder):
    """A train and a validation archive of 150 and 60 images, built as image-net.org's are."""
    rng = np.random.default_rng(0)
    names = Path(tfds.core.tfds_path("datasets/imagenet2012/labels.txt")).read_text().split()
    synsets = sorted({*names[:3], CMYK.partition("_")[0], PNG.partition("_")[0]})
    train = {}
    for synset in synsets:
        images = {f"{synset}_{n}.JPEG": encoded(photo(rng)) for n in range(30)}
        images[f"{synset}_0.JPEG"] = encoded(photo(rng, channels=1))
        if CMYK.startswith(synset):
            del images[f"{synset}_1.JPEG"]
            images[CMYK] = encoded(photo(rng, channels=4), mode="CMYK")
        if PNG.startswith(synset):
            del images[f"{synset}_1.JPEG"]
            images[PNG] = encoded(photo(rng), "PNG")
        train[f"{synset}.tar"] = tar(images)
    validation = {
        f"ILSVRC2012_val_{n:08d}.JPEG": encoded(photo(rng, 40 + n % 20, 50)) for n in range(1, 61)
    }
    folder.mkdir()
    (folder / TRAIN).write_bytes(tar(train))
    (folder / VALIDATION).write_bytes(tar(validation))
    return folder


def cifar_archive(folder):
    """CIFAR-10's archive, with 20 images in each of its files."""
    rng = np.random.default_rng(1)
    names = "airplane automobile bird cat deer dog frog horse ship truck".split()
    files = {"batches.meta.txt": "\n".join([*names, ""]).encode()}
    for name in [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]:
        records = rng.integers(0, 256, (20, 1 + 32 * 32 * 3), np.uint8)
        records[:, 0] %= 10
        files[f"{name}.bin"] = records.tobytes()
    folder.mkdir()
    archive = tar({f"cifar-10-batches-bin/{name}": data for name, data in files.items()}, "w:gz")
    (folder / "cifar-10-binary.tar.gz").write_bytes(archive)
    return folder


# In one process, since TensorFlow takes seconds to import. CIFAR's archive is found in the
# manual folder, as TFDS allows; only its checksum cannot be the published one.
PREPARE_ALL = """
import sys
from pathlib import Path
import tensorflow_datasets as tfds
from train import prepare
root = Path(sys.argv[1])
tfds.download.DownloadManager._register_or_validate_checksums = lambda self, *a, **k: None
for name in ("imagenet2012", "cifar10"):
    arguments = ["--dataset", name, "--data_dir", root / "array_record",
                 "--manual_dir", root / name, "--any_size"]
    sys.argv = ["prepare", *map(str, arguments)]
    assert prepare.main() == 0
    config = tfds.download.DownloadConfig(manual_dir=root / name, try_download_gcs=False)
    builder = tfds.builder(name, data_dir=root / "tfrecord")
    builder.download_and_prepare(download_config=config, file_format="tfrecord")
    options = tfds.ReadConfig(interleave_cycle_length=1)
    for split in ("train", "train[10:95%]", "train[-7:]+train[3:5]"):
        decoders = {"image": tfds.decode.SkipDecoding()}
        examples = builder.as_dataset(split=split, decoders=decoders, read_config=options)
        with open(root / f"{name}-{split}.bin", "wb") as file:
            for example in examples.as_numpy_iterator():
                file.write(example["image"] + b"/%d;" % example["label"])
"""


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """A folder with the archives and what the stock builders made of them in both formats."""
    root = tmp_path_factory.mktemp("prepared")
    imagenet_archives(root / "imagenet2012")
    cifar_archive(root / "cifar10")
    done = subprocess.run(
        [sys.executable, "-c", PREPARE_ALL, str(root)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return root
