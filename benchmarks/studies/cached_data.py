"""Input throughput for CIFAR-size images: cached on the device and streamed.

    python benchmarks/studies/cached_data.py [--rounds 5] [--batches 60]

The data are 10,000 PNGs of 32×32 in a folder, in batches of 128. In both cases the batch ends up on
the device, as the step receives it: streamed images are decoded by Grain's threads and transferred;
cached images are gathered from one array by a jitted function. Rounds are interleaved; the medians
and their ratio are printed.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import cv2
import jax
import numpy as np

from train.config.loading import default_config
from train.data.loader import DataLoader
from train.data.prefetch import Prefetcher
from train.data.sampler import EpochSampler

BATCH = 128


def make_folder(root, count=10_000):
    """Write ``count`` smooth random images of 5 classes."""
    rng = np.random.default_rng(0)
    for label in "abcde":
        os.makedirs(f"{root}/train/{label}")
    os.makedirs(f"{root}/val")  # so that no training images are held out
    for i in range(count):
        blobs = rng.integers(0, 256, (5, 5, 3), np.uint8)
        image = cv2.resize(blobs, (32, 32), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(f"{root}/train/{'abcde'[i % 5]}/{i}.png", image)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=60)
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        make_folder(root)
        config = default_config()
        config.dataset.update(name="folder", data_dir=root, image_size=32)
        loaders, data, steps = {}, {}, {}
        for kind, caching in (("cached", "always"), ("streamed", "never")):
            config.loader.cache_on_device = caching
            start = time.perf_counter()
            loaders[kind] = DataLoader(config, "train", training=True).load()
            data[kind] = jax.device_put(loaders[kind].cached)
            steps[kind] = jax.jit(loaders[kind].examples)
            print(f"{kind}: loaded in {time.perf_counter() - start:.1f} s")
        rates = {kind: [] for kind in loaders}
        for _ in range(flags.rounds):
            for kind, loader in loaders.items():
                sampler = EpochSampler(len(loader), BATCH, 0)
                batches = loader.train_batches(sampler, range(flags.batches + 3))
                with Prefetcher(batches, jax.device_put) as feed:
                    for number, batch in enumerate(feed):
                        jax.block_until_ready(steps[kind](data[kind], batch))
                        if number == 2:  # compiled, and the threads are running
                            start = time.perf_counter()
                    seconds = time.perf_counter() - start
                rates[kind].append(flags.batches * BATCH / seconds)
    cached, streamed = (statistics.median(values) for values in rates.values())
    print(f"cached {cached:,.0f} images/s, streamed {streamed:,.0f} images/s")
    print(f"ratio {cached / streamed:.1f}; load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
