"""Throughput of input pipelines: this trainer, tf.data and PyTorch's DataLoader.

    python benchmarks/input_rate.py [--rounds 5] [--tensorflow PYTHON] [--torch PYTHON]

From JPEG files in the page cache (500×375, cropped from scikit-learn's two photographs) to uint8
training batches of 64: decode, random-resized crop to 224, flip (except ours, which flips on the
device). Every side runs in its own process, on one core or on all, interleaved. Prints the medians
over the rounds and the ratios.

``--tensorflow`` and ``--torch`` name Python interpreters with these libraries (and Pillow); sides
that cannot be imported are skipped. "ours, smaller" reads the same images re-encoded at a shorter
side of 256, as by ``train.prepare --resize``.
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time

SIZE, BATCH, WARM_UP, BATCHES = 224, 64, 3, 20
SCALE, ASPECT = (0.08, 1.0), (3 / 4, 4 / 3)
NEEDS = {"tf.data": "tensorflow", "DataLoader": "torch"}


def make_folder(root, shorter=None, count=256):
    """Write ``count`` JPEGs as train/{a,b}/N.jpg, and a few for evaluation."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    photographs = [Image.fromarray(image) for image in load_sample_images().images]
    for i in range(count):
        photograph, width = photographs[i % 2], int(rng.integers(400, 570))
        height = width * 3 // 4
        left = int(rng.integers(photograph.width - width + 1))
        top = int(rng.integers(photograph.height - height + 1))
        image = photograph.resize((500, 375), box=(left, top, left + width, top + height))
        if shorter:
            image = image.resize((round(500 * shorter / 375), shorter))
        for split in ("train", "val")[: 2 if i < 4 else 1]:
            folder = os.path.join(root, split, "ab"[i % 2])
            os.makedirs(folder, exist_ok=True)
            image.save(os.path.join(folder, f"{i}.jpg"), quality=95 if shorter else 90)


def ours(root, cores, workers=0):
    from train.config.loading import default_config
    from train.data.loader import DataLoader
    from train.data.sampler import EpochSampler

    config = default_config()
    config.dataset.update(name="folder", data_dir=root, image_size=SIZE)
    config.augment.update(rrc_scale=SCALE, rrc_ratio=ASPECT)
    config.loader.workers = workers
    loader = DataLoader(config, "train", training=True).load()
    return loader.train_batches(EpochSampler(len(loader), BATCH, 0), range(10**6))


def tf_data(root, cores):
    import tensorflow as tf

    def load(path, label):
        encoded = tf.io.read_file(path)
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            tf.image.extract_jpeg_shape(encoded),
            bounding_boxes=tf.zeros([1, 0, 4]),
            min_object_covered=0.0,
            area_range=SCALE,
            aspect_ratio_range=ASPECT,
            max_attempts=10,
            use_image_if_no_bounding_boxes=True,
        )
        window = tf.concat([begin[:2], size[:2]], axis=0)
        image = tf.image.decode_and_crop_jpeg(encoded, window, channels=3)
        image = tf.image.random_flip_left_right(tf.image.resize(image, (SIZE, SIZE)))
        return tf.cast(tf.clip_by_value(image, 0, 255), tf.uint8), label

    files = sorted(tf.io.gfile.glob(os.path.join(root, "train", "*", "*.jpg")))
    dataset = tf.data.Dataset.from_tensor_slices((files, [0] * len(files)))
    dataset = dataset.shuffle(len(files)).repeat().map(load, num_parallel_calls=cores)
    dataset = dataset.batch(BATCH, drop_remainder=True).prefetch(2)
    options = tf.data.Options()
    options.threading.private_threadpool_size = cores
    return iter(dataset.with_options(options))


def data_loader(root, cores):
    import math
    import random

    import numpy as np
    import torch
    from PIL import Image

    class Images(torch.utils.data.Dataset):
        def __init__(self):
            folder = os.path.join(root, "train")
            self.files = [e.path for label in os.scandir(folder) for e in os.scandir(label)]

        def __len__(self):
            return len(self.files) * 1000

        def __getitem__(self, index):
            with Image.open(self.files[index % len(self.files)]) as file:
                image = file.convert("RGB")
            for _ in range(10):
                area = image.width * image.height * random.uniform(*SCALE)
                ratio = math.exp(random.uniform(*(math.log(bound) for bound in ASPECT)))
                width, height = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
                if width <= image.width and height <= image.height:
                    break
            else:
                width, height = image.size
            left = random.randint(0, image.width - width)
            top = random.randint(0, image.height - height)
            box = (left, top, left + width, top + height)
            image = image.crop(box).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
            if random.random() < 0.5:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            return torch.from_numpy(np.array(image)), 0

    torch.set_num_threads(1)
    loader = torch.utils.data.DataLoader(
        Images(), BATCH, shuffle=True, num_workers=cores, drop_last=True
    )
    return iter(loader)


SIDES = {
    "ours": ours,
    "ours, smaller": ours,
    "ours, processes": lambda root, cores: ours(root, cores, workers=cores),
    "tf.data": tf_data,
    "DataLoader": data_loader,
}


def measure(side, root, cores):
    """Print the rate of one side in this process."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    batches = SIDES[side](root, cores)
    for _ in range(WARM_UP):
        next(batches)
    start = time.perf_counter()
    for _ in range(BATCHES):
        next(batches)
    print("rate", BATCHES * BATCH / (time.perf_counter() - start), flush=True)


def run(python, *arguments):
    """Return the rate that a side prints, and kill its process group."""
    env = os.environ | {"JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [python, __file__, *map(str, arguments)]
    side = subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        lines = iter(side.stdout.readline, "")
        rate = next(float(line.split()[1]) for line in lines if line.startswith("rate"))
    except StopIteration:
        raise SystemExit(f"{' '.join(command)} failed") from None
    finally:
        os.killpg(side.pid, signal.SIGKILL)
        side.wait()
    return rate


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tensorflow", default=sys.executable)
    parser.add_argument("--torch", default=sys.executable)
    flags = parser.parse_args()
    pythons = {"tf.data": flags.tensorflow, "DataLoader": flags.torch}
    present = []
    for side in SIDES:
        check = [pythons.get(side, sys.executable), "-c", f"import {NEEDS.get(side, 'train')}"]
        if subprocess.run(check, capture_output=True).returncode:
            print(f"{side}: skipped, {NEEDS.get(side)} cannot be imported")
        else:
            present.append(side)
    with tempfile.TemporaryDirectory() as root, tempfile.TemporaryDirectory() as smaller:
        make_folder(root)
        make_folder(smaller, shorter=256)
        for cores in sorted({1, len(os.sched_getaffinity(0))}):
            rates = {side: [] for side in present}
            for _ in range(flags.rounds):
                for side, measured in rates.items():
                    folder = smaller if side == "ours, smaller" else root
                    python = pythons.get(side, sys.executable)
                    measured.append(run(python, "--side", side, folder, cores))
                    print(f"  {side}: {measured[-1]:.0f}", flush=True)
            medians = {side: statistics.median(measured) for side, measured in rates.items()}
            print(
                f"{cores} core(s), {os.getloadavg()[0]:.1f} load, {flags.rounds} rounds", flush=True
            )
            for side, rate in medians.items():
                low, high = min(rates[side]), max(rates[side])
                print(
                    f"  {side:16} {rate:6.0f} images/s ({low:.0f} to {high:.0f});"
                    f" ours is {medians['ours'] / rate:.2f} times as fast",
                    flush=True,
                )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--side"]:
        measure(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        main()
